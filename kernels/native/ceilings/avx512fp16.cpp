#include <immintrin.h>

#include "ceilings/table.h"

namespace sparseplan {

double avx512fp16_fma_work(int64_t rounds) {
    constexpr int kChains = 12;
    __m512h acc[kChains], factor = _mm512_set1_ph(0.75f), term = _mm512_set1_ph(0.125f);
    __asm__ volatile("" : "+v"(factor), "+v"(term));
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_setzero_ph();
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) acc[i] = _mm512_fmadd_ph(acc[i], factor, term);
    }
    for (int i = 0; i < kChains; ++i) __asm__ volatile("" : "+m"(acc[i]));
    return 2.0 * 32 * kChains * static_cast<double>(rounds);
}

}  // namespace sparseplan
