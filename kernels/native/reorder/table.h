// Reorders of each instruction set: a block has as many images as its vectors have lanes.
#pragma once

#include <cstdint>

#include "reorder/plan.h"

namespace sparseplan {

struct ReorderTable {
    const char* name;
    int lanes;
    void (*run)(const ReorderPlan& plan, const float* x, float* y, int threads);
};

extern const ReorderTable kReorderBaseline;
extern const ReorderTable kReorderAvx2;
extern const ReorderTable kReorderAvx512;

}  // namespace sparseplan
