// The SAS layer that selects weight rows by signs, as numbers; names as in kernels/sas_select.py.
#pragma once

#include <cstdint>

namespace sparseplan {

// Consecutive channels under one kernel position.
struct SasRun {
    int64_t row, column;  // of the kernel position, times the dilation
    int64_t input;        // floats from the input of an output pixel (kernel position 0, 0, channel 0) to the first one
    int64_t rows;         // bytes from the weights of a block of output channels to those of the first channel
    int64_t count;
};

struct SasPlan {
    int64_t n, c_in, h_in, w_in, c_out, h_out, w_out;
    int64_t stride_h, stride_w, pad_h, pad_w;
    int64_t groups, bits;
    int64_t vectors;         // of output channels that a row has room for: the row pitch
    int64_t reach_h, reach_w;  // from the first kernel position to the last
    int64_t tile;            // pixels a task
    int64_t k_blocks;        // blocks of `vectors` output channels in a group
    int64_t k_tasks;         // and in all groups
    int64_t k_block_bytes;   // weights of one of them
    int64_t c_blocks, most_runs;
    bool fetches_rows;       // so few pixels that rows are fetched one by one, not whole blocks ahead
    bool relu;
    const int64_t* breaks;   // [..., w_out]: output columns where the set of kernel columns inside the image changes
    const int64_t* starts;   // [c_blocks + 1], into runs
    const SasRun* runs;
    const float* bias;       // [groups][k_blocks][vectors * lanes]
    const char* weights;     // [groups][k_blocks][positions][channels][slots][vectors * lanes] float, odd slots negated
    const char* weights_end;
};

// A narrow tensor and its wide one, channels innermost.
struct SasExpansion {
    int64_t pixels, groups, channels;  // channels of a group
    int64_t bits, value_bytes;
};

}  // namespace sparseplan
