// The flat sparse convolution of each instruction set.
//
// Sources compiled with instruction-set flags include only such headers, plain structs and intrinsics: an inline
// function or template shared with other sources could be merged by the linker and then run on a CPU without them.
#pragma once

#include <cstdint>

#include "flat/plan.h"

namespace sparseplan {

struct FlatTable {
    const char* name;
    int lanes;           // activations in a vector
    int max_tile;        // accumulator vectors of the inner kernel
    int max_tile_rows;   // rows that they form at most
    int max_quad;        // vectors of a tile whose sums for four channels fit the registers; 0: has no such kernel
    bool guarded_loads;  // can read the caller's memory to its very end
    int scalar_bytes;    // of activations
    // residual: null, or like y and added before the rectifier
    void (*run)(const FlatPlan& plan, const void* x, const void* residual, void* y, int threads);
};

extern const FlatTable kFlatBaseline;
extern const FlatTable kFlatAvx2;
extern const FlatTable kFlatAvx512Vl;  // vectors of 8 floats
extern const FlatTable kFlatAvx512;
extern const FlatTable kFlatAvx512Fp16;
extern const FlatTable kFlatAvx512Fp16Emulated;  // the same text on AVX-512, for tests

}  // namespace sparseplan
