// The tile-sparse convolution of each instruction set; see flat/table.h for what such a header may include.
#pragma once

#include <cstdint>

#include "tiles/plan.h"

namespace sparseplan {

struct TilesTable {
    const char* name;
    void (*run_bf16)(const TilesPlan& plan, const void* x, const void* residual, void* y, int threads);
    void (*run_int8)(const TilesPlan& plan, const void* x, const void* residual, void* y, int threads);
};

extern const TilesTable kTilesAmx;
extern const TilesTable kTilesAmxEmulated;  // for tests, on any CPU with AVX-512 and bfloat16

}  // namespace sparseplan
