// AVX-512: vectors of 16 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

using Vec = __m512;
using Scalar = float;
using Columns = const uint16_t*;
constexpr int kLanes = 16;
constexpr int kMaxTile = 28;  // of 32 registers, one holds the broadcast value
constexpr int kMaxQuad = 6;   // of a quarter of the registers, with a quad of values and one of them in every lane
constexpr bool kGuardedLoads = true;  // load_first touches no memory beyond its count, and is fast

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec broadcast(float value) { return _mm512_set1_ps(value); }
inline Vec broadcast_bits(uint32_t bits) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(bits))); }
// Four floats, repeated in every 128 bits, and one of them in every lane: cheaper than four loads where loads bind.
inline Vec load_quad(const float* from) { return _mm512_broadcast_f32x4(_mm_loadu_ps(from)); }
template <int Lane>
inline Vec of_quad(Vec quad) {
    return _mm512_permute_ps(quad, Lane * 0x55);
}
inline Vec load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Vec v) { _mm512_storeu_ps(to, v); }
// Past the caches, to aligned memory; then the thread's later stores wait for it behind the fence.
inline void stream(float* to, Vec v) { _mm512_stream_ps(to, v); }
inline void stream_fence() { _mm_sfence(); }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec load_sums(const float* from) { return load(from); }
// A NaN stays one, as in torch.
inline Vec positive(Vec v) { return _mm512_max_ps(zero(), v); }
inline Vec at_least(Vec floor, Vec v) { return _mm512_max_ps(floor, v); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }

inline __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
inline Vec load_first(const float* from, int count) { return _mm512_maskz_loadu_ps(first(count), from); }
inline void store_first(float* to, Vec v, int count) { _mm512_mask_storeu_ps(to, first(count), v); }

// lanes[source], or `otherwise` where the source is negative.
struct LaneOrder {
    __m512i source;
    __mmask16 taken;
};
inline LaneOrder lane_order(const int32_t* source) {
    const __m512i index = _mm512_loadu_si512(source);
    return {index, static_cast<__mmask16>(~_mm512_movepi32_mask(index))};
}
inline Vec pick(Vec lanes, LaneOrder order, Vec otherwise) {
    return _mm512_mask_permutexvar_ps(otherwise, order.taken, order.source, lanes);
}

// Single loads: the gather instruction is slower on AMD, and on Intel since the mitigation of CVE-2022-40982. Columns come
// in pairs, which balances loads against instructions.
inline Columns load_columns(const uint16_t* from) { return from; }
inline __m128 gather_quad(const float* from, const uint16_t* columns) {
    uint32_t low, high;
    std::memcpy(&low, columns, sizeof low);
    std::memcpy(&high, columns + 2, sizeof high);
    return _mm_setr_ps(from[low & 0xffff], from[low >> 16], from[high & 0xffff], from[high >> 16]);
}
inline __m256 gather_half(const float* from, const uint16_t* columns) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(gather_quad(from, columns)), gather_quad(from, columns + 4), 1);
}
inline Vec gather(const float* from, Columns columns) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(gather_half(from, columns)), gather_half(from, columns + 8), 1);
}

inline void transpose(Vec (&v)[16]) {
    Vec a[16], b[16];
    for (int i = 0; i < 8; ++i) {
        a[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
        for (int half = 0; half < 2; ++half) {
            const __m512d low = _mm512_castps_pd(a[4 * i + half]), high = _mm512_castps_pd(a[4 * i + 2 + half]);
            b[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            b[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    // b[4 i + j]: rows 4 i .. 4 i + 3 of columns j, j + 4, j + 8, j + 12, one a 128-bit part.
    for (int j = 0; j < 4; ++j) {
        const Vec even_01 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88);
        const Vec odd_01 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
        const Vec even_23 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
        const Vec odd_23 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
        v[j] = _mm512_shuffle_f32x4(even_01, even_23, 0x88);
        v[j + 8] = _mm512_shuffle_f32x4(even_01, even_23, 0xdd);
        v[j + 4] = _mm512_shuffle_f32x4(odd_01, odd_23, 0x88);
        v[j + 12] = _mm512_shuffle_f32x4(odd_01, odd_23, 0xdd);
    }
}

}  // namespace
