// int8 arithmetic of the vector-sparse kernels: a word is a quad of unsigned channels. Included after simd/avx512.h and
// requantise/avx512.inc.h. Sums are int32; a Vec carries their bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "vector/plan.h"

namespace {

struct Arithmetic {
    using Value = uint8_t;
    using Channels = RequantisedChannels;

    // `slot`: which 16 channels of the table.
    static Channels channels(const sparseplan::VectorPlan& plan, int64_t slot) {
        return requantised_channels(plan.requantisation, slot * kLanes);
    }

    // The bias is added by the requantisation.
    static Vec start(const float*) { return zero(); }
    using Weights = __m512i;
    static Weights weights(const uint32_t* from) { return _mm512_load_si512(from); }
    static void accumulate(Vec& sums, Weights weights, Vec words) {
        // GCC 12 copies the accumulators of the intrinsic in each step.
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(words), "v"(weights));
    }

    static void put(Value* to, Vec sums, const Channels& channels) {
        write(to, requantise(channels, _mm512_castps_si512(sums), zero_point(channels)));
    }
    static void put_residual(Value* to, Vec sums, const Value* residual, const Channels& channels) {
        const __m128i other = _mm_loadu_si128(reinterpret_cast<const __m128i*>(residual));
        write(to, requantise(channels, _mm512_castps_si512(sums), other));
    }
    // The first `count` lanes; `residual` may be null.
    static void put_first(Value* to, Vec sums, const Value* residual, int count, const Channels& channels) {
        const __m128i other =
            residual == nullptr ? zero_point(channels) : _mm_maskz_loadu_epi8(first(count), residual);
        _mm_mask_storeu_epi8(to, first(count), requantise(channels, _mm512_castps_si512(sums), other));
    }

  private:
    static __m128i zero_point(const Channels& channels) { return _mm512_castsi512_si128(channels.zero_point); }
    static void write(Value* to, __m128i bytes) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes); }
};

}  // namespace
