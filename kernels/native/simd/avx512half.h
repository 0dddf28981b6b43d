// Vectors of 32 half-precision numbers as AVX-512 moves them; arithmetic is in avx512fp16.h or its emulation.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

using Vec = __m512i;
using Scalar = uint16_t;  // the bits of a half-precision number
using Wide = __m512;      // half a vector, in float
constexpr int kLanes = 32;
constexpr int kWideLanes = 16;
constexpr int kMaxTile = 28;  // of 32 registers, one holds the broadcast value
constexpr bool kGuardedLoads = true;  // load_first touches no memory beyond its count, and is fast

inline Vec zero() { return _mm512_setzero_si512(); }
// From 32 bits that hold the value twice.
inline Vec broadcast_bits(uint32_t pair) { return _mm512_set1_epi32(static_cast<int>(pair)); }
inline Vec load(const Scalar* from) { return _mm512_loadu_si512(from); }
inline void store(Scalar* to, Vec v) { _mm512_storeu_si512(to, v); }

// Past the caches, to aligned memory; then the thread's later stores wait for it behind the fence.
inline void stream(Scalar* to, Vec v) { _mm512_stream_si512(reinterpret_cast<__m512i*>(to), v); }
inline void stream_fence() { _mm_sfence(); }

inline __mmask32 first(int count) { return static_cast<__mmask32>((uint64_t{1} << count) - 1u); }
inline Vec load_first(const Scalar* from, int count) { return _mm512_maskz_loadu_epi16(first(count), from); }
inline void store_first(Scalar* to, Vec v, int count) { _mm512_mask_storeu_epi16(to, first(count), v); }

inline Wide broadcast_wide(float value) { return _mm512_set1_ps(value); }
inline Wide load_wide(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Wide v) { _mm512_storeu_ps(to, v); }
inline Wide add(Wide a, Wide b) { return _mm512_add_ps(a, b); }
// A NaN stays one, as in torch.
inline Wide positive(Wide v) { return _mm512_max_ps(_mm512_setzero_ps(), v); }

inline Wide widen(const Scalar* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Vec narrow(Wide low, Wide high) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const __m256i first_half = _mm512_cvtps_ph(low, kNearest), second_half = _mm512_cvtps_ph(high, kNearest);
    return _mm512_inserti64x4(_mm512_castsi256_si512(first_half), second_half, 1);
}
inline Vec load_sums(const float* from) { return narrow(load_wide(from), load_wide(from + kWideLanes)); }

// Pairs of rows, of pairs, of quadruples, then of 128-bit parts as avx512.h does: five steps of 32 shuffles.
inline void transpose(Vec (&v)[32]) {
    Vec a[32], b[32];
    for (int i = 0; i < 16; ++i) {
        a[2 * i] = _mm512_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
    // a[2 i + h]: rows 2 i, 2 i + 1 of columns 4 h .. 4 h + 3 of each 8.
    for (int i = 0; i < 8; ++i) {
        for (int h = 0; h < 2; ++h) {
            b[4 * i + 2 * h] = _mm512_unpacklo_epi32(a[4 * i + h], a[4 * i + 2 + h]);
            b[4 * i + 2 * h + 1] = _mm512_unpackhi_epi32(a[4 * i + h], a[4 * i + 2 + h]);
        }
    }
    // b[4 i + q]: rows 4 i .. 4 i + 3 of columns 2 q, 2 q + 1 of each 8.
    for (int i = 0; i < 4; ++i) {
        for (int q = 0; q < 4; ++q) {
            a[8 * i + 2 * q] = _mm512_unpacklo_epi64(b[8 * i + q], b[8 * i + 4 + q]);
            a[8 * i + 2 * q + 1] = _mm512_unpackhi_epi64(b[8 * i + q], b[8 * i + 4 + q]);
        }
    }
    // a[8 i + j]: rows 8 i .. 8 i + 7 of columns j, j + 8, j + 16, j + 24, one a 128-bit part.
    for (int j = 0; j < 8; ++j) {
        const Vec even_01 = _mm512_shuffle_i32x4(a[j], a[8 + j], 0x88);
        const Vec odd_01 = _mm512_shuffle_i32x4(a[j], a[8 + j], 0xdd);
        const Vec even_23 = _mm512_shuffle_i32x4(a[16 + j], a[24 + j], 0x88);
        const Vec odd_23 = _mm512_shuffle_i32x4(a[16 + j], a[24 + j], 0xdd);
        v[j] = _mm512_shuffle_i32x4(even_01, even_23, 0x88);
        v[j + 16] = _mm512_shuffle_i32x4(even_01, even_23, 0xdd);
        v[j + 8] = _mm512_shuffle_i32x4(odd_01, odd_23, 0x88);
        v[j + 24] = _mm512_shuffle_i32x4(odd_01, odd_23, 0xdd);
    }
}

}  // namespace
