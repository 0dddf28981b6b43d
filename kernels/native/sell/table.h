// The sliced ELLPACK product of each instruction set.
#pragma once

#include <cstdint>

#include "sell/plan.h"

namespace sparseplan {

struct SellTable {
    const char* name;
    int lanes;  // rows in a slice
    // residual: null, or like y and added before the rectifier
    void (*run)(const SellPlan& plan, const float* x, const float* residual, float* y, int threads);
};

extern const SellTable kSellBaseline;
extern const SellTable kSellAvx2;
extern const SellTable kSellAvx512;

}  // namespace sparseplan
