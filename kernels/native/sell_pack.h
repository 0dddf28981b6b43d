// Packed weights of the sparse linear layer for small batches; see sell_plan.h.
#pragma once

#include <cstdint>
#include <vector>

#include "isa_table.h"
#include "sell_plan.h"

namespace sparseplan {

class SellSparse {
  public:
    // weight: [c_out, c_in], dense with zeros; c_in at most 65536.
    SellSparse(const IsaTable& isa, int64_t n, int64_t c_out, int64_t c_in, const float* weight,
               const float* bias, bool relu);
    SellSparse(const SellSparse&) = delete;
    SellSparse& operator=(const SellSparse&) = delete;

    void run(const float* x, float* y, int threads) const { isa_.run_sell(plan_, x, y, threads); }
    int64_t stored() const { return static_cast<int64_t>(values_.size()); }

  private:
    const IsaTable& isa_;
    SellPlan plan_{};
    std::vector<int64_t> starts_, rows_;
    std::vector<float> values_, bias_;
    std::vector<uint16_t> columns_;
};

}  // namespace sparseplan
