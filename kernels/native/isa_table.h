// What each instruction set offers: one table of plain functions, chosen at run time.
//
// Sources compiled with instruction-set flags include only this header, plain structs and intrinsics: an inline
// function or template shared with other sources could be merged by the linker and then run on a CPU without them.
#pragma once

#include <cstdint>

#include "flat_plan.h"
#include "sell_plan.h"

namespace sparseplan {

struct IsaTable {
    const char* name;
    int lanes;     // floats in a vector
    int max_tile;  // accumulator vectors of the inner kernel
    bool guarded_loads;  // can read the caller's memory to its very end
    void (*run_flat)(const FlatPlan& plan, const float* x, float* y, int threads);
    void (*run_sell)(const SellPlan& plan, const float* x, float* y, int threads);
    double (*fma_work)(int64_t rounds);                     // runs multiply-adds, returns their flop
    // Sum over `passes` reads of `count` floats, a multiple of 256.
    float (*sum_floats)(const float* data, int64_t count, int64_t passes);
};

extern const IsaTable kBaseline;
extern const IsaTable kAvx2;
extern const IsaTable kAvx512;

double avx512bf16_dot_work(int64_t rounds);

}  // namespace sparseplan
