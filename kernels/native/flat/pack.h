// Packed weights of the flat sparse convolution: rows of (value, offset), cut into blocks of input channels.
#pragma once

#include <cstdint>
#include <vector>

#include "flat/plan.h"
#include "flat/quads.h"
#include "flat/table.h"
#include "pages.h"

namespace sparseplan {

class FlatSparse {
  public:
    // taps.offset: floats from an output position to the input that the tap multiplies, for the first group; later groups
    // of channels follow at group_offset each. The pointers inside `shape` are set here.
    FlatSparse(const FlatTable& isa, const FlatPlan& shape, std::vector<int64_t> phases_h, std::vector<int64_t> phases_w,
               const Taps& taps, const float* bias);
    FlatSparse(const FlatSparse&) = delete;
    FlatSparse& operator=(const FlatSparse&) = delete;

    void run(const void* x, const void* residual, void* y, int threads) const {
        isa_.run(plan_, x, residual, y, threads);
    }
    int64_t nonzeros() const { return starts_.back(); }

  private:
    const FlatTable& isa_;
    FlatPlan plan_;
    std::vector<int64_t> phases_h_, phases_w_;
    std::vector<float> bias_;
    std::vector<int64_t> starts_, work_;
    PackedVector<Entry> entries_;
    PackedQuads quads_;
};

}  // namespace sparseplan
