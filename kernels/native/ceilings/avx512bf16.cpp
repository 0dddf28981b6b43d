#include <immintrin.h>

#include "ceilings/table.h"

namespace sparseplan {

double avx512bf16_dot_work(int64_t rounds) {
    constexpr int kChains = 12;
    __m512 acc[kChains];
    __m512bh left = (__m512bh)_mm512_set1_epi16(0x3f80), right = left;  // bfloat16 1.0
    __asm__ volatile("" : "+v"(left), "+v"(right));
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
        acc[i] = _mm512_setzero_ps();
        __asm__ volatile("" : "+v"(acc[i]));  // alike, the compiler would make them one chain
    }
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], left, right);
    }
    for (int i = 0; i < kChains; ++i) __asm__ volatile("" : "+m"(acc[i]));
    return 4.0 * 16 * kChains * static_cast<double>(rounds);  // two multiply-adds a lane
}

}  // namespace sparseplan
