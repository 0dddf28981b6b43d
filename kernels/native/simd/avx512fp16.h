// AVX512-FP16: vectors of 32 half-precision numbers.
#pragma once

#include "simd/avx512half.h"

namespace {

inline Vec multiply_add(Vec a, Vec b, Vec c) {
    return _mm512_castph_si512(
        _mm512_fmadd_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b), _mm512_castsi512_ph(c)));
}
inline Vec add(Vec a, Vec b) {
    return _mm512_castph_si512(_mm512_add_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b)));
}
// A NaN stays one, as in torch.
inline Vec positive(Vec v) {
    return _mm512_castph_si512(_mm512_max_ph(_mm512_setzero_ph(), _mm512_castsi512_ph(v)));
}

}  // namespace
