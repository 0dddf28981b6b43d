#include "requantise/table.h"

#include "parallel.h"
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

// Calls vectors(at, mask of the present lanes) for every 16 values, dealt out to threads in runs of kRun.
template <typename F>
void for_vectors(int64_t count, int threads, F vectors) {
    constexpr int64_t kRun = 8192;
    const int64_t runs = (count + kRun - 1) / kRun;
    const auto run = [&](int64_t number) {
        const int64_t end = number + 1 < runs ? (number + 1) * kRun : count;
        for (int64_t at = number * kRun; at < end; at += 16) {
            const int64_t left = end - at;
            vectors(at, static_cast<__mmask16>(left < 16 ? (1u << left) - 1u : 0xffffu));
        }
    };
    if (threads == 1 || runs == 1) {
        for (int64_t number = 0; number < runs; ++number) run(number);
    } else {
        run_team(threads, [&] { share_static(runs, run); });
    }
}

void store_bytes(const float* x, uint8_t* y, int64_t count, float per_scale, int zero_point, int threads) {
    // Clamped before it is rounded: an int32 might not hold the quotient.
    const __m512 factor = _mm512_set1_ps(per_scale), low = _mm512_set1_ps(static_cast<float>(-zero_point)),
                 high = _mm512_set1_ps(static_cast<float>(255 - zero_point));
    const __m512i zero = _mm512_set1_epi32(zero_point);
    for_vectors(count, threads, [&](int64_t at, __mmask16 present) {
        const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(present, x + at), factor);
        const __m512 inside = _mm512_min_ps(_mm512_max_ps(scaled, low), high);
        const __m512i stored = _mm512_add_epi32(_mm512_cvtps_epi32(inside), zero);
        _mm_mask_storeu_epi8(y + at, present, _mm512_cvtepi32_epi8(stored));
    });
}

void load_bytes(const uint8_t* x, float* y, int64_t count, float scale, int zero_point, int threads) {
    const __m512 factor = _mm512_set1_ps(scale);
    const __m512i zero = _mm512_set1_epi32(zero_point);
    for_vectors(count, threads, [&](int64_t at, __mmask16 present) {
        const __m512i stored = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(present, x + at));
        const __m512 centred = _mm512_cvtepi32_ps(_mm512_sub_epi32(stored, zero));
        _mm512_mask_storeu_ps(y + at, present, _mm512_mul_ps(centred, factor));
    });
}

}  // namespace

const RequantiseTable kRequantiseAvx512{"avx512", run_requantise, store_bytes, load_bytes};

}  // namespace sparseplan
