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
    __m512i short_shift;                       // shift - 32 of all 16
    __m512i zero_point, low;                   // the same byte everywhere
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
    channels.zero_point = _mm512_set1_epi8(static_cast<char>(table.zero_point));
    channels.low = _mm512_set1_epi8(static_cast<char>(table.low));
    return channels;
}

// 16 sums over stored inputs -> floor(sum * multiplier / 2^shift + 1/2), cut off where no byte added to it could come
// back into range, so that 32 bits hold it.
inline __m512i scaled_sums(const RequantisedChannels& channels, __m512i sums) {
    constexpr __mmask16 kOdd = 0xaaaa;
    const __m512i odd_sums = _mm512_shuffle_epi32(sums, _MM_PERM_DDBB);
    const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(sums, channels.multiplier[0]), channels.term[0]);
    const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(odd_sums, channels.multiplier[1]), channels.term[1]);
    if (channels.is_short) {
        const __m512i upper = _mm512_mask_shuffle_epi32(odd, static_cast<__mmask16>(~kOdd), even, _MM_PERM_DDBB);
        return _mm512_srav_epi32(upper, channels.short_shift);
    }
    const __m512i most = _mm512_set1_epi64(1 << 16), least = _mm512_set1_epi64(-(1 << 16));
    const __m512i low = _mm512_max_epi64(_mm512_srav_epi64(even, channels.shift[0]), least);
    const __m512i high = _mm512_max_epi64(_mm512_srav_epi64(odd, channels.shift[1]), least);
    return _mm512_mask_shuffle_epi32(_mm512_min_epi64(low, most), kOdd, _mm512_min_epi64(high, most), _MM_PERM_CCAA);
}

// One pixel: 16 sums -> 16 bytes; `other` is zero_point, or 16 bytes of the residual.
inline __m128i requantise(const RequantisedChannels& channels, __m512i sums, __m128i other) {
    const __m512i stored = _mm512_add_epi32(scaled_sums(channels, sums), _mm512_cvtepu8_epi32(other));
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(stored, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(channels.low))));
}

// The residual of four pixels, side by side.
inline __m512i joined(__m128i first, __m128i second, __m128i third, __m128i fourth) {
    const __m256i front = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
    const __m256i back = _mm256_inserti128_si256(_mm256_castsi128_si256(third), fourth, 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(front), back, 1);
}

// Four pixels: 64 bytes, pixel by pixel, as are those of `other`. Packs with saturation are cheaper than conversions,
// but mix the pixels: 4 channels of each in every 128 bits, which a transposition of 4 x 4 puts in order.
inline __m512i requantise(const RequantisedChannels& channels, const __m512i (&sums)[4], __m512i other) {
    const __m512i transposed = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const __m512i zero = _mm512_setzero_si512(), mixed = _mm512_permutexvar_epi32(transposed, other);
    const __m512i front = _mm512_packs_epi32(scaled_sums(channels, sums[0]), scaled_sums(channels, sums[1]));
    const __m512i back = _mm512_packs_epi32(scaled_sums(channels, sums[2]), scaled_sums(channels, sums[3]));
    const __m512i bytes = _mm512_packus_epi16(_mm512_adds_epi16(front, _mm512_unpacklo_epi8(mixed, zero)),
                                              _mm512_adds_epi16(back, _mm512_unpackhi_epi8(mixed, zero)));
    return _mm512_permutexvar_epi32(transposed, _mm512_max_epu8(bytes, channels.low));
}

}  // namespace
