// Requantisation of 16 output channels of a pixel at a time, in AVX-512; anonymous namespace, as every ISA text.
//
// A 64-bit lane holds one product, so even and odd channels go separate ways. The channel's bias and the half that
// rounds enter as one term, bias * multiplier + half. Where every shift is 32 or more, as for outputs coarser than
// twice the sums, the upper half of each product is all that is left to shift, 16 channels at a time.
#pragma once

#include <immintrin.h>

#include "requantise/requantise.h"

namespace {

// The constants of 16 output channels, in registers while the pixels go by.
struct RequantisedChannels {
    __m512i multiplier[2], term[2], shift[2];  // of the even and the odd channels
    __m512i short_shift, low;                  // of all 16: shift - 32, and the least byte
    __m128i zero_point;
    bool is_short;
};

// k: a multiple of 16.
inline RequantisedChannels requantised_channels(const sparseplan::Requantisation& table, int64_t k) {
    const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), one = _mm512_set1_epi64(1);
    const __m512i bias[2] = {_mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(table.bias + k))),
                             _mm512_cvtepi32_epi64(
                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table.bias + k + 8)))};
    const __m512i multiplier[2] = {_mm512_loadu_si512(table.multiplier + k), _mm512_loadu_si512(table.multiplier + k + 8)};
    const __m512i shift[2] = {_mm512_loadu_si512(table.shift + k), _mm512_loadu_si512(table.shift + k + 8)};
    RequantisedChannels channels;
    for (int odd = 0; odd < 2; ++odd) {
        const __m512i index = odd ? _mm512_add_epi64(even, one) : even;
        channels.multiplier[odd] = _mm512_permutex2var_epi64(multiplier[0], index, multiplier[1]);
        channels.shift[odd] = _mm512_permutex2var_epi64(shift[0], index, shift[1]);
        const __m512i start = _mm512_permutex2var_epi64(bias[0], index, bias[1]);
        const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(channels.shift[odd], one));
        channels.term[odd] = _mm512_add_epi64(_mm512_mul_epi32(start, channels.multiplier[odd]), half);
    }
    const __m512i all = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(shift[0])),
                                           _mm512_cvtepi64_epi32(shift[1]), 1);
    const __m512i limit = _mm512_set1_epi32(32);
    channels.short_shift = _mm512_sub_epi32(all, limit);
    channels.is_short = _mm512_cmplt_epi32_mask(all, limit) == 0;
    channels.low = _mm512_set1_epi32(table.low);
    channels.zero_point = _mm_set1_epi8(static_cast<char>(table.zero_point));
    return channels;
}

// 16 sums over stored inputs -> 16 bytes; `other` is channels.zero_point, or 16 bytes of the residual.
inline __m128i requantise(const RequantisedChannels& channels, __m512i sums, __m128i other) {
    constexpr __mmask16 kOdd = 0xaaaa;
    const __m512i odd_sums = _mm512_shuffle_epi32(sums, _MM_PERM_DDBB);
    const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(sums, channels.multiplier[0]), channels.term[0]);
    const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(odd_sums, channels.multiplier[1]), channels.term[1]);
    __m512i scaled;
    if (channels.is_short) {
        scaled = _mm512_mask_shuffle_epi32(odd, static_cast<__mmask16>(~kOdd), even, _MM_PERM_DDBB);
        scaled = _mm512_srav_epi32(scaled, channels.short_shift);
    } else {
        // Cut off where no byte added to it could come back into range, so that 32 bits hold it.
        const __m512i most = _mm512_set1_epi64(1 << 16), least = _mm512_set1_epi64(-(1 << 16));
        const __m512i low = _mm512_min_epi64(
            _mm512_max_epi64(_mm512_srav_epi64(even, channels.shift[0]), least), most);
        const __m512i high = _mm512_min_epi64(_mm512_max_epi64(_mm512_srav_epi64(odd, channels.shift[1]), least), most);
        scaled = _mm512_mask_shuffle_epi32(low, kOdd, high, _MM_PERM_CCAA);
    }
    const __m512i stored = _mm512_add_epi32(scaled, _mm512_cvtepu8_epi32(other));
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(stored, channels.low));
}

}  // namespace
