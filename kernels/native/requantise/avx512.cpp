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
        for (int64_t at = k; at < pixels * channels; at += channels) {
            const __m128i other =
                residual == nullptr ? constants.zero_point : _mm_maskz_loadu_epi8(present, residual + at);
            const __m512i sum = _mm512_maskz_loadu_epi32(present, sums + at);
            _mm_mask_storeu_epi8(y + at, present, requantise(constants, sum, other));
        }
    }
}

}  // namespace

const RequantiseTable kRequantiseAvx512{"avx512", run_requantise};

}  // namespace sparseplan
