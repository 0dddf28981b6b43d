#include "vector/pack.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace sparseplan {
namespace {

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// To nearest, ties to even, as the hardware does; a NaN stays one.
uint16_t bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void check(const VectorTable& isa, const VectorPlan& plan, const VectorWeight& weight, uint64_t reach) {
    const int64_t k_group = plan.c_out / plan.groups, word = 4 / isa.value_bytes;
    require(k_group * plan.groups == plan.c_out, "groups must divide c_out");
    require(plan.group_bytes == weight.group_channels * isa.value_bytes, "weight channels differ from the input's");
    require(plan.group_words == ceil_div(weight.group_channels, word), "group_words does not cover the channels");
    require(plan.run_pixels >= 1 && plan.run_pixels <= isa.max_run, "run exceeds the registers");
    require(plan.band_lines >= 1 && plan.band_columns >= 1 && plan.chunk_entries >= 1, "bands must not be empty");
    require(plan.band_lines < plan.h_out || plan.band_lines % plan.h_out == 0, "bands must be rows or whole images");
    if (plan.copies_input) {
        const int64_t images = std::max<int64_t>(1, plan.band_lines / plan.h_out);
        const int64_t rows = plan.rows - plan.h_out + std::min(plan.band_lines, plan.h_out);
        const int64_t phases = plan.phases_h_count * plan.phases_w_count;
        // Copies are written in whole vectors.
        require(plan.phase_bytes >= (images * rows * plan.pitch + isa.lanes - 1) * 4, "a phase does not hold a band");
        require(plan.word_bytes >= phases * plan.phase_bytes && plan.word_bytes % 4 == 0, "a plane does not hold a band");
        // From the first word of the last run: what its last pixel may still read.
        const int64_t last = ((images * rows - 1 - (plan.rows - plan.h_out)) * plan.pitch + plan.band_columns - 1) * 4;
        require(reach + last + 4 <= static_cast<uint64_t>(plan.groups * plan.group_words * plan.word_bytes),
                "offsets leave the copied input");
    } else {
        require(plan.group_bytes % 4 == 0, "read in place, the channels of a group must fill words");
        require(plan.pad_h == 0 && plan.pad_w == 0, "padding needs a copy");
        const int64_t pixel_bytes = plan.groups * plan.group_bytes;
        const int64_t last = ((plan.h_out - 1) * plan.stride_h * plan.w_in + (plan.w_out - 1) * plan.stride_w) * pixel_bytes;
        require(plan.step_bytes == plan.stride_w * pixel_bytes, "step differs from the stride");
        require(reach + last + 4 <= static_cast<uint64_t>(plan.h_in * plan.w_in * pixel_bytes), "offsets leave the input");
    }
}

}  // namespace

VectorSparse::VectorSparse(const VectorTable& isa, const VectorPlan& shape, std::vector<int64_t> phases_h,
                           std::vector<int64_t> phases_w, const VectorWeight& weight, const uint32_t* tap_offset,
                           int64_t group_offset, const VectorRequantisation* requantisation)
    : isa_(isa), plan_(shape), phases_h_(std::move(phases_h)), phases_w_(std::move(phases_w)) {
    plan_.phases_h = phases_h_.data();
    plan_.phases_w = phases_w_.data();
    plan_.phases_h_count = static_cast<int64_t>(phases_h_.size());
    plan_.phases_w_count = static_cast<int64_t>(phases_w_.size());
    const int64_t words = plan_.group_words * weight.taps;
    require(words > 0, "the weight is empty");
    check(isa, plan_, weight,
          *std::max_element(tap_offset, tap_offset + words) + static_cast<uint64_t>((plan_.groups - 1) * group_offset));

    // In the order of memory: entries that follow each other find their words in the same cache lines.
    std::vector<uint32_t> order(words);
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return tap_offset[a] < tap_offset[b]; });

    const int64_t row = weight.group_channels * weight.taps;
    std::vector<int64_t> alive;
    for (int64_t k = 0; k < plan_.c_out; ++k) {
        const float* begin = weight.values + k * row;
        if (std::any_of(begin, begin + row, [](float value) { return value != 0.0f; })) alive.push_back(k);
    }
    const int64_t count = std::max<int64_t>(1, ceil_div(static_cast<int64_t>(alive.size()), isa.lanes));
    for (int64_t b = 0; b < count; ++b) {
        const auto begin = alive.begin() + b * isa.lanes;
        const std::vector<int64_t> channels(begin, alive.end() - begin > isa.lanes ? begin + isa.lanes : alive.end());
        // Channels without weights belong to the block before them.
        const int64_t first = b == 0 ? 0 : channels.front();
        const int64_t last = b == count - 1 ? plan_.c_out : alive[(b + 1) * isa.lanes];
        add_block(channels, first, last, weight);
        add_entries(channels, weight, tap_offset, order, group_offset);
        blocks_.back().end = entries();
    }

    align_weights();
    require((isa_.value_bytes == 1) == (requantisation != nullptr), "int8 layers, and no others, are requantised");
    if (requantisation != nullptr) arrange(*requantisation);
    plan_.bias = bias_.data();
    plan_.blocks = blocks_.data();
    plan_.blocks_count = count;
    plan_.pieces = pieces_.data();
    plan_.offsets = offsets_.data();
    plan_.weights = weights_.get();
}

void VectorSparse::add_block(const std::vector<int64_t>& channels, int64_t first, int64_t last,
                             const VectorWeight& weight) {
    const auto bias = [&](int64_t k) { return weight.bias == nullptr ? 0.0f : weight.bias[k]; };
    for (int64_t lane = 0; lane < isa_.lanes; ++lane) {
        lane_channels_.push_back(lane < static_cast<int64_t>(channels.size()) ? channels[lane] : -1);
        bias_.push_back(lane_channels_.back() < 0 ? 0.0f : bias(lane_channels_.back()));
    }
    const auto lanes = static_cast<int64_t>(channels.size());
    const bool consecutive = lanes == isa_.lanes && channels.front() == first && channels.back() == first + lanes - 1;
    VectorBlock block{entries(), entries(), first, consecutive, static_cast<int64_t>(pieces_.size()), 0};
    int64_t lane = 0;
    for (int64_t k = consecutive ? first + lanes : first; k < last; k += isa_.lanes) {
        VectorPiece piece{k, static_cast<int32_t>(std::min<int64_t>(isa_.lanes, last - k)), {}, {}, true};
        for (int32_t i = 0; i < piece.count; ++i) {
            const bool has_weights = !consecutive && lane < lanes && channels[lane] == k + i;
            piece.source[i] = has_weights ? static_cast<int32_t>(lane++) : -1;
            piece.fixed[i] = bias(k + i);
            piece.is_fixed &= !has_weights;
        }
        pieces_.push_back(piece);
    }
    block.last_piece = static_cast<int64_t>(pieces_.size());
    blocks_.push_back(block);
}

void VectorSparse::add_entries(const std::vector<int64_t>& channels, const VectorWeight& weight,
                               const uint32_t* tap_offset, const std::vector<uint32_t>& order, int64_t group_offset) {
    const int64_t row = weight.group_channels * weight.taps, k_group = plan_.c_out / plan_.groups;
    const int64_t word_channels = 4 / isa_.value_bytes;
    std::vector<char> used(row);
    for (size_t lane = 0; lane < channels.size();) {
        const int64_t group = channels[lane] / k_group;
        size_t end = lane;
        std::fill(used.begin(), used.end(), 0);
        for (; end < channels.size() && channels[end] / k_group == group; ++end) {
            const float* values = weight.values + channels[end] * row;
            for (int64_t i = 0; i < row; ++i) used[i] |= values[i] != 0.0f;
        }
        for (const uint32_t at : order) {
            const int64_t word = at / weight.taps, tap = at % weight.taps;
            const int64_t last = std::min((word + 1) * word_channels, weight.group_channels);
            bool any = false;
            for (int64_t c = word * word_channels; c < last; ++c) any |= used[c * weight.taps + tap] != 0;
            if (!any) continue;
            offsets_.push_back(tap_offset[at] + static_cast<uint32_t>(group * group_offset));
            unaligned_.resize(unaligned_.size() + isa_.lanes, 0u);
            uint32_t* to = unaligned_.data() + unaligned_.size() - isa_.lanes;
            for (size_t i = lane; i < end; ++i) encode(weight, channels[i], word, tap, to + i);
        }
        lane = end;
    }
}

// The channels of a word of one output channel.
void VectorSparse::encode(const VectorWeight& weight, int64_t channel, int64_t word, int64_t tap, uint32_t* to) const {
    const float* row = weight.values + channel * weight.group_channels * weight.taps + tap;
    if (isa_.value_bytes == 4) {
        std::memcpy(to, row + word * weight.taps, sizeof *to);
        return;
    }
    if (isa_.value_bytes == 1) {
        int8_t quad[4] = {};
        const int64_t count = std::min<int64_t>(4, weight.group_channels - word * 4);
        for (int64_t i = 0; i < count; ++i) quad[i] = static_cast<int8_t>(row[(word * 4 + i) * weight.taps]);
        std::memcpy(to, quad, sizeof quad);
        return;
    }
    const int64_t first = word * 2;
    const uint32_t low = bfloat16(row[first * weight.taps]);
    const uint32_t high = first + 1 < weight.group_channels ? bfloat16(row[(first + 1) * weight.taps]) : 0u;
    *to = high << 16 | low;
}

// The constants in the order of the lanes of each block, then in that of the output channels of each piece.
void VectorSparse::arrange(const VectorRequantisation& requantisation) {
    std::vector<int64_t> channels = lane_channels_;
    for (const VectorPiece& piece : pieces_) {
        for (int64_t i = 0; i < isa_.lanes; ++i) channels.push_back(i < piece.count ? piece.channel + i : -1);
    }
    std::vector<int32_t> bias, multiplier, shift;
    for (const int64_t k : channels) {
        bias.push_back(k < 0 ? 0 : requantisation.bias[k]);
        multiplier.push_back(k < 0 ? 0 : requantisation.multiplier[k]);
        shift.push_back(k < 0 ? 1 : requantisation.shift[k]);
    }
    requantisation_ = std::make_unique<RequantisationTable>(bias.data(), multiplier.data(), shift.data(),
                                                            static_cast<int64_t>(channels.size()),
                                                            requantisation.zero_point, requantisation.low);
    plan_.requantisation = requantisation_->view();
}

void VectorSparse::align_weights() {
    const size_t bytes = (unaligned_.size() * sizeof(uint32_t) / 64 + 1) * 64;
    weights_.reset(static_cast<uint32_t*>(std::aligned_alloc(64, bytes)));
    if (weights_ == nullptr) throw std::bad_alloc();
    std::copy(unaligned_.begin(), unaligned_.end(), weights_.get());
    std::vector<uint32_t>().swap(unaligned_);
}

}  // namespace sparseplan
