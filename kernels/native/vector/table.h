// The vector-sparse kernels of each instruction set and arithmetic; see flat/table.h for what may be included here.
#pragma once

#include <cstdint>

#include "vector/plan.h"

namespace sparseplan {

struct VectorTable {
    const char* name;
    int lanes;        // output channels of a block
    int max_run;      // pixels of a run
    int max_runs;     // runs of a tile
    int value_bytes;  // of an input or output value; a word holds 4 / value_bytes channels
    void (*run)(const VectorPlan& plan, const void* x, const void* residual, void* y, int threads);
};

extern const VectorTable kVectorF32Baseline;
extern const VectorTable kVectorF32Avx2;
extern const VectorTable kVectorF32Avx512;
extern const VectorTable kVectorBf16Avx512;
extern const VectorTable kVectorInt8Avx512;

}  // namespace sparseplan
