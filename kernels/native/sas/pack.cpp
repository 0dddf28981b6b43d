#include "sas/pack.h"

#include <algorithm>
#include <stdexcept>

namespace sparseplan {

namespace {

// Output columns where a kernel column enters or leaves the image, and the end of the row.
std::vector<int64_t> column_breaks(const SasPlan& shape, int64_t kernel_w, int64_t dilation_w) {
    std::vector<int64_t> breaks{shape.w_out};
    for (int64_t tap = 0; tap < kernel_w; ++tap) {
        for (int64_t edge : {int64_t{0}, shape.w_in}) {
            const int64_t distance = edge + shape.pad_w - tap * dilation_w;
            const int64_t column = distance <= 0 ? 0 : (distance + shape.stride_w - 1) / shape.stride_w;
            if (column > 0 && column < shape.w_out) breaks.push_back(column);
        }
    }
    std::sort(breaks.begin(), breaks.end());
    breaks.erase(std::unique(breaks.begin(), breaks.end()), breaks.end());
    return breaks;
}

}  // namespace

SasSelect::SasSelect(const SasTable& isa, const SasPlan& shape, const float* weight, int64_t kernel_h,
                     int64_t kernel_w, int64_t dilation_h, int64_t dilation_w, int64_t c_block, const float* bias)
    : isa_(isa), plan_(shape) {
    const int64_t taps = kernel_h * kernel_w, channels = shape.c_in / shape.groups, slots = int64_t{1} << shape.bits;
    const int64_t k_group = shape.c_out / shape.groups, pitch = shape.vectors * isa.lanes;
    if (shape.vectors > isa.max_vectors || (slots - 1) * pitch * int64_t{sizeof(float)} > UINT16_MAX) {
        throw std::invalid_argument("vectors: too many for the registers or for 16-bit offsets");
    }
    plan_.k_blocks = (k_group + pitch - 1) / pitch;
    plan_.k_tasks = shape.groups * plan_.k_blocks;
    plan_.reach_h = (kernel_h - 1) * dilation_h;
    plan_.reach_w = (kernel_w - 1) * dilation_w;
    const int64_t row_block = slots * pitch, k_block_floats = taps * channels * row_block;
    plan_.k_block_bytes = k_block_floats * int64_t{sizeof(float)};

    const int64_t steps = taps * channels;
    plan_.c_blocks = (steps + c_block - 1) / c_block;
    for (int64_t block = 0; block < plan_.c_blocks; ++block) {
        starts_.push_back(static_cast<int64_t>(runs_.size()));
        const int64_t end = steps * (block + 1) / plan_.c_blocks;
        for (int64_t step = steps * block / plan_.c_blocks; step < end;) {
            const int64_t tap = step / channels, channel = step % channels;
            const int64_t count = std::min(end - step, channels - channel);
            const int64_t row = tap / kernel_w * dilation_h, column = tap % kernel_w * dilation_w;
            runs_.push_back({row, column, (row * shape.w_in + column) * shape.c_in + channel,
                             step * row_block * int64_t{sizeof(float)}, count});
            step += count;
        }
        plan_.most_runs = std::max(plan_.most_runs, static_cast<int64_t>(runs_.size()) - starts_.back());
    }
    starts_.push_back(static_cast<int64_t>(runs_.size()));
    breaks_ = column_breaks(shape, kernel_w, dilation_w);

    bias_.assign(plan_.k_tasks * pitch, 0.0f);
    weights_.assign(plan_.k_tasks * k_block_floats, 0.0f);
    for (int64_t k = 0; k < shape.c_out; ++k) {
        const int64_t block = k / k_group * plan_.k_blocks + k % k_group / pitch, lane = k % k_group % pitch;
        if (bias != nullptr) bias_[block * pitch + lane] = bias[k];
        float* to = weights_.data() + block * k_block_floats + lane;
        const float* from = weight + k * channels * slots * taps;
        for (int64_t wide = 0; wide < channels * slots; ++wide) {
            // Bit 0 of the slot is the sign of the value itself: |x| w = x (-w) there, so the kernel reads x as it is.
            const float sign = wide % slots % 2 == 0 ? 1.0f : -1.0f;
            for (int64_t tap = 0; tap < taps; ++tap) {
                to[(tap * channels * slots + wide) * pitch] = sign * from[wide * taps + tap];
            }
        }
    }
    plan_.breaks = breaks_.data();
    plan_.starts = starts_.data();
    plan_.runs = runs_.data();
    plan_.bias = bias_.data();
    plan_.weights = reinterpret_cast<const char*>(weights_.data());
    plan_.weights_end = plan_.weights + plan_.k_tasks * plan_.k_block_bytes;
}

}  // namespace sparseplan
