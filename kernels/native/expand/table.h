// The product with compressed weights, for each instruction set and format.
#pragma once

#include <cstdint>

#include "expand/plan.h"

namespace sparseplan {

struct ExpandTable {
    const char* name;
    int lanes;        // values in a vector
    int value_bytes;  // 4: float, 2: bfloat16
    // By ExpandFormat; null where there is no such kernel. x, residual, y: values.
    void (*run[kExpandFormats])(const ExpandPlan& plan, const void* x, const void* residual, void* y, int threads);
};

extern const ExpandTable kExpandBaseline;
extern const ExpandTable kExpandAvx2;
extern const ExpandTable kExpandAvx512;
extern const ExpandTable kExpandAvx512Bf16;

}  // namespace sparseplan
