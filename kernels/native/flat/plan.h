// The flat sparse convolution, as numbers: shapes in, offsets out.
#pragma once

#include <cstdint>

namespace sparseplan {

// Memory order of x and y: torch's contiguous and channels_last, or [n / lanes][channels][rows][columns][lanes].
enum class FlatLayout { nchw, nhwc, blocked };

struct Entry {
    float value;      // in half precision, its bits twice
    uint32_t offset;  // activations from an output position to the input element it multiplies
};

constexpr int kEntriesAhead = 2;

// A non-zero each of four output channels; where a channel has no more, one of its zeros.
struct Quad {
    float value[4];
    uint32_t offset[4];
};

// Four output channels of like length: how many quads follow for them. The last channel stands in for those that lack.
struct QuadRows {
    uint32_t steps;
    uint32_t channel[4];
};

// Names as in kernels/flat_sparse.py, where they are derived and explained.
struct FlatPlan {
    int64_t n, c_in, h_in, w_in, c_out, h_out, w_out;
    int64_t stride_h, stride_w, pad_h, pad_w;
    const int64_t* phases_h;
    const int64_t* phases_w;
    int64_t phases_h_count, phases_w_count;
    int64_t images, rows, pitch, phase_floats, channel_floats;
    int64_t area_rows, area_columns, tile_rows, tile_columns, tile, k_block, c_blocks;
    bool copies_input;
    bool copies_tiles;  // of these, a tile at a time: channel_floats then is that of a tile
    // Input channels that are copied under a tile before they are computed with, and how many blocks of them there are: rows,
    // pitch, phases and channels then are those of that window. 0: none.
    int64_t window_channels, window_blocks;
    // Vectors of a tile whose sums for four channels at a time stay in registers; no rows: one channel at a time.
    int64_t quad_rows, quad_columns;
    int64_t k_chunk;    // channels among which quads are formed; 1 without quads
    bool asks_ahead;      // for the input of the next tile that is copied, while one is computed with
    bool streams_output;  // of blocked layout: stored past the caches
    FlatLayout layout;  // blocked: n counts the images of the last block in full
    bool relu;

    const float* bias;       // [c_out]
    const int64_t* starts;   // [c_blocks * c_out + 1], into entries; rows of one block of channels lie together
    const Entry* entries;    // and kEntriesAhead more, which are read but not used; none with quads
    const Quad* quads;
    const QuadRows* quad_sets;    // [c_blocks][chunks][sets of a chunk], each of four channels
    const int64_t* quad_starts;   // [c_blocks * chunks], into quads
    const int64_t* work;     // [c_out + 1], of the channels before each: in non-zeros, sums moved counted as such

    int64_t chunks() const { return (c_out + k_chunk - 1) / k_chunk; }
    int64_t chunk_sets() const { return (k_chunk + 3) / 4; }
};

}  // namespace sparseplan
