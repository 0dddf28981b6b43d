// Flat sparse convolution. Shared text of all instruction sets, included after one of simd/*.h and the inner kernel for
// its scalars; everything is in an anonymous namespace, so the linker cannot mix the sets.

#include "flat/move.inc.h"
#include "flat/input_nhwc.inc.h"
#include "flat/input.inc.h"
#include "flat/input_tile.inc.h"
#include "flat/output.inc.h"

namespace {

struct Call {
    const Scalar* x;
    Target to;
};

// A block of images: where the first lies in x and y, and whether x ends with the block.
struct Block {
    const Scalar* x;
    Target to;
    int64_t images;
    bool is_last;
};

struct Sizes {
    int64_t blocks, tiles, input_floats, work_floats;
};

inline Sizes sizes_of(const sparseplan::FlatPlan& plan) {
    // The last vector of the last channel may reach beyond the padded input, that of a run of pixels beyond the sums.
    const int64_t copied = plan.copies_input ? plan.c_in * plan.channel_floats + kLanes : 0;
    constexpr int64_t kInFloat = sizeof(float) / sizeof(Scalar);
    const int64_t input_floats = (copied + kInFloat - 1) / kInFloat;
    return {(plan.n + plan.images - 1) / plan.images, (plan.vectors + plan.tile - 1) / plan.tile, input_floats,
            plan.k_block * plan.tile * kLanes + kLanes};
}

inline Scalar* input_scratch(const Sizes& sizes) {
    return reinterpret_cast<Scalar*>(sparseplan::thread_scratch(sparseplan::Slot::input, sizes.input_floats));
}

inline Block block_at(const sparseplan::FlatPlan& plan, const Call& call, int64_t index) {
    const int64_t first = index * plan.images;
    return {call.x + first * plan.c_in * plan.h_in * plan.w_in,
            call.to.at(first * plan.c_out * plan.h_out * plan.w_out), smaller(plan.images, plan.n - first),
            first + plan.images >= plan.n};
}

inline bool copies_whole(const sparseplan::FlatPlan& plan) { return plan.copies_input && !plan.copies_tiles; }

inline Tile tile_at(const sparseplan::FlatPlan& plan, int64_t index) {
    return {index * plan.tile * kLanes, smaller(plan.tile, plan.vectors - index * plan.tile)};
}

// The input under a tile as the offsets expect it; copied to `copy` where that goes by tiles.
inline const Scalar* tile_input(const sparseplan::FlatPlan& plan, const Block& block, const Scalar* in, Tile tile,
                                Scalar* copy) {
    if (!plan.copies_tiles) return in + tile.begin;
    const int64_t begin = tile.begin / plan.images, end = begin + tile.vectors * kLanes / plan.images;
    copy_tile(plan, block.x, block.images, begin, smaller(end, plan.h_in * plan.w_in) - begin, copy);
    return copy;
}

// Output channels [k_begin, k_end) of one tile; `in` is its input.
void compute_tile(const sparseplan::FlatPlan& plan, const Block& block, const Scalar* in, Tile tile, int64_t k_begin,
                  int64_t k_end, float* sums) {
    const int64_t total = ((plan.h_out - 1) * plan.pitch + plan.w_out) * plan.images;
    const int64_t last = total - tile.begin - (tile.vectors - 1) * kLanes;
    const bool guarded = !plan.copies_input && block.is_last && last < kLanes;
    const AxpyTile axpy = (guarded ? kTiles.guarded : kTiles.plain)[tile.vectors];
    // A residual comes before the rectifier: both then wait until the sums are written.
    const bool rectifies = plan.relu && block.to.residual == nullptr;
    for (int64_t k = k_begin; k < k_end; k += plan.k_block) {
        const int64_t channels = smaller(plan.k_block, k_end - k);
        for (int64_t c = 0; c < plan.c_blocks; ++c) {
            const int64_t* start = plan.starts + c * plan.c_out + k;
            const bool opens = c == 0, closes = rectifies && c == plan.c_blocks - 1;
            for (int64_t i = 0; i < channels; ++i) {
                const Row row{plan.entries + start[i], plan.entries + start[i + 1], plan.bias[k + i], opens, closes};
                axpy(row, in, sums + i * plan.tile * kLanes, static_cast<int>(last));
            }
        }
        write_tile(plan, tile, sums, k, channels, block.to, block.images);
    }
}

// Enough blocks of images for all threads: each thread copies and computes its own, in its own cache.
void run_blocks(const sparseplan::FlatPlan& plan, const Sizes& sizes, const Call& call, int threads) {
    run_team(threads, [&] {
        share_dynamic(sizes.blocks, 1, [&](int64_t index) {
            const Block block = block_at(plan, call, index);
            float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
            Scalar* copy = input_scratch(sizes);
            if (copies_whole(plan)) copy_channels(plan, block.x, block.images, 0, plan.c_in, copy);
            const Scalar* in = plan.copies_input ? copy : block.x;
            for (int64_t i = 0; i < sizes.tiles; ++i) {
                const Tile tile = tile_at(plan, i);
                compute_tile(plan, block, tile_input(plan, block, in, tile, copy), tile, 0, plan.c_out, sums);
            }
        });
    });
}

// Few blocks: the threads share one block's input and split its tiles and output channels.
void run_tiles(const sparseplan::FlatPlan& plan, const Sizes& sizes, const Call& call, int threads) {
    constexpr int64_t kTasksPerThread = 4;  // rows of unequal length are evened out by dynamic scheduling
    const int64_t wanted = plan.copies_tiles ? threads : kTasksPerThread * threads;  // each task copies its tile
    // Whole vectors of channels where they lie side by side.
    const int64_t unit = plan.layout == sparseplan::FlatLayout::nhwc ? kLanes : 1;
    const int64_t units = (plan.c_out + unit - 1) / unit;
    const int64_t parts = smaller((wanted + sizes.tiles - 1) / sizes.tiles, units);
    const int64_t tasks = sizes.tiles * parts;
    Scalar* shared = input_scratch(sizes);
    run_team(threads, [&] {
        Scalar* own = input_scratch(sizes);
        Scalar* copy = plan.copies_tiles ? own : shared;
        float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
        for (int64_t index = 0; index < sizes.blocks; ++index) {
            const Block block = block_at(plan, call, index);
            if (copies_whole(plan)) {
                share_static((plan.c_in + kLanes - 1) / kLanes, [&](int64_t part) {
                    const int64_t c = part * kLanes;
                    copy_channels(plan, block.x, block.images, c, smaller(c + kLanes, plan.c_in), copy);
                });
            }
            const Scalar* in = plan.copies_input ? copy : block.x;
            share_dynamic(tasks, 1, [&](int64_t task) {
                const int64_t part = task % parts;
                const int64_t k_begin = units * part / parts * unit;
                const int64_t k_end = smaller(units * (part + 1) / parts * unit, plan.c_out);
                const Tile tile = tile_at(plan, task / parts);
                compute_tile(plan, block, tile_input(plan, block, in, tile, copy), tile, k_begin, k_end, sums);
            });
        }
    });
}

void run_flat(const sparseplan::FlatPlan& plan, const void* x, const void* residual, void* y, int threads) {
    const Target to{static_cast<Scalar*>(y), static_cast<const Scalar*>(residual), plan.relu};
    const Call call{static_cast<const Scalar*>(x), to};
    const Sizes sizes = sizes_of(plan);
    if (threads == 1 || sizes.blocks % threads == 0 || sizes.blocks >= 4 * threads) {
        run_blocks(plan, sizes, call, threads);
    } else {
        run_tiles(plan, sizes, call, threads);
    }
}

}  // namespace
