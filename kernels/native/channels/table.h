// Moving some of the channels of channels_last activations: what a compacted layer reads and writes.
#pragma once

#include <cstdint>

namespace sparseplan {

// A vector of a source pixel, some of whose values go into a vector of the target pixel.
struct ChannelsPiece {
    int64_t source;      // its first value
    uint64_t mask;       // lanes of the target that it fills
    uint8_t lanes[64];   // for each of these, a value wide, the lane it comes from
};

// How the target's vectors are put together.
struct ChannelsRoutes {
    int64_t vectors;
    const int64_t* starts;  // [vectors + 1], into pieces
    const ChannelsPiece* pieces;
};

struct ChannelsPlan {
    int64_t total, kept;    // channels of a pixel, and how many of them are moved
    const int64_t* index;   // [kept], ascending
    ChannelsRoutes gather, scatter;
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
