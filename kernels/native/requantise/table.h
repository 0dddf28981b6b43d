// What lies around int8 kernels: real numbers -> bytes and back. And requantisation alone, for tests of the text that
// the kernels share.
#pragma once

#include <cstdint>

#include "requantise/requantise.h"

namespace sparseplan {

struct RequantiseTable {
    const char* name;
    // [pixels, channels] sums -> bytes; residual like y, or null.
    void (*run)(const Requantisation& table, const int32_t* sums, const uint8_t* residual, uint8_t* y, int64_t pixels,
                int64_t channels);
    // round(x * per_scale) + zero_point, ties to even, clamped to bytes; a NaN becomes 0.
    void (*store)(const float* x, uint8_t* y, int64_t count, float per_scale, int zero_point, int threads);
    // (x - zero_point) * scale
    void (*load)(const uint8_t* x, float* y, int64_t count, float scale, int zero_point, int threads);
};

extern const RequantiseTable kRequantiseAvx512;

}  // namespace sparseplan
