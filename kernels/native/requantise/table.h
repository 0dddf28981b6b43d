// Requantisation alone, for tests of the text that the int8 kernels share.
#pragma once

#include <cstdint>

#include "requantise/requantise.h"

namespace sparseplan {

struct RequantiseTable {
    const char* name;
    // [pixels, channels] sums -> bytes; residual like y, or null.
    void (*run)(const Requantisation& table, const int32_t* sums, const uint8_t* residual, uint8_t* y, int64_t pixels,
                int64_t channels);
};

extern const RequantiseTable kRequantiseAvx512;

}  // namespace sparseplan
