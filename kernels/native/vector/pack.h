// Packed weights of the vector-sparse kernels: blocks of entries, and where the lanes of a block go.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "vector/plan.h"
#include "vector/table.h"

namespace sparseplan {

// The dense weight that contains zeros: [c_out, group channels, taps].
struct VectorWeight {
    const float* values;
    int64_t group_channels, taps;
    const float* bias;  // [c_out] or null
};

// How the sums of an int8 layer become bytes; arrays of [c_out].
struct VectorRequantisation {
    const int32_t *bias, *multiplier, *shift;
    int zero_point, low;
};

class VectorSparse {
  public:
    // tap_offset: [group_words, taps], bytes from a run's first word to the word that the tap multiplies, for the first
    // group; the words of later groups follow at group_offset each. The pointers inside `shape` are set here.
    VectorSparse(const VectorTable& isa, const VectorPlan& shape, std::vector<int64_t> phases_h,
                 std::vector<int64_t> phases_w, const VectorWeight& weight, const uint32_t* tap_offset,
                 int64_t group_offset, const VectorRequantisation* requantisation);
    VectorSparse(const VectorSparse&) = delete;
    VectorSparse& operator=(const VectorSparse&) = delete;

    void run(const void* x, const void* residual, void* y, int threads) const {
        isa_.run(plan_, x, residual, y, threads);
    }
    int64_t entries() const { return static_cast<int64_t>(offsets_.size()); }

  private:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };

    void add_block(const std::vector<int64_t>& channels, int64_t first, int64_t last, const VectorWeight& weight);
    void add_entries(const std::vector<int64_t>& channels, const VectorWeight& weight, const uint32_t* tap_offset,
                     const std::vector<uint32_t>& order, int64_t group_offset);
    void encode(const VectorWeight& weight, int64_t channel, int64_t word, int64_t tap, uint32_t* to) const;
    void align_weights();
    void arrange(const VectorRequantisation& requantisation);

    const VectorTable& isa_;
    VectorPlan plan_;
    std::vector<int64_t> phases_h_, phases_w_;
    std::vector<float> bias_;
    std::vector<int64_t> lane_channels_;  // [blocks * lanes], -1 where a lane is empty
    std::unique_ptr<RequantisationTable> requantisation_;
    std::vector<VectorBlock> blocks_;
    std::vector<VectorPiece> pieces_;
    std::vector<uint32_t> offsets_, unaligned_;
    std::unique_ptr<uint32_t, Free> weights_;
};

}  // namespace sparseplan
