// AVX-512: expansion of 16 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

using Value = float;
using Vec = __m512;
using Sums = __m512;
using Bits = __mmask16;
constexpr int kLanes = 16;
constexpr int kBitBytes = 2;

inline Sums no_sums() { return _mm512_setzero_ps(); }
inline Vec load(const Value* from) { return _mm512_loadu_ps(from); }
inline Bits load_bits(const uint8_t* from) { return *reinterpret_cast<const uint16_t*>(from); }
inline int count(Bits bits) { return __builtin_popcount(bits); }
// The next values of the stream where a bit is set, zeros elsewhere. In place, from a register: Zen 4 makes the
// instruction wait for the old contents of its target, so that one register used again costs 6 cycles and not 2.
inline Vec expand(const Value* from, Bits bits) {
    Vec v = load(from);
    __asm__("vpexpandd %0, %0%{%1%}%{z%}" : "+v"(v) : "Yk"(bits));
    return v;
}
inline Vec pick(Bits bits, Vec unset, Vec set) { return _mm512_mask_blend_ps(bits, unset, set); }
inline Sums dot(Sums sums, Vec weight, Vec x) { return _mm512_fmadd_ps(weight, x, sums); }
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(Vec weight, Vec x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(weight, _mm512_setzero_ps(), _CMP_NEQ_UQ), x);
}

inline bool is_finite(Value value) {
    uint32_t word;
    __builtin_memcpy(&word, &value, sizeof word);
    return (word & 0x7f800000u) != 0x7f800000u;
}
inline float to_float(Value value) { return value; }
inline Value from_float(float value) { return value; }

}  // namespace

#include "expand/sum_avx512.h"
