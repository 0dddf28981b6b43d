// Packs weights for expansion in registers; see expand/plan.h.
#pragma once

#include <cstdint>
#include <vector>

#include "expand/plan.h"
#include "expand/table.h"
#include "pages.h"

namespace sparseplan {

class ExpandSparse {
  public:
    // weight: [c_out, c_in], dense with zeros; rounded to bfloat16 where the values of `isa` are. bias: [c_out] or null.
    ExpandSparse(const ExpandTable& isa, ExpandFormat format, int64_t n, int64_t c_out, int64_t c_in,
                 const float* weight, const float* bias, bool relu);
    ExpandSparse(const ExpandSparse&) = delete;
    ExpandSparse& operator=(const ExpandSparse&) = delete;

    void run(const void* x, const void* residual, void* y, int threads) const { run_(plan_, x, residual, y, threads); }
    int64_t packed_bytes() const { return packed_bytes_; }

  private:
    void (*run_)(const ExpandPlan& plan, const void* x, const void* residual, void* y, int threads);
    ExpandPlan plan_{};
    std::vector<ExpandBlock> starts_;
    std::vector<int32_t> windows_;
    std::vector<float> bias_;
    PackedVector<uint8_t> bits_, places_, values_;
    int64_t packed_bytes_ = 0;
};

}  // namespace sparseplan
