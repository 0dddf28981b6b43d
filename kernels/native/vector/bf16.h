// Bfloat16 arithmetic of the vector-sparse kernels: a word is a pair of channels. Included after simd/avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Arithmetic {
    using Value = uint16_t;
    using Sums = Vec;

    static Sums start(const float* bias) { return load(bias); }
    static __m512bh weights(const uint32_t* from) { return (__m512bh)_mm512_load_si512(from); }
    static void accumulate(Sums& sums, __m512bh weights, const char* word) {
        sums = _mm512_dpbf16_ps(sums, weights, (__m512bh)_mm512_set1_epi32(*reinterpret_cast<const int*>(word)));
    }
    static Vec floats(Sums sums) { return sums; }

    static Vec load_values(const Value* from) {
        return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static void store_values(Value* to, Vec v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(v));
    }
    static Vec load_first_values(const Value* from, int count) {
        return widen(_mm256_maskz_loadu_epi16(first(count), from));
    }
    static void store_first_values(Value* to, Vec v, int count) {
        _mm256_mask_storeu_epi16(to, first(count), (__m256i)_mm512_cvtneps_pbh(v));
    }

  private:
    static Vec widen(__m256i values) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
    }
};

}  // namespace
