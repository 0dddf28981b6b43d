// A vector of channels at a time: compress on the way in, expand on the way out (AVX-512 VBMI2 for 16-bit values).
#include <immintrin.h>

#include "parallel.h"
#include "channels/table.h"

#include "channels/share.inc.h"

namespace {

// The forms in registers: those to and from memory are microcoded on Zen 4.
struct Words {
    using Value = uint32_t;
    static constexpr int kLanes = 16;
    static __mmask16 first(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }
    static __m512i load(__mmask16 mask, const void* from) { return _mm512_maskz_loadu_epi32(mask, from); }
    static void store(void* to, __mmask16 mask, __m512i v) { _mm512_mask_storeu_epi32(to, mask, v); }
    static __m512i compress(__mmask16 mask, __m512i v) { return _mm512_maskz_compress_epi32(mask, v); }
    static __m512i expand(__m512i other, __mmask16 mask, __m512i v) { return _mm512_mask_expand_epi32(other, mask, v); }
};

struct Halves {
    using Value = uint16_t;
    static constexpr int kLanes = 32;
    static __mmask32 first(int64_t count) { return static_cast<__mmask32>((uint64_t{1} << count) - 1u); }
    static __m512i load(__mmask32 mask, const void* from) { return _mm512_maskz_loadu_epi16(mask, from); }
    static void store(void* to, __mmask32 mask, __m512i v) { _mm512_mask_storeu_epi16(to, mask, v); }
    static __m512i compress(__mmask32 mask, __m512i v) { return _mm512_maskz_compress_epi16(mask, v); }
    static __m512i expand(__m512i other, __mmask32 mask, __m512i v) { return _mm512_mask_expand_epi16(other, mask, v); }
};

// Half a register: a mask of 32 channels serves all widths.
struct Bytes {
    using Value = uint8_t;
    static constexpr int kLanes = 32;
    static __mmask32 first(int64_t count) { return static_cast<__mmask32>((uint64_t{1} << count) - 1u); }
    static __m256i load(__mmask32 mask, const void* from) { return _mm256_maskz_loadu_epi8(mask, from); }
    static void store(void* to, __mmask32 mask, __m256i v) { _mm256_mask_storeu_epi8(to, mask, v); }
    static __m256i compress(__mmask32 mask, __m256i v) { return _mm256_maskz_compress_epi8(mask, v); }
    static __m256i expand(__m256i other, __mmask32 mask, __m256i v) { return _mm256_mask_expand_epi8(other, mask, v); }
};

template <typename V>
uint32_t mask_at(const sparseplan::ChannelsPlan& plan, int64_t channel) {
    return plan.masks[channel / 32] >> (channel % 32) & static_cast<uint32_t>((uint64_t{1} << V::kLanes) - 1u);
}

template <typename V>
int64_t lanes_at(const sparseplan::ChannelsPlan& plan, int64_t channel) {
    return plan.total - channel < V::kLanes ? plan.total - channel : V::kLanes;
}

void store_all(void* to, __m512i v) { _mm512_storeu_si512(to, v); }
void store_all(void* to, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(to), v); }

template <typename V, typename T = typename V::Value>
void gather(const sparseplan::ChannelsPlan& plan, const T* from, T* to, int64_t pixels, int threads) {
    for_pixels(pixels, threads, [&](int64_t pixel) {
        const T* all = from + pixel * plan.total;
        T* some = to + pixel * plan.kept;
        const T* const end = some + plan.kept;
        for (int64_t channel = 0; channel < plan.total; channel += V::kLanes) {
            const uint32_t mask = mask_at<V>(plan, channel);
            const auto kept = V::compress(mask, V::load(V::first(lanes_at<V>(plan, channel)), all + channel));
            // What lies beyond the kept values is overwritten by the next vector of the same pixel.
            if (end - some >= V::kLanes) {
                store_all(some, kept);
            } else {
                V::store(some, V::first(__builtin_popcount(mask)), kept);
            }
            some += __builtin_popcount(mask);
        }
    });
}

template <typename V, typename T = typename V::Value>
void scatter(const sparseplan::ChannelsPlan& plan, const T* from, const T* constant, T* to, int64_t pixels,
             int threads) {
    for_pixels(pixels, threads, [&](int64_t pixel) {
        const T* some = from + pixel * plan.kept;
        const T* const end = some + plan.kept;
        T* all = to + pixel * plan.total;
        for (int64_t channel = 0; channel < plan.total; channel += V::kLanes) {
            const uint32_t mask = mask_at<V>(plan, channel);
            const int64_t lanes = lanes_at<V>(plan, channel), present = __builtin_popcount(mask);
            const auto values = V::load(V::first(end - some >= V::kLanes ? V::kLanes : present), some);
            const auto rest = V::load(V::first(lanes), constant + channel);
            const auto full = V::expand(rest, mask, values);
            if (lanes == V::kLanes) {
                store_all(all + channel, full);
            } else {
                V::store(all + channel, V::first(lanes), full);
            }
            some += present;
        }
    });
}

}  // namespace

namespace sparseplan {

const ChannelsTable kChannelsAvx512bf16{"avx512bf16",
                                        {gather<Words>, scatter<Words>},
                                        {gather<Halves>, scatter<Halves>},
                                        {gather<Bytes>, scatter<Bytes>}};

}  // namespace sparseplan
