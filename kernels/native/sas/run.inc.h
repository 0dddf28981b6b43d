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

// How the output is cut into tasks: tiles of pixels, and parts of the blocks of output channels where tiles are few.
struct Tasks {
    int64_t pixels, tile, tiles, parts;
};

Tasks tasks_of(const sparseplan::SasPlan& plan, int threads) {
    constexpr int64_t kLeastTile = 16;
    const int64_t pixels = plan.n * plan.h_out * plan.w_out, wanted = threads == 1 ? 1 : 4 * threads;
    int64_t tiles = (pixels + plan.tile - 1) / plan.tile;
    if (tiles * plan.k_tasks < wanted) {
        tiles = smaller((wanted + plan.k_tasks - 1) / plan.k_tasks, (pixels + kLeastTile - 1) / kLeastTile);
    }
    const int64_t tile = (pixels + tiles - 1) / tiles;
    tiles = (pixels + tile - 1) / tile;
    return {pixels, tile, tiles, smaller((wanted + tiles - 1) / tiles, plan.k_tasks)};
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

// Input pixels of all images, numbered through.
struct Span {
    int64_t begin, end;
};

// From the first input pixel that the output pixels [first, last] read to the last one.
Span input_of(const sparseplan::SasPlan& plan, int64_t first, int64_t last) {
    const int64_t image = plan.h_out * plan.w_out;
    const auto inside = [&](int64_t column) { return smaller(column > 0 ? column : 0, plan.w_in); };
    const int64_t top = first % image / plan.w_out * plan.stride_h - plan.pad_h;
    const int64_t bottom = last % image / plan.w_out * plan.stride_h - plan.pad_h + plan.reach_h;
    const int64_t left = inside(first % plan.w_out * plan.stride_w - plan.pad_w);
    const int64_t right = inside(last % plan.w_out * plan.stride_w - plan.pad_w + plan.reach_w + 1);
    const int64_t height = plan.h_in, width = plan.w_in;
    const int64_t begin = top < 0 ? 0 : top >= height ? height * width : top * width + left;
    const int64_t end = bottom < 0 ? 0 : bottom >= height ? height * width : bottom * width + right;
    const int64_t from = first / image * height * width + begin, to = last / image * height * width + end;
    return {from, from > to ? from : to};
}

struct Images {
    const float* x;
    const float* residual;
    float* y;
};

// One block of output channels of one tile, all blocks of input in turn.
void run_block(const sparseplan::SasPlan& plan, int64_t k_task, int64_t count, Images at, Pass& pass) {
    const int64_t group = k_task / plan.k_blocks, k_block = k_task % plan.k_blocks;
    const int64_t pitch = plan.vectors * kLanes, k_group = plan.c_out / plan.groups;
    const int64_t k = group * k_group + k_block * pitch, outputs = smaller(pitch, k_group - k_block * pitch);
    const int64_t vectors = (outputs + kLanes - 1) / kLanes;
    pass.channel = group * (plan.c_in / plan.groups);
    pass.weights = plan.weights + k_task * plan.k_block_bytes;
    pass.bias = plan.bias + k_task * pitch;
    pass.residual = at.residual == nullptr ? nullptr : at.residual + k;
    pass.y = at.y + k;
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

// Each task finds the slots that it reads itself: cheaper than fetching them from another core.
void run_task(const sparseplan::SasPlan& plan, const Tasks& tasks, int64_t task, Images all) {
    const int64_t first = task / tasks.parts * tasks.tile, count = smaller(tasks.tile, tasks.pixels - first);
    const Span span = input_of(plan, first, first + count - 1);
    const int64_t part = task % tasks.parts, floats = (span.end - span.begin) * plan.c_in;
    uint16_t* slots = reinterpret_cast<uint16_t*>(
        sparseplan::thread_scratch(sparseplan::Slot::input, floats > 0 ? (floats + 1) / 2 : 1));
    const SameBits* values = reinterpret_cast<const SameBits*>(all.x) + span.begin * plan.c_in;
    find_slots(values, (span.end - span.begin) * plan.groups, plan.c_in / plan.groups, plan.bits,
               plan.vectors * kLanes * int64_t{sizeof(float)}, slots);

    const int64_t sums_floats = tasks.tile * plan.vectors * kLanes;
    constexpr int64_t kStripFloats = sizeof(Strip) / sizeof(float), kSourceFloats = sizeof(Source) / sizeof(float);
    Pass pass{};
    pass.sums = sparseplan::thread_scratch(
        sparseplan::Slot::work, sums_floats + tasks.tile * kStripFloats + plan.most_runs * kSourceFloats);
    Strip* strips = reinterpret_cast<Strip*>(pass.sums + sums_floats);
    pass.sources = reinterpret_cast<Source*>(strips + tasks.tile);
    pass.x = all.x;
    pass.slots = slots;
    pass.slots_begin = span.begin * plan.c_in;
    pass.strips = strips;
    pass.strips_end = list_strips(plan, first, count, strips);
    const int64_t out = first * plan.c_out;
    const Images at{nullptr, all.residual == nullptr ? nullptr : all.residual + out, all.y + out};
    const int64_t end = plan.k_tasks * (part + 1) / tasks.parts;
    for (int64_t k_task = plan.k_tasks * part / tasks.parts; k_task < end; ++k_task) {
        run_block(plan, k_task, count, at, pass);
    }
}

void run_sas(const sparseplan::SasPlan& plan, const float* x, const float* residual, float* y, int threads) {
    const Tasks tasks = tasks_of(plan, threads);
    run_team(threads, [&] {
        share_dynamic(tasks.tiles * tasks.parts, 1,
                      [&](int64_t task) { run_task(plan, tasks, task, {x, residual, y}); });
    });
}

}  // namespace
