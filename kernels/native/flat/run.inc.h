// Flat sparse convolution. Shared text of all instruction sets, included after one of simd/*.h; everything is in an
// anonymous namespace, so the linker cannot mix the sets.

#include "flat/inner.inc.h"
#include "flat/move.inc.h"
#include "flat/input.inc.h"
#include "flat/planes.inc.h"
#include "flat/output.inc.h"

namespace {

// A block of images: where the first lies in x and y, and whether x ends with the block.
struct Block {
    const float* x;
    float* y;
    int64_t images;
    bool is_last;
};

// The tiles of a plane of output: its area cut into almost equal parts along both axes.
struct Grid {
    int64_t parts_rows, parts_columns;

    int64_t tiles() const { return parts_rows * parts_columns; }
};

// Part of the area that a tile covers; columns are vectors.
struct Area {
    Span rows, columns;

    int64_t row_count() const { return rows.end - rows.begin; }
    int64_t column_count() const { return columns.end - columns.begin; }
};

struct Sizes {
    Grid grid;
    int64_t blocks, tiles, input_floats, work_floats;
};

inline int64_t parts_of(int64_t size, int64_t part) { return (size + part - 1) / part; }

inline Span part_at(int64_t size, int64_t parts, int64_t index) {
    return {size * index / parts, size * (index + 1) / parts};
}

inline Sizes sizes_of(const sparseplan::FlatPlan& plan) {
    const Grid grid{parts_of(plan.area_rows, plan.tile_rows), parts_of(plan.area_columns, plan.tile_columns)};
    // The last vector of the last channel may reach beyond the padded input.
    const int64_t input_floats = plan.copies_input ? plan.c_in * plan.channel_floats + kLanes : 0;
    return {grid, parts_of(plan.n, plan.images), grid.tiles(), input_floats, plan.k_block * plan.tile * kLanes};
}

inline Area area_at(const sparseplan::FlatPlan& plan, const Grid& grid, int64_t tile) {
    return {part_at(plan.area_rows, grid.parts_rows, tile / grid.parts_columns),
            part_at(plan.area_columns, grid.parts_columns, tile % grid.parts_columns)};
}

inline Block block_at(const sparseplan::FlatPlan& plan, const float* x, float* y, int64_t index) {
    const int64_t first = index * plan.images;
    return {x + first * plan.c_in * plan.h_in * plan.w_in, y + first * plan.c_out * plan.h_out * plan.w_out,
            smaller(plan.images, plan.n - first), first + plan.images >= plan.n};
}

// Rows [rows.begin, rows.end) of the padded input, at least.
void copy_block(const sparseplan::FlatPlan& plan, const Block& block, Span rows, float* to) {
    if (plan.stride_h == 1 && plan.stride_w == 1 && plan.h_in * plan.w_in > 1) {
        copy_planes(plan, block.x, block.images, rows, to);
    } else {
        copy_channels(plan, block.x, block.images, 0, plan.c_in, to);
    }
}

// Rows of the padded input under an area of output.
inline Span rows_under(const sparseplan::FlatPlan& plan, const Area& area) {
    const int64_t halo = plan.rows - plan.h_out;
    if (plan.area_rows > 1) return {area.rows.begin, area.rows.end + halo};
    // A tap may reach from the last position into the row after.
    const int64_t row_floats = plan.pitch * plan.images;
    return {area.columns.begin * kLanes / row_floats,
            smaller(plan.rows, (area.columns.end * kLanes - 1) / row_floats + halo + 2)};
}

void write_tile(const sparseplan::FlatPlan& plan, const Block& block, const Area& area, int64_t k, int64_t channels,
                const float* sums) {
    const int64_t pixels = plan.h_out * plan.w_out, sums_stride = plan.tile * kLanes;
    const Tile tile{area.columns.begin * kLanes, area.column_count()};
    if (plan.images > 1 && pixels == 1) {
        write_pixels(plan, tile, sums, channels, block.y + k, block.images);
        return;
    }
    for (int64_t i = 0; i < channels; ++i) {
        float* plane = block.y + (k + i) * pixels;
        if (plan.images == 1) {
            write_flat(plan, tile, sums + i * sums_stride, plane);
        } else {
            write_interleaved(plan, area.rows, area.columns, sums + i * sums_stride, plane,
                              static_cast<int>(block.images));
        }
    }
}

// Output channels [k_begin, k_end) of one tile; `in` is the block's input as the offsets expect it.
void compute_tile(const sparseplan::FlatPlan& plan, const Block& block, const float* in, const Area& area,
                  int64_t k_begin, int64_t k_end, float* sums) {
    const int64_t row_floats = plan.pitch * plan.images;
    const int64_t begin = area.rows.begin * row_floats + area.columns.begin * kLanes;
    const int64_t total = (plan.h_out - 1) * row_floats + plan.w_out * plan.images;
    const int64_t last = total - begin - (area.column_count() - 1) * kLanes;
    const bool guarded = !plan.copies_input && block.is_last && last < kLanes;
    const AxpyTile axpy = guarded ? kTiles.guarded[area.column_count()]
                                  : kTiles.plain[area.row_count()][area.column_count()];
    const Window window{in + begin, row_floats, static_cast<int>(last)};
    for (int64_t k = k_begin; k < k_end; k += plan.k_block) {
        const int64_t channels = smaller(plan.k_block, k_end - k);
        for (int64_t c = 0; c < plan.c_blocks; ++c) {
            axpy({plan.entries, plan.starts + c * plan.c_out + k, channels, c == 0 ? plan.bias + k : nullptr,
                  plan.relu && c == plan.c_blocks - 1},
                 window, sums, plan.tile * kLanes);
        }
        write_tile(plan, block, area, k, channels, sums);
    }
}

// Enough blocks of images for all threads: each thread copies and computes its own, in its own cache.
void run_blocks(const sparseplan::FlatPlan& plan, const Sizes& sizes, const float* x, float* y, int threads) {
    run_team(threads, [&] {
        share_dynamic(sizes.blocks, 1, [&](int64_t index) {
            const Block block = block_at(plan, x, y, index);
            float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
            const float* in = block.x;
            if (plan.copies_input) {
                float* copy = sparseplan::thread_scratch(sparseplan::Slot::input, sizes.input_floats);
                copy_block(plan, block, {0, plan.rows}, copy);
                in = copy;
            }
            for (int64_t tile = 0; tile < sizes.tiles; ++tile) {
                compute_tile(plan, block, in, area_at(plan, sizes.grid, tile), 0, plan.c_out, sums);
            }
        });
    });
}

// Where a part of the output channels begins, when parts have equal work.
inline int64_t channel_at(const sparseplan::FlatPlan& plan, int64_t part, int64_t parts) {
    const int64_t* const all = plan.work;
    int64_t low = 0, high = plan.c_out;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (all[middle] * parts < all[plan.c_out] * part) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Few blocks: the threads share the output channels of each, and where these are few its tiles; equal in work and the same
// at every run, so that each thread finds its weights and its output in its own cache. Each copies the input it needs: a
// shared copy would cross from cache to cache.
void run_tiles(const sparseplan::FlatPlan& plan, const Sizes& sizes, const float* x, float* y, int threads) {
    constexpr int64_t kLeastChannels = 16;  // of a part: each part reads the input again
    constexpr int64_t kUnevenTasks = 8;     // a thread, from where on the last task hardly matters
    int64_t parts = larger(1, smaller(threads, plan.c_out / kLeastChannels));
    while (sizes.tiles * parts % threads != 0 && sizes.tiles * parts < kUnevenTasks * threads) ++parts;
    parts = smaller(parts, plan.c_out);
    run_team(threads, [&] {
        float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
        float* copy = sparseplan::thread_scratch(sparseplan::Slot::input, sizes.input_floats);
        share_static(threads * sizes.blocks, [&](int64_t share) {
            const Block block = block_at(plan, x, y, share % sizes.blocks);
            const Span tasks = part_at(sizes.tiles * parts, threads, share / sizes.blocks);
            if (tasks.begin == tasks.end) return;
            if (plan.copies_input) {
                const bool whole = tasks.begin / sizes.tiles != (tasks.end - 1) / sizes.tiles;
                const Area first = area_at(plan, sizes.grid, whole ? 0 : tasks.begin % sizes.tiles);
                const Area last = area_at(plan, sizes.grid, whole ? sizes.tiles - 1 : (tasks.end - 1) % sizes.tiles);
                copy_block(plan, block, {rows_under(plan, first).begin, rows_under(plan, last).end}, copy);
            }
            const float* in = plan.copies_input ? copy : block.x;
            for (int64_t task = tasks.begin; task < tasks.end; ++task) {
                const int64_t part = task / sizes.tiles;
                compute_tile(plan, block, in, area_at(plan, sizes.grid, task % sizes.tiles),
                             channel_at(plan, part, parts), channel_at(plan, part + 1, parts), sums);
            }
        });
    });
}

void run_flat(const sparseplan::FlatPlan& plan, const float* x, float* y, int threads) {
    const Sizes sizes = sizes_of(plan);
    if (threads == 1 || sizes.blocks % threads == 0 || sizes.blocks >= 4 * threads) {
        run_blocks(plan, sizes, x, y, threads);
    } else {
        run_tiles(plan, sizes, x, y, threads);
    }
}

}  // namespace
