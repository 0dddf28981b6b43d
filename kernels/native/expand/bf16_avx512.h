// AVX-512 with VBMI2 and BF16: vectors of 32 bfloat16 numbers, their products summed in pairs in float32.
#pragma once

#include <immintrin.h>

#include "expand/bf16.h"
#include "expand/sum_avx512.h"

namespace {

using Vec = __m512i;
using Choice = __mmask32;
constexpr int kLanes = 32;

inline Vec load(const Value* from) { return _mm512_loadu_si512(from); }
inline Sums dot(Sums sums, Vec weight, Vec x) { return _mm512_dpbf16_ps(sums, (__m512bh)weight, (__m512bh)x); }
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(Vec weight, Vec x) {
    return _mm512_maskz_mov_epi16(_mm512_test_epi16_mask(weight, _mm512_set1_epi16(0x7fff)), x);
}

inline Choice load_bits(const uint8_t* from) {
    uint32_t bits;
    __builtin_memcpy(&bits, from, sizeof bits);
    return bits;
}

// The lower half of a vector, anything in the other.
inline Vec load_half(const Value* from) { return _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }

// The next values of the stream where a bit is set, zeros elsewhere; Few: at most half a vector of them. From a register
// and in place: Zen 4 makes the instruction wait for the old contents of its target, so that one register used again costs
// 6 cycles and not 2.
template <bool Few>
inline Vec expand(const Value*& values, const uint8_t* bits) {
    const Choice stored = load_bits(bits);
    Vec v = Few ? load_half(values) : load(values);
    __asm__("vpexpandw %0, %0%{%1%}%{z%}" : "+v"(v) : "Yk"(stored));
    values += __builtin_popcount(stored);
    return v;
}

inline Vec pick(Choice bits, Vec unset, Vec set) { return _mm512_mask_blend_epi16(bits, unset, set); }

// From a table: the shift that makes these bits ends in a move from a general register, on the port that is busiest.
struct FirstLanes {
    constexpr FirstLanes() : bits() {
        for (int count = 0; count <= kLanes; ++count) bits[count] = static_cast<uint32_t>((uint64_t{1} << count) - 1);
    }
    uint32_t bits[kLanes + 1];
};
constexpr FirstLanes kFirstLanes;
inline Vec load_first(const Value* from, int count) {
    return _mm512_maskz_loadu_epi16(kFirstLanes.bits[count], from);
}
// Of two vectors of inputs, those at the next places of the stream.
inline Vec look_up(const uint8_t* places, Vec low, Vec high) {
    const __m512i index = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(places)));
    return _mm512_permutex2var_epi16(low, index, high);
}

}  // namespace
