// AVX-512 with VBMI2 and BF16: expansion of 32 bfloat16 numbers, products summed in float32.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

using Value = uint16_t;
using Vec = __m512i;
using Sums = __m512;
using Bits = __mmask32;
constexpr int kLanes = 32;
constexpr int kBitBytes = 4;

inline Sums no_sums() { return _mm512_setzero_ps(); }
inline Vec load(const Value* from) { return _mm512_loadu_si512(from); }
inline Bits load_bits(const uint8_t* from) { return *reinterpret_cast<const uint32_t*>(from); }
inline int count(Bits bits) { return __builtin_popcount(bits); }
// The next values of the stream where a bit is set, zeros elsewhere. In place, from a register: Zen 4 makes the
// instruction wait for the old contents of its target, so that one register used again costs 6 cycles and not 2.
inline Vec expand(const Value* from, Bits bits) {
    Vec v = load(from);
    __asm__("vpexpandw %0, %0%{%1%}%{z%}" : "+v"(v) : "Yk"(bits));
    return v;
}
inline Vec pick(Bits bits, Vec unset, Vec set) { return _mm512_mask_blend_epi16(bits, unset, set); }
inline Sums dot(Sums sums, Vec weight, Vec x) { return _mm512_dpbf16_ps(sums, (__m512bh)weight, (__m512bh)x); }
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(Vec weight, Vec x) {
    return _mm512_maskz_mov_epi16(_mm512_test_epi16_mask(weight, _mm512_set1_epi16(0x7fff)), x);
}

inline bool is_finite(Value value) { return (value & 0x7f80u) != 0x7f80u; }
inline float to_float(Value value) {
    const uint32_t word = uint32_t{value} << 16;
    float result;
    __builtin_memcpy(&result, &word, sizeof result);
    return result;
}
// To the nearest, ties to even; a NaN stays one.
inline Value from_float(float value) {
    uint32_t word;
    __builtin_memcpy(&word, &value, sizeof word);
    if (value != value) return static_cast<Value>(word >> 16 | 0x40u);
    return static_cast<Value>((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

}  // namespace

#include "expand/sum_avx512.h"
