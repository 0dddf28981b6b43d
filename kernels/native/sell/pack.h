// Packed weights of the sparse linear layer for small batches; see sell/plan.h.
#pragma once

#include <cstdint>
#include <vector>

#include "sell/plan.h"
#include "pages.h"
#include "sell/table.h"

namespace sparseplan {

class SellSparse {
  public:
    // weight: [c_out, c_in], dense with zeros; c_in at most 65536.
    SellSparse(const SellTable& isa, int64_t n, int64_t c_out, int64_t c_in, const float* weight,
               const float* bias, bool relu);
    SellSparse(const SellSparse&) = delete;
    SellSparse& operator=(const SellSparse&) = delete;

    void run(const void* x, const void* residual, void* y, int threads) const {
        isa_.run(plan_, static_cast<const float*>(x), static_cast<const float*>(residual), static_cast<float*>(y),
                 threads);
    }
    int64_t stored() const { return static_cast<int64_t>(values_.size()); }

  private:
    const SellTable& isa_;
    SellPlan plan_{};
    std::vector<int64_t> starts_, rows_;
    PackedVector<float> values_;
    std::vector<float> bias_;
    PackedVector<uint16_t> columns_;
};

}  // namespace sparseplan
