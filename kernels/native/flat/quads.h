// Non-zeros dealt out to quads: four output channels of like length share a loop.
#pragma once

#include <cstdint>
#include <vector>

#include "flat/plan.h"
#include "pages.h"

namespace sparseplan {

struct Taps {
    const float* weight;         // [c_out][count], dense with zeros
    const uint32_t* offset;      // [count]
    int64_t count, block_count;  // of all taps, and of those of a block of input channels
    int64_t groups, group_offset;

    int64_t blocks() const { return (count + block_count - 1) / block_count; }
    uint32_t offset_of(int64_t channel, int64_t c_out, int64_t tap) const {
        return offset[tap] + static_cast<uint32_t>(channel / (c_out / groups) * group_offset);
    }
};

struct PackedQuads {
    PackedVector<Quad> quads;
    std::vector<QuadRows> sets;
    std::vector<int64_t> starts;
};

PackedQuads deal_quads(const FlatPlan& plan, const Taps& taps);

}  // namespace sparseplan
