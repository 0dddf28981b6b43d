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
    FlatLayout layout;  // blocked: n counts the images of the last block in full
    bool relu;

    const float* bias;       // [c_out]
    const int64_t* starts;   // [c_blocks * c_out + 1], into entries; rows of one block of channels lie together
    const Entry* entries;    // and kEntriesAhead more, which are read but not used
    const int64_t* work;     // [c_out + 1], of the channels before each: in non-zeros, sums moved counted as such
};

}  // namespace sparseplan
