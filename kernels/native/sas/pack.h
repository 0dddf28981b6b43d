// Packed weights of the SAS layer; see sas/plan.h.
#pragma once

#include <cstdint>
#include <vector>

#include "pages.h"
#include "sas/plan.h"
#include "sas/table.h"

namespace sparseplan {

class SasSelect {
  public:
    // weight: [c_out, channels * slots, kernel_h, kernel_w]. A block of input is `c_block` pairs of kernel position and
    // channel. The pointers and counts of blocks inside `shape` are set here.
    SasSelect(const SasTable& isa, const SasPlan& shape, const float* weight, int64_t kernel_h, int64_t kernel_w,
              int64_t dilation_h, int64_t dilation_w, int64_t c_block, const float* bias);
    SasSelect(const SasSelect&) = delete;
    SasSelect& operator=(const SasSelect&) = delete;

    void run(const void* x, const void* residual, void* y, int threads) const {
        isa_.run(plan_, static_cast<const float*>(x), static_cast<const float*>(residual), static_cast<float*>(y),
                 threads);
    }

  private:
    const SasTable& isa_;
    SasPlan plan_;
    std::vector<int64_t> breaks_, starts_;
    std::vector<SasRun> runs_;
    std::vector<float> bias_;
    PackedVector<float> weights_;  // large, as the rows that a pixel reads may each lie in another page
};

}  // namespace sparseplan
