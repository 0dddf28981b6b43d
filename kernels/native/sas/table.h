// The SAS kernels of each instruction set; see flat/table.h for what sources with such flags may include.
#pragma once

#include <cstdint>

#include "sas/plan.h"

namespace sparseplan {

struct SasTable {
    const char* name;
    int lanes;        // floats in a vector
    int max_vectors; // accumulators of the inner kernel
    void (*run)(const SasPlan& plan, const float* x, const float* residual, float* y, int threads);
    void (*expand)(const SasExpansion& plan, const void* x, void* wide, int threads);
};

extern const SasTable kSasBaseline;
extern const SasTable kSasAvx2;
extern const SasTable kSasAvx512;

}  // namespace sparseplan
