// The tile-sparse convolution, as numbers: shapes in, offsets out. Sizes in bytes unless named otherwise.
#pragma once

#include <cstdint>

#include "requantise/requantise.h"

namespace sparseplan {

// Output channels that are computed before they are written: one tile of 16, or two whose outputs fill a cache line.
struct Strip {
    int32_t channel, channels;
    int32_t block;  // the first of its tiles' rows of blocks
};

// Names as in kernels/tile_sparse.py, where they are derived and explained.
struct TilesPlan {
    int64_t images, positions, tiles;
    int64_t c_in, h_in, w_in, c_out, h_out, w_out;
    int64_t stride_h, stride_w, pad_h, pad_w;
    int64_t groups, group_room, position_bytes;
    int64_t rows, pitch, phase_positions;
    bool copies_input;
    bool relu;
    uint8_t fill;  // a stored zero of the input

    int64_t value_bytes;
    const int64_t* phases_h;
    const int64_t* phases_w;
    int64_t phases_h_count, phases_w_count;
    const int32_t* pixels;  // [positions] output pixel of a position, -1 for none; null where they are the same
    const Strip* strips;
    int64_t strips_count;
    const int64_t* starts;    // [blocks + 1] of each tile's row of blocks, into offsets
    const uint32_t* offsets;  // from a position to the inputs that a weight tile multiplies
    const char* weights;      // [.][1024] in the order of offsets
    const float* bias;        // bfloat16; padded to whole strips
    Requantisation requantisation;  // int8
};

}  // namespace sparseplan
