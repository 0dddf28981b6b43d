// What avx512fp16.h computes, on AVX-512 alone: in float, rounded to half after each operation. For tests.
//
// A product of two halves is exact in float, so one multiply-add rounds twice: to 24 bits, then to 11. Where the first
// falls on a tie the result may be the neighbour of the right one; that is one case in 2^13, and no larger error.
#pragma once

#include "simd/avx512half.h"

namespace {

inline Wide low(Vec v) { return _mm512_cvtph_ps(_mm512_castsi512_si256(v)); }
inline Wide high(Vec v) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1)); }

inline Vec multiply_add(Vec a, Vec b, Vec c) {
    return narrow(_mm512_fmadd_ps(low(a), low(b), low(c)), _mm512_fmadd_ps(high(a), high(b), high(c)));
}
inline Vec add(Vec a, Vec b) { return narrow(add(low(a), low(b)), add(high(a), high(b))); }
// A NaN stays one, as in torch.
inline Vec positive(Vec v) { return narrow(positive(low(v)), positive(high(v))); }

}  // namespace
