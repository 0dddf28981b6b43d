#include "flat/pack.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace sparseplan {
namespace {

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

}  // namespace

FlatSparse::FlatSparse(const FlatTable& isa, const FlatPlan& shape, std::vector<int64_t> phases_h,
                       std::vector<int64_t> phases_w, const float* weight, const uint32_t* tap_offset, int64_t taps,
                       int64_t block_taps, int64_t groups, int64_t group_offset, const float* bias)
    : isa_(isa),
      plan_(shape),
      phases_h_(std::move(phases_h)),
      phases_w_(std::move(phases_w)),
      bias_(shape.c_out, 0.0f) {
    const int64_t c_out = shape.c_out, blocks = (taps + block_taps - 1) / block_taps;
    const int64_t positions = ((shape.h_out - 1) * shape.pitch + shape.w_out) * shape.images;
    const int64_t reach = int64_t{*std::max_element(tap_offset, tap_offset + taps)} + (groups - 1) * group_offset;
    const bool by_pixel = shape.area_rows == shape.h_out && shape.area_columns == shape.w_out;
    const bool by_position = shape.area_rows == 1 && shape.area_columns == (positions + isa.lanes - 1) / isa.lanes;
    require(shape.tile_rows >= 1 && shape.tile_rows <= isa.max_tile_rows && shape.tile_columns >= 1 &&
                shape.tile <= isa.max_tile, "tile exceeds the registers");
    require(shape.k_block >= 1 && shape.images >= 1, "sizes must be positive");
    require(shape.images == 1 || shape.images % isa.lanes == 0, "images must fill vectors");
    const bool vector_a_pixel = shape.images == isa.lanes && (by_pixel || (by_position && shape.pitch == shape.w_out));
    const bool runs = by_position && (shape.images == 1 || shape.h_out * shape.w_out == 1);
    require(vector_a_pixel || runs, "area does not cover the output");
    const int64_t covered = shape.copies_tiles ? shape.tile * isa.lanes : positions;
    require(reach + covered <= shape.c_in * shape.channel_floats, "offsets leave the padded input");
    const bool nhwc = shape.layout == FlatLayout::nhwc, blocked = shape.layout == FlatLayout::blocked;
    const int64_t plane = shape.h_in * shape.w_in * shape.images;
    require(shape.copies_input || (isa.guarded_loads && by_position) || blocked,
            "this instruction set must copy its input");
    require(shape.copies_input || (shape.channel_floats == plane && (blocked || shape.images == 1) && !nhwc),
            "this input must be copied");
    require(!shape.copies_tiles || (shape.copies_input && by_position && shape.pitch == shape.w_in &&
                                    shape.w_out == shape.w_in && shape.h_out == shape.h_in &&
                                    shape.channel_floats >= covered &&
                                    (shape.images == 1 || (nhwc && shape.images == isa.lanes))),
            "only pointwise input is copied by tiles");
    require(!blocked || (shape.images == isa.lanes && shape.n % isa.lanes == 0), "blocks must be whole vectors");
    require(blocks == shape.c_blocks, "c_blocks does not match block_taps");
    if (bias != nullptr) std::copy(bias, bias + c_out, bias_.begin());

    starts_.reserve(blocks * c_out + 1);
    starts_.push_back(0);
    entries_.reserve(c_out * taps - std::count(weight, weight + c_out * taps, 0.0f) + kEntriesAhead);
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t begin = block * block_taps, end = std::min(begin + block_taps, taps);
        for (int64_t k = 0; k < c_out; ++k) {
            const uint32_t group = static_cast<uint32_t>(k / (c_out / groups) * group_offset);
            for (int64_t tap = begin; tap < end; ++tap) {
                const float value = weight[k * taps + tap];
                if (value != 0.0f) entries_.push_back({value, tap_offset[tap] + group});
            }
            starts_.push_back(static_cast<int64_t>(entries_.size()));
        }
    }

    entries_.insert(entries_.end(), kEntriesAhead, Entry{});

    // To load and store a sum takes about as long as three multiply-adds.
    constexpr int64_t kSumsWork = 3;
    work_.assign(c_out + 1, 0);
    for (int64_t k = 0; k < c_out; ++k) {
        work_[k + 1] = work_[k] + kSumsWork * blocks;
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t* start = starts_.data() + block * c_out + k;
            work_[k + 1] += start[1] - start[0];
        }
    }

    plan_.phases_h = phases_h_.data();
    plan_.phases_w = phases_w_.data();
    plan_.phases_h_count = static_cast<int64_t>(phases_h_.size());
    plan_.phases_w_count = static_cast<int64_t>(phases_w_.size());
    plan_.bias = bias_.data();
    plan_.starts = starts_.data();
    plan_.entries = entries_.data();
    plan_.work = work_.data();
}

}  // namespace sparseplan
