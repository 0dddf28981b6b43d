// What sas_product.cu asks of a device, in PTX; tests/gpu/emulated_units.h does the same on a CPU.
// Compiled by NVRTC as one text, without any header. ELEMENT is bf16 or f16.

using Word = unsigned int;

#define TEXT_OF(name) #name
#define NAME_OF(name) TEXT_OF(name)
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define SHARED_MEMORY extern __shared__ __align__(1024) unsigned char shared_memory[]

__device__ __forceinline__ Word shared_address(const void* place) {
  return static_cast<Word>(__cvta_generic_to_shared(place));
}

// 16 bytes into shared memory, running ahead; zeros where is_inside is false, and nothing is read.
__device__ __forceinline__ void copy_ahead(Word to, const void* from, bool is_inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(is_inside ? 16 : 0) : "memory");
}

__device__ __forceinline__ void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// All but the last LATER groups of this thread's copies have arrived.
template <int LATER>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane i says where row i % 8 of matrix i / 8 lies.
__device__ __forceinline__ void load_matrices(Word (&to)[4], Word from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

__device__ __forceinline__ Word from_lane_across(Word value, int distance) {
  return __shfl_xor_sync(0xffffffffu, value, distance);
}

__device__ __forceinline__ Word bytes_of(Word low, Word high, Word selector) {
  return __byte_perm(low, high, selector);
}

// Two sums as one word of elements, the first in its lower half.
__device__ __forceinline__ Word to_elements(float first, float second) {
  Word both;
  asm("cvt.rn." NAME_OF(ELEMENT) "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
}

__device__ __forceinline__ float to_float(Word element) {
  float value;
  asm("cvt.f32." NAME_OF(ELEMENT) " %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(element)));
  return value;
}

#if WARPGROUPS

// What other threads copied into shared memory is seen by the warpgroups' products.
__device__ __forceinline__ void show_copies_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void end_of_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define SUMS_8(n) "%" #n "0, %" #n "1, %" #n "2, %" #n "3, %" #n "4, %" #n "5, %" #n "6, %" #n "7, %" #n "8, %" #n "9, "
#define SUMS_OF(j) \
  "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
#define SUMS_OF_4(j) SUMS_OF(j), SUMS_OF(j + 1), SUMS_OF(j + 2), SUMS_OF(j + 3)

// sums[64 x 128] += sparse rows[64 x 32] times columns[32 x 128], by the four warps of a warpgroup. Threads 2 * SELECTOR
// and 2 * SELECTOR + 1 of each four hold the places of two rows.
template <int SELECTOR>
__device__ __forceinline__ void multiply_sparse(float (&sums)[16][4], const Word (&rows)[4], unsigned long long columns,
                                                const Word& places) {
  asm volatile("wgmma.mma_async.sp.sync.aligned.m64n128k32.f32." NAME_OF(ELEMENT) "." NAME_OF(ELEMENT)
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " SUMS_8(1) SUMS_8(2) SUMS_8(3) SUMS_8(4) SUMS_8(5)
               "%60, %61, %62, %63}, {%64, %65, %66, %67}, %68, %69, %70, 1, 1, 1, 0;"
               : SUMS_OF_4(0), SUMS_OF_4(4), SUMS_OF_4(8), SUMS_OF_4(12)
               : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "l"(columns), "r"(places), "n"(SELECTOR)
               : "memory");
}

// All products of this warpgroup are done: shared memory that they read may be overwritten.
__device__ __forceinline__ void wait_for_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// The compiler takes an operand of a product for read where the product begins, and would give its register to something
// else; named here, after the wait, it stays what it was until then. Sums are read no earlier than here.
__device__ __forceinline__ void held_until_here(Word& value) { asm volatile("" : "+r"(value)::"memory"); }
__device__ __forceinline__ void held_until_here(float& value) { asm volatile("" : "+f"(value)::"memory"); }

#else

// sums[16 x 8] += sparse rows[16 x 32] times columns[32 x 8]; see above for places.
template <int SELECTOR>
__device__ __forceinline__ void multiply_sparse(float (&sums)[4], const Word (&rows)[4], const Word (&columns)[4],
                                                const Word& places) {
  asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32." NAME_OF(ELEMENT) "." NAME_OF(ELEMENT)
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(columns[0]), "r"(columns[1]),
                 "r"(columns[2]), "r"(columns[3]), "r"(places), "n"(SELECTOR));
}

#endif
