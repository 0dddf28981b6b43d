#include <immintrin.h>

#include "ceilings/table.h"

namespace sparseplan {

double avx512vnni_dot_work(int64_t rounds) {
    constexpr int kChains = 12;
    __m512i acc[kChains], left = _mm512_set1_epi8(1), right = left;
    __asm__ volatile("" : "+v"(left), "+v"(right));
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
        acc[i] = _mm512_setzero_si512();
        __asm__ volatile("" : "+v"(acc[i]));  // alike, the compiler would make them one chain
    }
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], left, right);
    }
    for (int i = 0; i < kChains; ++i) __asm__ volatile("" : "+m"(acc[i]));
    return 8.0 * 16 * kChains * static_cast<double>(rounds);  // four multiply-adds a lane
}

}  // namespace sparseplan
