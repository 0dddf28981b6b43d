// Requantisation of 16 output channels of a pixel at a time, in AVX-512; anonymous namespace, as every ISA text.

#include <immintrin.h>

#include "requantise/requantise.h"

namespace {

// The constants of 16 output channels, in registers while the pixels go by.
struct RequantisedChannels {
    __m512i bias, multiplier[2], shift[2], half[2];
    __m128i zero_point, low;
};

// k: a multiple of 16.
inline RequantisedChannels requantised_channels(const sparseplan::Requantisation& table, int64_t k) {
    RequantisedChannels channels;
    channels.bias = _mm512_loadu_si512(table.bias + k);
    for (int i = 0; i < 2; ++i) {
        channels.multiplier[i] = _mm512_loadu_si512(table.multiplier + k + 8 * i);
        channels.shift[i] = _mm512_loadu_si512(table.shift + k + 8 * i);
        channels.half[i] =
            _mm512_sllv_epi64(_mm512_set1_epi64(1), _mm512_sub_epi64(channels.shift[i], _mm512_set1_epi64(1)));
    }
    channels.zero_point = _mm_set1_epi8(static_cast<char>(table.zero_point));
    channels.low = _mm_set1_epi8(static_cast<char>(table.low));
    return channels;
}

// 8 sums -> floor(sum * multiplier / 2^shift + 1/2), cut off where no byte added to it could come back into range.
inline __m128i scaled_sums(const RequantisedChannels& channels, int half, __m256i sums) {
    const __m512i product = _mm512_mul_epi32(_mm512_cvtepi32_epi64(sums), channels.multiplier[half]);
    return _mm512_cvtsepi64_epi16(
        _mm512_srav_epi64(_mm512_add_epi64(product, channels.half[half]), channels.shift[half]));
}

// 16 sums over stored inputs -> 16 bytes; `other` is channels.zero_point, or 16 bytes of the residual.
inline __m128i requantise(const RequantisedChannels& channels, __m512i sums, __m128i other) {
    sums = _mm512_add_epi32(sums, channels.bias);
    const __m256i wide = _mm256_cvtepu8_epi16(other);
    const __m128i low = _mm_adds_epi16(scaled_sums(channels, 0, _mm512_castsi512_si256(sums)),
                                       _mm256_castsi256_si128(wide));
    const __m128i high = _mm_adds_epi16(scaled_sums(channels, 1, _mm512_extracti64x4_epi64(sums, 1)),
                                        _mm256_extracti128_si256(wide, 1));
    return _mm_max_epu8(_mm_packus_epi16(low, high), channels.low);
}

}  // namespace
