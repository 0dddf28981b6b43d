// AVX2 with FMA: vectors of 8 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

using Vec = __m256;
using Scalar = float;
using Columns = const uint16_t*;
constexpr int kLanes = 8;
constexpr int kMaxTile = 13;  // of 16 registers, three hold the broadcast value, a mask and a masked load
constexpr bool kGuardedLoads = true;  // load_first touches no memory beyond its count, and is fast

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec broadcast(float value) { return _mm256_set1_ps(value); }
inline Vec load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec load_sums(const float* from) { return load(from); }
// A NaN stays one, as in torch.
inline Vec positive(Vec v) { return _mm256_max_ps(zero(), v); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }

inline __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load_first(const float* from, int count) { return _mm256_maskload_ps(from, first(count)); }
inline void store_first(float* to, Vec v, int count) {
    if (count == kLanes) {
        store(to, v);  // masked stores are slow on several CPUs
    } else {
        _mm256_maskstore_ps(to, first(count), v);
    }
}

// Single loads: the gather instruction of AVX2 is slower on AMD, and on Intel since the mitigation of CVE-2022-40982.
inline Columns load_columns(const uint16_t* from) { return from; }
inline Vec gather(const float* from, Columns c) {
    return _mm256_setr_ps(from[c[0]], from[c[1]], from[c[2]], from[c[3]],  //
                          from[c[4]], from[c[5]], from[c[6]], from[c[7]]);
}

inline void transpose(Vec (&v)[8]) {
    Vec a[8], b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        for (int half = 0; half < 2; ++half) {
            const Vec low = a[4 * i + half], high = a[4 * i + 2 + half];
            b[4 * i + 2 * half] = _mm256_shuffle_ps(low, high, 0x44);
            b[4 * i + 2 * half + 1] = _mm256_shuffle_ps(low, high, 0xee);
        }
    }
    for (int j = 0; j < 4; ++j) {
        v[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        v[j + 4] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}

}  // namespace
