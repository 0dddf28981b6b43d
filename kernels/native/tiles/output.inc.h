// Sums of one strip -> bias, residual, rectifier, conversion and store in one pass.

#include <immintrin.h>

#include "requantise/avx512.inc.h"

namespace {

// The pixels of a group that are written, in bytes: their row of the sums, and their place in the image.
struct Targets {
    int64_t sums[kMaxTiles * kTileRows], pixel[kMaxTiles * kTileRows];
    int64_t count;
};

// A part of the targets.
struct Share {
    int64_t begin, end;
};

// Four pixels are converted at a time.
inline Share share_of(const Targets& targets, int64_t part, int64_t parts) {
    const int64_t size = (targets.count / parts + 3) / 4 * 4;
    const int64_t begin = part * size < targets.count ? part * size : targets.count;
    const int64_t end = part + 1 < parts && begin + size < targets.count ? begin + size : targets.count;
    return {begin, end};
}

// One image of the output; residual is null or an image like it.
struct Output {
    char* y;
    const char* residual;
};

struct Bf16 {
    using Multiply = MultiplyBf16;
    static constexpr int kRows = 2;  // of weight blocks a strip: 32 bfloat16 fill a cache line

    // sums: [kRows][kMaxTiles * 16][16].
    static void write(const sparseplan::TilesPlan& plan, const sparseplan::Strip& strip, const char* sums,
                      const Targets& targets, Share share, const Output& output) {
        const __mmask32 present = static_cast<__mmask32>((uint64_t{1} << strip.channels) - 1);
        const char* high_sums = sums + kMaxTiles * kTileBytes;
        const float* bias = plan.bias + strip.block * 16;
        const __m512 low_bias = _mm512_loadu_ps(bias);
        const __m512 high_bias = strip.channels > 16 ? _mm512_loadu_ps(bias + 16) : _mm512_setzero_ps();
        const __m512 least = _mm512_set1_ps(plan.relu ? 0.0f : -__builtin_inff());
        char* const y = output.y + 2 * strip.channel;
        const char* const residual = output.residual == nullptr ? nullptr : output.residual + 2 * strip.channel;
        for (int64_t i = share.begin; i < share.end; ++i) {
            const int64_t at = targets.pixel[i];
            __m512 low = _mm512_add_ps(_mm512_load_ps(sums + targets.sums[i]), low_bias);
            __m512 high = _mm512_add_ps(_mm512_load_ps(high_sums + targets.sums[i]), high_bias);
            if (residual != nullptr) {
                const __m512i other = _mm512_maskz_loadu_epi16(present, residual + at);
                low = _mm512_add_ps(low, widened(_mm512_castsi512_si256(other)));
                high = _mm512_add_ps(high, widened(_mm512_extracti64x4_epi64(other, 1)));
            }
            // A NaN stays one, as in torch.
            low = _mm512_max_ps(least, low);
            high = _mm512_max_ps(least, high);
            _mm512_mask_storeu_epi16(y + at, present, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }

  private:
    static __m512 widened(__m256i halves) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
};

struct Int8 {
    using Multiply = MultiplyInt8;
    static constexpr int kRows = 1;

    static void write(const sparseplan::TilesPlan& plan, const sparseplan::Strip& strip, const char* sums,
                      const Targets& targets, Share share, const Output& output) {
        const __mmask16 present = static_cast<__mmask16>((1u << strip.channels) - 1u);
        const RequantisedChannels channels = requantised_channels(plan.requantisation, int64_t{strip.block} * 16);
        char* const y = output.y + strip.channel;
        const char* const residual = output.residual == nullptr ? nullptr : output.residual + strip.channel;
        const auto other_of = [&](int64_t i) {
            return residual == nullptr ? _mm512_castsi512_si128(channels.zero_point)
                                       : _mm_maskz_loadu_epi8(present, residual + targets.pixel[i]);
        };
        int64_t i = share.begin;
        for (; i + 4 <= share.end; i += 4) {
            const __m512i rows[4] = {
                _mm512_load_si512(sums + targets.sums[i]), _mm512_load_si512(sums + targets.sums[i + 1]),
                _mm512_load_si512(sums + targets.sums[i + 2]), _mm512_load_si512(sums + targets.sums[i + 3])};
            const __m512i other = residual == nullptr
                                      ? channels.zero_point
                                      : joined(other_of(i), other_of(i + 1), other_of(i + 2), other_of(i + 3));
            const __m512i bytes = requantise(channels, rows, other);
            _mm_mask_storeu_epi8(y + targets.pixel[i], present, _mm512_castsi512_si128(bytes));
            _mm_mask_storeu_epi8(y + targets.pixel[i + 1], present, _mm512_extracti32x4_epi32(bytes, 1));
            _mm_mask_storeu_epi8(y + targets.pixel[i + 2], present, _mm512_extracti32x4_epi32(bytes, 2));
            _mm_mask_storeu_epi8(y + targets.pixel[i + 3], present, _mm512_extracti32x4_epi32(bytes, 3));
        }
        for (; i < share.end; ++i) {
            const __m512i row = _mm512_load_si512(sums + targets.sums[i]);
            _mm_mask_storeu_epi8(y + targets.pixel[i], present, requantise(channels, row, other_of(i)));
        }
    }
};

}  // namespace
