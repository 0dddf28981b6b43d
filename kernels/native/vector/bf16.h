// Bfloat16 arithmetic of the vector-sparse kernels: a word is a pair of channels. Included after simd/avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <limits>

#include "vector/plan.h"

namespace {

struct Arithmetic {
    using Value = uint16_t;

    struct Channels {
        Vec floor;  // 0 with the rectifier; a NaN stays one
    };
    static Channels channels(const sparseplan::VectorPlan& plan, int64_t) {
        return {broadcast(plan.relu ? 0.0f : -std::numeric_limits<float>::infinity())};
    }

    static Vec start(const float* bias) { return load(bias); }
    using Weights = __m512bh;
    static Weights weights(const uint32_t* from) { return (__m512bh)_mm512_load_si512(from); }
    static void accumulate(Vec& sums, Weights weights, Vec words) {
        sums = _mm512_dpbf16_ps(sums, weights, (__m512bh)words);
    }

    static void put(Value* to, Vec sums, const Channels& channels) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(sums, channels));
    }
    static void put_residual(Value* to, Vec sums, const Value* residual, const Channels& channels) {
        put(to, add(sums, widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(residual)))), channels);
    }
    // The first `count` lanes; `residual` may be null.
    static void put_first(Value* to, Vec sums, const Value* residual, int count, const Channels& channels) {
        if (residual != nullptr) sums = add(sums, widen(_mm256_maskz_loadu_epi16(first(count), residual)));
        _mm256_mask_storeu_epi16(to, first(count), narrow(sums, channels));
    }

  private:
    static Vec widen(__m256i values) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
    }
    static __m256i narrow(Vec sums, const Channels& channels) {
        return (__m256i)_mm512_cvtneps_pbh(at_least(channels.floor, sums));
    }
};

}  // namespace
