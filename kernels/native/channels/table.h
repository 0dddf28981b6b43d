// Moving some of the channels of channels_last activations: what a compacted layer reads and writes.
#pragma once

#include <cstdint>

namespace sparseplan {

struct ChannelsPlan {
    int64_t total, kept;    // channels of a pixel, and how many of them are moved
    const int64_t* index;   // [kept], ascending
    const uint32_t* masks;  // [ceil(total / 32)]: bit c is set where channel 32 i + c is kept
};

// `T` is uint32_t, uint16_t or uint8_t: values are moved, never computed with.
template <typename T>
struct ChannelsMoves {
    // [pixels, total] -> [pixels, kept]
    void (*gather)(const ChannelsPlan& plan, const T* from, T* to, int64_t pixels, int threads);
    // [pixels, kept] -> [pixels, total], with constant[c] in the channels that are not kept
    void (*scatter)(const ChannelsPlan& plan, const T* from, const T* constant, T* to, int64_t pixels, int threads);
};

struct ChannelsTable {
    const char* name;
    ChannelsMoves<uint32_t> words;
    ChannelsMoves<uint16_t> halves;
    ChannelsMoves<uint8_t> bytes;
};

extern const ChannelsTable kChannelsBaseline;
extern const ChannelsTable kChannelsAvx512bf16;

}  // namespace sparseplan
