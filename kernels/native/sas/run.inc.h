// The SAS layer that selects weight rows by signs. Included after one of simd/*.h, parallel.h and scratch.h.

#include <cstring>

#include "sas/inner.inc.h"

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int64_t kSlotPixels = 16;  // whose slots are found at a time

typedef int32_t SameBits __attribute__((may_alias));  // of a float

// Where each channel finds its row: the slot of kernels/sas.py times `unit`, for `rows` rows of the channels of a group.
// Values are given as integers of their size, which compare with zero as the numbers do, and all rows are handled as one
// so that the compiler's vectors are full.
template <typename Int>
void find_slots(const Int* __restrict__ x, int64_t rows, int64_t channels, int64_t bits, int64_t unit,
                uint16_t* __restrict__ to) {
    const int64_t total = rows * channels;
    const auto mark = [&](int64_t i, uint16_t value) { return x[i] <= 0 ? value : uint16_t{0}; };
    for (int64_t i = 0; i < total; ++i) to[i] = mark(i, static_cast<uint16_t>(unit));
    for (int64_t bit = 1; bit < bits; ++bit) {
        const uint16_t value = static_cast<uint16_t>(unit << bit);
        for (int64_t i = 0; i < total - bit; ++i) to[i] = static_cast<uint16_t>(to[i] + mark(i + bit, value));
        // The last channels count round to the first ones of their row, not on to the next row.
        for (int64_t row = 0; row < total; row += channels) {
            for (int64_t c = channels > bit ? channels - bit : 0; c < channels; ++c) {
                const uint16_t wrong = row + c < total - bit ? mark(row + c + bit, value) : uint16_t{0};
                to[row + c] = static_cast<uint16_t>(to[row + c] - wrong + mark(row + (c + bit) % channels, value));
            }
        }
    }
}

// Some images, and how their output pixels are cut into tasks.
struct Round {
    const float* x;
    const float* residual;
    float* y;
    const uint16_t* slots;
    int64_t images, tile, tiles;
};

inline Round round_at(const sparseplan::SasPlan& plan, const float* x, const float* residual, float* y, int64_t image,
                      int threads) {
    const int64_t images = smaller(plan.images, plan.n - image), pixels = images * plan.h_out * plan.w_out;
    // Tiles smaller than planned keep all threads busy where there are few pixels and output channels.
    const int64_t wanted = threads == 1 ? 1 : (4 * threads + plan.groups * plan.k_blocks - 1) / (plan.groups * plan.k_blocks);
    constexpr int64_t kLeastTile = 16;
    const int64_t by_size = (pixels + plan.tile - 1) / plan.tile, most = (pixels + kLeastTile - 1) / kLeastTile;
    const int64_t tiles = by_size > smaller(wanted, most) ? by_size : smaller(wanted, most);
    const int64_t tile = (pixels + tiles - 1) / tiles, out = image * plan.h_out * plan.w_out * plan.c_out;
    return {x + image * plan.h_in * plan.w_in * plan.c_in, residual == nullptr ? nullptr : residual + out, y + out,
            nullptr, images, tile, (pixels + tile - 1) / tile};
}

// The strips of `count` output pixels from `first` on; returns their end.
Strip* list_strips(const sparseplan::SasPlan& plan, int64_t first, int64_t count, Strip* to) {
    int64_t column = first % plan.w_out, row = first / plan.w_out % plan.h_out, image = first / plan.w_out / plan.h_out;
    const int64_t* next = plan.breaks;
    while (*next <= column) ++next;
    for (int64_t done = 0; done < count;) {
        const int64_t length = smaller(*next - column, count - done);
        const int64_t y = row * plan.stride_h - plan.pad_h, x = column * plan.stride_w - plan.pad_w;
        *to++ = {y, x, ((image * plan.h_in + y) * plan.w_in + x) * plan.c_in, done, length};
        done += length;
        column += length;
        ++next;
        if (column < plan.w_out) continue;
        column = 0;
        next = plan.breaks;
        if (++row < plan.h_out) continue;
        row = 0;
        ++image;
    }
    return to;
}

// One block of output channels of one tile, all blocks of input in turn.
void run_task(const sparseplan::SasPlan& plan, const Round& round, int64_t task) {
    const int64_t k_tasks = plan.groups * plan.k_blocks, k_task = task % k_tasks;
    const int64_t group = k_task / plan.k_blocks, k_block = k_task % plan.k_blocks;
    const int64_t pitch = plan.vectors * kLanes, k_group = plan.c_out / plan.groups;
    const int64_t k = group * k_group + k_block * pitch, outputs = smaller(pitch, k_group - k_block * pitch);
    const int64_t vectors = (outputs + kLanes - 1) / kLanes;
    const int64_t first = task / k_tasks * round.tile;
    const int64_t count = smaller(round.tile, round.images * plan.h_out * plan.w_out - first);

    const int64_t sums_floats = round.tile * pitch;
    constexpr int64_t kStripFloats = sizeof(Strip) / sizeof(float), kSourceFloats = sizeof(Source) / sizeof(float);
    float* sums = sparseplan::thread_scratch(
        sparseplan::Slot::work, sums_floats + round.tile * kStripFloats + plan.most_runs * kSourceFloats);
    Strip* strips = reinterpret_cast<Strip*>(sums + sums_floats);

    const int64_t out = first * plan.c_out + k, group_channel = group * (plan.c_in / plan.groups);
    Pass pass{};
    pass.x = round.x + group_channel;
    pass.slots = round.slots + group_channel;
    pass.weights = plan.weights + k_task * plan.k_block_bytes;
    pass.strips = strips;
    pass.strips_end = list_strips(plan, first, count, strips);
    pass.sources = reinterpret_cast<Source*>(strips + round.tile);
    pass.sums = sums;
    pass.bias = plan.bias + k_task * pitch;
    pass.residual = round.residual == nullptr ? nullptr : round.residual + out;
    pass.y = round.y + out;
    pass.last = static_cast<int>(outputs - (vectors - 1) * kLanes);
    for (int64_t block = 0; block < plan.c_blocks; ++block) {
        pass.begin = plan.runs + plan.starts[block];
        pass.end = plan.runs + plan.starts[block + 1];
        pass.opens = block == 0;
        pass.closes = block == plan.c_blocks - 1;
        const int64_t block_bytes = plan.k_block_bytes / plan.c_blocks;
        pass.ahead = pass.weights + (block + 1) * block_bytes;
        pass.ahead_bytes =
            plan.fetches_rows ? 0 : smaller(block_bytes, plan.weights_end - pass.ahead) / count / 64 * 64;
        kSelect.of[vectors](plan, pass);
    }
}

void run_sas(const sparseplan::SasPlan& plan, const float* x, const float* residual, float* y, int threads) {
    const int64_t positions = plan.h_in * plan.w_in;
    const int64_t row_bytes = plan.vectors * kLanes * int64_t{sizeof(float)};
    const int64_t slot_floats = (smaller(plan.images, plan.n) * positions * plan.c_in + 1) / 2;
    uint16_t* slots =
        reinterpret_cast<uint16_t*>(sparseplan::thread_scratch(sparseplan::Slot::input, slot_floats));
    run_team(threads, [&] {
        for (int64_t image = 0; image < plan.n; image += plan.images) {
            Round round = round_at(plan, x, residual, y, image, threads);
            round.slots = slots;
            const SameBits* values = reinterpret_cast<const SameBits*>(round.x);
            share_static((round.images * positions + kSlotPixels - 1) / kSlotPixels, [&](int64_t chunk) {
                const int64_t pixel = chunk * kSlotPixels, at = pixel * plan.c_in;
                const int64_t pixels = smaller(kSlotPixels, round.images * positions - pixel);
                find_slots(values + at, pixels * plan.groups, plan.c_in / plan.groups, plan.bits, row_bytes, slots + at);
            });
            share_dynamic(round.tiles * plan.groups * plan.k_blocks, 1,
                          [&](int64_t task) { run_task(plan, round, task); });
        }
    });
}

}  // namespace
