#include "requantise/table.h"

#include "requantise/avx512.inc.h"

namespace sparseplan {
namespace {

void run_requantise(const Requantisation& table, const int32_t* sums, const uint8_t* residual, uint8_t* y,
                    int64_t pixels, int64_t channels) {
    for (int64_t k = 0; k < channels; k += 16) {
        const RequantisedChannels constants = requantised_channels(table, k);
        const int64_t left = channels - k;
        const __mmask16 present = static_cast<__mmask16>(left < 16 ? (1u << left) - 1u : 0xffffu);
        const auto other_at = [&](int64_t at) {
            return residual == nullptr ? _mm512_castsi512_si128(constants.zero_point)
                                       : _mm_maskz_loadu_epi8(present, residual + at);
        };
        int64_t pixel = 0;
        for (; pixel + 4 <= pixels; pixel += 4) {
            const int64_t at = pixel * channels + k;
            __m512i four[4], other = constants.zero_point;
            for (int i = 0; i < 4; ++i) four[i] = _mm512_maskz_loadu_epi32(present, sums + at + i * channels);
            if (residual != nullptr) {
                other = joined(other_at(at), other_at(at + channels), other_at(at + 2 * channels),
                               other_at(at + 3 * channels));
            }
            const __m512i bytes = requantise(constants, four, other);
            _mm_mask_storeu_epi8(y + at, present, _mm512_castsi512_si128(bytes));
            _mm_mask_storeu_epi8(y + at + channels, present, _mm512_extracti32x4_epi32(bytes, 1));
            _mm_mask_storeu_epi8(y + at + 2 * channels, present, _mm512_extracti32x4_epi32(bytes, 2));
            _mm_mask_storeu_epi8(y + at + 3 * channels, present, _mm512_extracti32x4_epi32(bytes, 3));
        }
        for (; pixel < pixels; ++pixel) {
            const int64_t at = pixel * channels + k;
            const __m512i sum = _mm512_maskz_loadu_epi32(present, sums + at);
            _mm_mask_storeu_epi8(y + at, present, requantise(constants, sum, other_at(at)));
        }
    }
}

}  // namespace

const RequantiseTable kRequantiseAvx512{"avx512", run_requantise};

}  // namespace sparseplan
