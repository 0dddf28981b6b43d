// Which instruction sets the CPU has *and* the operating system saves the registers of.
#pragma once

namespace sparseplan {

struct CpuFeatures {
    bool avx2;
    bool avx512;
    bool avx512bf16;
};

const CpuFeatures& cpu_features();

}  // namespace sparseplan
