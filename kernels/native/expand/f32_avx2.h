// AVX2 with FMA: vectors of 8 floats.
#pragma once

#include <immintrin.h>

#include "expand/f32.h"

namespace {

using Vec = __m256;
using Sums = __m256;
using Choice = __m256;  // the sign of a lane decides
constexpr int kLanes = 8;

inline Vec load(const Value* from) { return _mm256_loadu_ps(from); }
inline Sums no_sums() { return _mm256_setzero_ps(); }
inline Sums dot(Sums sums, Vec weight, Vec x) { return _mm256_fmadd_ps(weight, x, sums); }
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(Vec weight, Vec x) {
    return _mm256_and_ps(_mm256_cmp_ps(weight, _mm256_setzero_ps(), _CMP_NEQ_UQ), x);
}

inline void sum_rows(const Sums* rows, float* sums) {
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(rows[0], rows[1]), _mm256_hadd_ps(rows[2], rows[3]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}

// For each byte of bits, the place of each lane's value among those stored; negative where there is none.
struct Places {
    constexpr Places() : of() {
        for (int bits = 0; bits < 256; ++bits) {
            for (int lane = 0, next = 0; lane < 8; ++lane) of[bits][lane] = bits >> lane & 1 ? next++ : -1;
        }
    }
    alignas(32) int32_t of[256][8];
};
constexpr Places kPlaces;

// The next values of the stream where a bit is set, zeros elsewhere. Half a vector is loaded no faster than a whole one.
template <bool Few>
inline Vec expand(const Value*& values, const uint8_t* bits) {
    const __m256i places = _mm256_load_si256(reinterpret_cast<const __m256i*>(kPlaces.of[*bits]));
    const Vec moved = _mm256_permutevar8x32_ps(load(values), places);
    values += __builtin_popcount(*bits);
    return _mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(places));
}

// Each lane's bit as its sign. Reads three bytes beyond: a broadcast from memory needs no shuffle.
inline Choice load_bits(const uint8_t* from) {
    const __m256i word = _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(from)));
    return _mm256_castsi256_ps(_mm256_sllv_epi32(word, _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24)));
}

inline Vec pick(Choice bits, Vec unset, Vec set) { return _mm256_blendv_ps(unset, set, bits); }

}  // namespace
