// The inner kernel in half precision: short runs of products are summed in half, the runs in float.
//
// A run's rounding errors grow with its length (see kernels/reference.py), widening its sums costs as much as four
// products: 32 products a run keep both small. The two halves of an entry's value are equal, so that a plain broadcast
// of 32 bits fills the lanes: on Intel one of 16 bits takes a port that multiply-adds need.

#include "flat/row.inc.h"

namespace {

constexpr int64_t kRunProducts = 32;

// sums = (opens ? bias : sums) + run, then the rectifier if it closes. The run passes through memory: a conversion of
// half a register needs a shuffle, that of a load does not.
template <int T>
inline void add_run(const Vec (&run)[T], const Row& row, bool opens, bool closes, float* sums) {
    alignas(64) Scalar halves[T * kLanes];
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t) store(halves + t * kLanes, run[t]);
    const Wide bias = broadcast_wide(row.bias);
#pragma GCC unroll 4
    for (int i = 0; i < T * kLanes; i += kWideLanes) {
        const Wide sum = add(opens ? bias : load_wide(sums + i), widen(halves + i));
        store(sums + i, closes ? positive(sum) : sum);
    }
}

// `last` activations of the last vector may be read where the input is the caller's own memory (Guarded).
template <int T, bool Guarded>
void axpy_tile(const Row& row, const Scalar* in, float* sums, int last) {
    const int64_t count = row.end - row.begin;
    // Runs of like length: a last one of few products would cost as much to widen as a long one.
    int64_t runs = 1, length = count;
    if (count > kRunProducts) {
        runs = (count + kRunProducts - 1) / kRunProducts;
        length = (count + runs - 1) / runs;
    }
    const sparseplan::Entry* entry = row.begin;
    for (int64_t run = 1; run <= runs; ++run) {
        const sparseplan::Entry* const end = run == runs ? row.end : entry + length;
        Vec acc[T];
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = zero();
        for (; entry != end; ++entry) {
            const Vec value = broadcast_pair(&entry->value);
            const Scalar* shifted = in + entry->offset;
#pragma GCC unroll 32
            for (int t = 0; t < T - 1; ++t) acc[t] = multiply_add(value, load(shifted + t * kLanes), acc[t]);
            const Scalar* tail = shifted + (T - 1) * kLanes;
            acc[T - 1] = multiply_add(value, Guarded ? load_first(tail, last) : load(tail), acc[T - 1]);
        }
        add_run<T>(acc, row, row.opens && run == 1, row.closes && run == runs, sums);
    }
}

}  // namespace

#include "flat/tiles.inc.h"
