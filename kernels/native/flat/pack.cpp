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
                       std::vector<int64_t> phases_w, const Taps& taps, const float* bias)
    : isa_(isa),
      plan_(shape),
      phases_h_(std::move(phases_h)),
      phases_w_(std::move(phases_w)),
      bias_(shape.c_out, 0.0f) {
    const int64_t c_out = shape.c_out, blocks = taps.blocks();
    const bool has_quads = shape.quad_rows > 0;
    const int64_t positions = ((shape.h_out - 1) * shape.pitch + shape.w_out) * shape.images;
    const int64_t reach = int64_t{*std::max_element(taps.offset, taps.offset + taps.count)} +
                          (taps.groups - 1) * taps.group_offset;
    const bool by_pixel = shape.area_rows == shape.h_out && shape.area_columns == shape.w_out;
    const bool by_position = shape.area_rows == 1 && shape.area_columns == (positions + isa.lanes - 1) / isa.lanes;
    require(shape.tile_rows >= 1 && shape.tile_columns >= 1 &&
                (has_quads || (shape.tile_rows <= isa.max_tile_rows && shape.tile <= isa.max_tile)) &&
                shape.quad_columns >= has_quads && shape.quad_rows * shape.quad_columns <= isa.max_quad,
            "tile exceeds the registers");
    require(shape.k_block >= 1 && shape.k_chunk >= 1 && shape.images >= 1, "sizes must be positive");
    require(has_quads ? shape.k_chunk % 4 == 0 && (shape.k_block % shape.k_chunk == 0 || shape.k_block >= c_out)
                      : shape.k_chunk == 1, "chunks must hold quads and fill the blocks of channels");
    require(shape.images == 1 || shape.images % isa.lanes == 0, "images must fill vectors");
    const bool vector_a_pixel = shape.images == isa.lanes && (by_pixel || (by_position && shape.pitch == shape.w_out));
    const bool runs = by_position && (shape.images == 1 || shape.h_out * shape.w_out == 1);
    require(vector_a_pixel || runs, "area does not cover the output");
    const bool has_windows = shape.window_channels > 0;
    const int64_t covered = shape.copies_tiles ? shape.tile * isa.lanes
                            : has_windows      ? ((shape.tile_rows - 1) * shape.pitch + shape.tile_columns) * isa.lanes
                                               : positions;
    const int64_t held = has_windows ? shape.window_channels : shape.c_in;
    require(reach + covered <= held * shape.channel_floats, "offsets leave the padded input");
    const bool nhwc = shape.layout == FlatLayout::nhwc, blocked = shape.layout == FlatLayout::blocked;
    const int64_t plane = shape.h_in * shape.w_in * shape.images;
    require(shape.copies_input || (isa.guarded_loads && by_position) || blocked,
            "this instruction set must copy its input");
    require(shape.copies_input || (shape.channel_floats == plane && (blocked || shape.images == 1) && !nhwc),
            "this input must be copied");
    require(!shape.copies_tiles || (shape.copies_input && by_position && shape.pitch == shape.w_out &&
                                    shape.pad_h == 0 && shape.pad_w == 0 &&
                                    (shape.w_out - 1) * shape.stride_w < shape.w_in &&
                                    (shape.h_out - 1) * shape.stride_h < shape.h_in &&
                                    shape.channel_floats >= covered &&
                                    (shape.images == 1 || ((nhwc || blocked) && shape.images == isa.lanes))),
            "only pointwise input is copied by tiles");
    const int64_t phases = static_cast<int64_t>(phases_h_.size() * phases_w_.size());
    require(!has_windows || (by_pixel && shape.images == isa.lanes && shape.copies_input && !shape.copies_tiles &&
                             (nhwc || blocked) && taps.groups == 1 && shape.rows >= shape.tile_rows &&
                             shape.pitch >= shape.tile_columns &&
                             shape.phase_floats >= shape.rows * shape.pitch * isa.lanes &&
                             shape.channel_floats >= phases * shape.phase_floats &&
                             taps.block_count * shape.window_blocks * shape.c_in == taps.count * shape.window_channels),
            "windows hold blocks of channels, a vector a pixel");
    require(!shape.asks_ahead || (shape.copies_tiles && has_quads && shape.stride_h == 1 && shape.stride_w == 1),
            "only quads ask for the input of the next tile, in one piece");
    require(!blocked || (shape.images == isa.lanes && shape.n % isa.lanes == 0), "blocks must be whole vectors");
    require(blocks == shape.c_blocks, "c_blocks does not match block_taps");
    if (bias != nullptr) std::copy(bias, bias + c_out, bias_.begin());

    starts_.reserve(blocks * c_out + 1);
    starts_.push_back(0);
    const int64_t nonzeros = c_out * taps.count - std::count(taps.weight, taps.weight + c_out * taps.count, 0.0f);
    if (!has_quads) entries_.reserve(nonzeros + kEntriesAhead);
    for (int64_t begin = 0; begin < taps.count; begin += taps.block_count) {
        const int64_t end = std::min(begin + taps.block_count, taps.count);
        for (int64_t k = 0; k < c_out; ++k) {
            int64_t found = 0;
            for (int64_t tap = begin; tap < end; ++tap) {
                const float value = taps.weight[k * taps.count + tap];
                if (value == 0.0f) continue;
                ++found;
                if (!has_quads) entries_.push_back({value, taps.offset_of(k, c_out, tap)});
            }
            starts_.push_back(starts_.back() + found);
        }
    }
    if (has_quads) quads_ = deal_quads(shape, taps);

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
    plan_.quads = quads_.quads.data();
    plan_.quad_sets = quads_.sets.data();
    plan_.quad_starts = quads_.starts.data();
    plan_.work = work_.data();
}

}  // namespace sparseplan
