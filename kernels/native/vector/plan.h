// The vector-sparse kernels, as numbers: shapes in, offsets out.
//
// A *word* is 32 bits of input: one float32 channel, a pair of bfloat16 channels, or a quad of uint8 channels of one
// pixel. An *entry* is the offset of a word and one vector of weights, a lane for each of the output channels of a
// *block*. A *run* is some consecutive output pixels of a line; a few runs make the tile that accumulates in registers.
#pragma once

#include <cstdint>

#include "requantise/requantise.h"

namespace sparseplan {

constexpr int kMaxVectorLanes = 16;

// Output channels that the lanes of a block become: channel .. channel + count - 1, in ascending order.
struct VectorPiece {
    int64_t channel;
    int32_t count;
    int32_t source[kMaxVectorLanes];  // lane, or -1 for a channel without weights
    float fixed[kMaxVectorLanes];     // what such a channel starts from: its bias
    bool is_fixed;                    // no lane is among the sources
};

struct VectorBlock {
    int64_t begin, end;                // entries
    int64_t channel;                  // first output channel
    bool is_consecutive;              // the lanes are consecutive output channels, no piece needs to hold them
    int64_t first_piece, last_piece;  // equal where the block has none
};

// Names as in kernels/vector_shape.py, where they are derived and explained.
struct VectorPlan {
    int64_t n, h_in, w_in, c_out, h_out, w_out;
    int64_t stride_h, stride_w, pad_h, pad_w;
    int64_t groups, group_bytes, group_words;
    const int64_t* phases_h;
    const int64_t* phases_w;
    int64_t phases_h_count, phases_w_count;
    int64_t rows, pitch, phase_bytes, word_bytes, step_bytes;
    int64_t run_pixels, band_lines, band_columns, chunk_entries;
    bool copies_input;
    bool relu;
    uint32_t padding_word;

    const float* bias;            // [blocks * lanes]
    const VectorBlock* blocks;
    int64_t blocks_count;
    const VectorPiece* pieces;
    Requantisation requantisation;  // of int8: kMaxVectorLanes channels a slot, one for each block, then each piece
    const uint32_t* offsets;      // [entries], bytes from a run's first word
    const uint32_t* weights;      // [entries, lanes], 64-byte aligned
};

}  // namespace sparseplan
