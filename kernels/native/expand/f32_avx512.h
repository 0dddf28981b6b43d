// AVX-512: vectors of 16 floats.
#pragma once

#include <immintrin.h>

#include "expand/f32.h"
#include "expand/sum_avx512.h"

namespace {

using Vec = __m512;
using Choice = __mmask16;
constexpr int kLanes = 16;

inline Vec load(const Value* from) { return _mm512_loadu_ps(from); }
inline Sums dot(Sums sums, Vec weight, Vec x) { return _mm512_fmadd_ps(weight, x, sums); }
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(Vec weight, Vec x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(weight, _mm512_setzero_ps(), _CMP_NEQ_UQ), x);
}

inline Choice load_bits(const uint8_t* from) {
    uint16_t bits;
    __builtin_memcpy(&bits, from, sizeof bits);
    return bits;
}

// The lower half of a vector, anything in the other.
inline Vec load_half(const Value* from) { return _mm512_castps256_ps512(_mm256_loadu_ps(from)); }

// The next values of the stream where a bit is set, zeros elsewhere; Few: at most half a vector of them. From a register
// and in place: Zen 4 makes the instruction wait for the old contents of its target, so that one register used again costs
// 6 cycles and not 2.
template <bool Few>
inline Vec expand(const Value*& values, const uint8_t* bits) {
    const Choice stored = load_bits(bits);
    Vec v = Few ? load_half(values) : load(values);
    __asm__("vpexpandd %0, %0%{%1%}%{z%}" : "+v"(v) : "Yk"(stored));
    values += __builtin_popcount(stored);
    return v;
}

inline Vec pick(Choice bits, Vec unset, Vec set) { return _mm512_mask_blend_ps(bits, unset, set); }

// From a table: the shift that makes these bits ends in a move from a general register, on the port that is busiest.
struct FirstLanes {
    constexpr FirstLanes() : bits() {
        for (int count = 0; count <= kLanes; ++count) bits[count] = static_cast<uint16_t>((uint64_t{1} << count) - 1);
    }
    uint16_t bits[kLanes + 1];
};
constexpr FirstLanes kFirstLanes;
inline Vec load_first(const Value* from, int count) {
    return _mm512_maskz_loadu_ps(kFirstLanes.bits[count], from);
}
// Of two vectors of inputs, those at the next places of the stream.
inline Vec look_up(const uint8_t* places, Vec low, Vec high) {
    const __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(places)));
    return _mm512_permutex2var_ps(low, index, high);
}

}  // namespace
