// Flat sparse convolution. Shared text of all instruction sets, included after one of simd/*.h and the inner kernel for
// its scalars; everything is in an anonymous namespace, so the linker cannot mix the sets.

#include "flat/move.inc.h"
#include "flat/input_nhwc.inc.h"
#include "flat/input.inc.h"
#include "flat/input_tile.inc.h"
#include "flat/planes.inc.h"
#include "flat/output.inc.h"
#include "flat/input_window.inc.h"

namespace {

struct Call {
    const Scalar* x;
    Target to;
};

// A block of images: where the first lies in x and y, and whether x ends less than a vector after it.
struct Block {
    const Scalar* x;
    Target to;
    int64_t images;
    bool is_last;
};

// The tiles of a plane of output: its area cut into almost equal parts along both axes.
struct Grid {
    int64_t parts_rows, parts_columns;

    int64_t tiles() const { return parts_rows * parts_columns; }
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
    // The last vector of the last channel may reach beyond the padded input, that of a run of pixels beyond the sums.
    const int64_t channels = plan.window_channels > 0 ? plan.window_channels : plan.c_in;
    const int64_t copied = plan.copies_input ? channels * plan.channel_floats + kLanes : 0;
    constexpr int64_t kInFloat = sizeof(float) / sizeof(Scalar);
    return {grid, parts_of(plan.n, plan.images), grid.tiles(), parts_of(copied, kInFloat),
            plan.k_block * plan.tile * kLanes + kLanes};
}

// Tile number `tile` of a grid over so many rows and columns.
inline Area area_at(Area::Size size, const Grid& grid, int64_t tile) {
    return {part_at(size.rows, grid.parts_rows, tile / grid.parts_columns),
            part_at(size.columns, grid.parts_columns, tile % grid.parts_columns)};
}
inline Area area_at(const sparseplan::FlatPlan& plan, const Grid& grid, int64_t tile) {
    return area_at(Area::Size{plan.area_rows, plan.area_columns}, grid, tile);
}

inline Scalar* input_scratch(const Sizes& sizes) {
    return reinterpret_cast<Scalar*>(sparseplan::thread_scratch(sparseplan::Slot::input, sizes.input_floats));
}

inline Block block_at(const sparseplan::FlatPlan& plan, const Call& call, int64_t index) {
    const int64_t first = index * plan.images, image_floats = plan.c_in * plan.h_in * plan.w_in;
    return {call.x + first * image_floats, call.to.at(first * plan.c_out * plan.h_out * plan.w_out),
            smaller(plan.images, plan.n - first), (plan.n - first - plan.images) * image_floats < kLanes};
}

// Rows [rows.begin, rows.end) of the padded input, at least.
void copy_block(const sparseplan::FlatPlan& plan, const Block& block, Span rows, Scalar* to) {
    const bool unit_stride = plan.stride_h == 1 && plan.stride_w == 1;
    if (plan.layout == sparseplan::FlatLayout::nchw && unit_stride && plan.h_in * plan.w_in > 1) {
        copy_planes(plan, block.x, block.images, rows, to);
    } else {
        copy_channels(plan, block.x, block.images, rows, to);
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

inline bool copies_whole(const sparseplan::FlatPlan& plan) {
    return plan.copies_input && !plan.copies_tiles && plan.window_channels == 0;
}

// The input under a tile for offset 0; copied to `copy` where that goes by tiles, or where windows will be.
inline const Scalar* tile_input(const sparseplan::FlatPlan& plan, const Block& block, const Scalar* in,
                                const Area& area, Scalar* copy) {
    if (plan.window_channels > 0) return copy;
    if (!plan.copies_tiles) return in + area.rows.begin * plan.pitch * plan.images + area.columns.begin * kLanes;
    const int64_t begin = area.columns.begin * kLanes / plan.images, end = area.columns.end * kLanes / plan.images;
    copy_tile(plan, block.x, block.images, begin, smaller(end, plan.h_out * plan.w_out) - begin, copy);
    return copy;
}

// What copy_tile reads for an area.
inline Ahead ahead_of(const sparseplan::FlatPlan& plan, const Block& block, const Area& area) {
    if (!plan.asks_ahead) return {};
    const int64_t begin = area.columns.begin * kLanes / plan.images, pixels = plan.h_in * plan.w_in;
    const int64_t count = smaller(area.columns.end * kLanes / plan.images, pixels) - begin;
    if (plan.layout == sparseplan::FlatLayout::nhwc) {
        return Ahead(block.x + begin * plan.c_in, block.images, pixels * plan.c_in, count * plan.c_in);
    }
    const int64_t pixel = pixel_floats(plan);
    return Ahead(block.x + begin * pixel, plan.c_in, pixels * pixel, count * pixel);
}

// A part of the output under one kernel: its input, and whether its last vector reaches beyond what may be read.
struct Part {
    Window window;
    bool guarded;
};

inline Part part_of_block(const sparseplan::FlatPlan& plan, const Block& block, const Scalar* in, const Area& area) {
    const int64_t row_floats = plan.pitch * plan.images;
    const int64_t total = (plan.h_out - 1) * row_floats + plan.w_out * plan.images;
    const int64_t last = total - area.rows.begin * row_floats - (area.columns.end - 1) * kLanes;
    return {{in, row_floats, static_cast<int>(last)}, !plan.copies_input && block.is_last && last < kLanes};
}

// Channels [k, k + channels) of a tile in one block of input channels, four at a time: the tile in parts whose sums fit
// the registers, each of which keeps its input in level 1.
inline void compute_quads(const sparseplan::FlatPlan& plan, const Block& block, const Scalar* in, const Area& area,
                          Span channels, int64_t c, bool rectifies, Ahead& ahead, float* sums) {
    const int64_t chunk = channels.begin / plan.k_chunk, row_floats = plan.pitch * plan.images;
    const int64_t sets_of_block = plan.c_out / plan.k_chunk * plan.chunk_sets() + parts_of(plan.c_out % plan.k_chunk, 4);
    const QuadRun run{plan.quads + plan.quad_starts[c * plan.chunks() + chunk],
                      plan.quad_sets + c * sets_of_block + chunk * plan.chunk_sets(),
                      parts_of(channels.end - channels.begin, 4), c == 0 ? plan.bias : nullptr, rectifies, &ahead};
    const Grid grid{parts_of(area.row_count(), plan.quad_rows), parts_of(area.column_count(), plan.quad_columns)};
    const int64_t columns = area.column_count();
    for (int64_t i = 0; i < grid.tiles(); ++i) {
        const Area within = area_at(Area::Size{area.row_count(), columns}, grid, i);
        const Area here{{area.rows.begin + within.rows.begin, area.rows.begin + within.rows.end},
                        {area.columns.begin + within.columns.begin, area.columns.begin + within.columns.end}};
        const Part part = part_of_block(plan, block, in + within.rows.begin * row_floats + within.columns.begin * kLanes,
                                        here);
        const QuadTile tile = part.guarded ? kQuadTiles.guarded[within.column_count()]
                                           : kQuadTiles.plain[within.row_count()][within.column_count()];
        tile(run, part.window, {sums + (within.rows.begin * columns + within.columns.begin) * kLanes, channels.begin,
                                plan.tile * kLanes, columns * kLanes});
    }
}

// Output channels of one tile; `in` is its input, `window` where windows of it go, `ahead` the input of the next. To ask for the input of the next block of channels while
// one is computed, a line or two an output channel into level 2, changed nothing on Zen 5.
void compute_tile(const sparseplan::FlatPlan& plan, const Block& block, const Scalar* in, const Area& area,
                  Scalar* window, Span k_span, Ahead& ahead, float* sums) {
    const Part part = part_of_block(plan, block, in, area);
    const bool has_quads = plan.quad_rows > 0;
    const AxpyTile axpy = has_quads      ? nullptr
                          : part.guarded ? kTiles.guarded[area.column_count()]
                                         : kTiles.plain[area.row_count()][area.column_count()];
    if (has_quads) {
        const int64_t parts = parts_of(area.row_count(), plan.quad_rows) * parts_of(area.column_count(), plan.quad_columns);
        ahead.spread(parts * plan.c_blocks * parts_of(k_span.end - k_span.begin, 4));
    }
    // A residual comes before the rectifier: both then wait until the sums are written.
    const bool rectifies = plan.relu && block.to.residual == nullptr;
    for (int64_t k = k_span.begin; k < k_span.end; k += plan.k_block) {
        const int64_t channels = smaller(plan.k_block, k_span.end - k);
        for (int64_t c = 0; c < plan.c_blocks; ++c) {
            const bool is_last = c == plan.c_blocks - 1;
            if (plan.window_blocks > 0 && c % plan.window_blocks == 0) {
                const int64_t first = c / plan.window_blocks * plan.window_channels;
                const Span some{first, smaller(first + plan.window_channels, plan.c_in)};
                copy_window(plan, block.x, block.images, area, some, window);
            }
            if (has_quads) {
                compute_quads(plan, block, in, area, {k, k + channels}, c, rectifies && is_last, ahead, sums);
                continue;
            }
            axpy({plan.entries, plan.starts + c * plan.c_out + k, channels, c == 0 ? plan.bias + k : nullptr,
                  rectifies && is_last},
                 part.window, sums, plan.tile * kLanes);
        }
        write_tile(plan, area, sums, k, channels, block.to, block.images);
    }
}

// Enough blocks of images for all threads: each thread copies and computes its own, in its own cache.
void run_blocks(const sparseplan::FlatPlan& plan, const Sizes& sizes, const Call& call, int threads) {
    run_team(threads, [&] {
        share_dynamic(sizes.blocks, 1, [&](int64_t index) {
            const Block block = block_at(plan, call, index);
            float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
            Scalar* copy = input_scratch(sizes);
            if (copies_whole(plan)) copy_block(plan, block, {0, plan.rows}, copy);
            const Scalar* in = plan.copies_input ? copy : block.x;
            for (int64_t i = 0; i < sizes.tiles; ++i) {
                const Area area = area_at(plan, sizes.grid, i);
                const Scalar* const under = tile_input(plan, block, in, area, copy);
                Ahead ahead = i + 1 < sizes.tiles ? ahead_of(plan, block, area_at(plan, sizes.grid, i + 1)) : Ahead{};
                compute_tile(plan, block, under, area, copy, {0, plan.c_out}, ahead, sums);
            }
        });
        stream_fence();
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
    // Whole vectors of channels where they lie side by side, whole chunks of quads: the nearest, as either may be a large share.
    const int64_t unit = larger(plan.layout == sparseplan::FlatLayout::nhwc ? kLanes : 1, plan.k_chunk);
    return part == parts ? plan.c_out : smaller((low + unit / 2) / unit * unit, plan.c_out);
}

// How the threads share few blocks: tasks are tiles x parts of the output channels.
struct Shares {
    Grid grid;
    int64_t parts;
    bool tiles_first;  // a thread takes all parts of a tile before the next tile, else all tiles of a part

    int64_t tasks() const { return grid.tiles() * parts; }
    int64_t tile_of(int64_t task) const { return tiles_first ? task / parts : task % grid.tiles(); }
    int64_t part_of(int64_t task) const { return tiles_first ? task % parts : task / grid.tiles(); }
};

// Tasks a thread, from where on the last one hardly matters, and from where on neither does that tiles differ by a row.
constexpr int64_t kUnevenTasks = 8, kLikeTasks = 32;

// Calls f(task, thread, work) for all tasks in order: each is its whose equal share of the work, in vectors of output, holds
// the task's middle.
template <typename F>
inline void for_each_task(const sparseplan::FlatPlan& plan, const Shares& shares, int threads, F f) {
    const int64_t all = plan.area_rows * plan.area_columns * shares.parts;
    int64_t before = 0;
    for (int64_t task = 0; task < shares.tasks(); ++task) {
        const Area area = area_at(plan, shares.grid, shares.tile_of(task));
        const int64_t work = area.row_count() * area.column_count();
        f(task, (2 * before + work) * threads / (2 * all), work);
        before += work;
    }
}

// The tasks of one thread.
inline Span tasks_of(const sparseplan::FlatPlan& plan, const Shares& shares, int threads, int64_t thread) {
    if (shares.tasks() >= kLikeTasks * threads) return part_at(shares.tasks(), threads, thread);
    Span tasks{0, 0};
    for_each_task(plan, shares, threads, [&](int64_t task, int64_t owner, int64_t) {
        if (owner < thread) tasks.begin = task + 1;
        if (owner <= thread) tasks.end = task + 1;
    });
    return tasks;
}

// Whether a thread has over a twenty-fifth more work than an equal share.
inline bool is_uneven(const sparseplan::FlatPlan& plan, const Shares& shares, int threads) {
    const int64_t most = plan.area_rows * plan.area_columns * shares.parts * 26;
    int64_t current = 0, sum = 0;
    bool uneven = false;
    for_each_task(plan, shares, threads, [&](int64_t, int64_t owner, int64_t work) {
        sum = owner == current ? sum + work : work;
        current = owner;
        uneven |= sum * threads * 25 > most;
    });
    return uneven;
}

// A thread with few tiles reads the input under these alone, but the weights of all channels; one with few channels reads
// theirs, but all input: whichever is less.
inline Shares shares_of(const sparseplan::FlatPlan& plan, const Grid& grid, int threads) {
    constexpr int64_t kLeastChannels = 16;  // of a part: each part reads the input again
    const int64_t entries = plan.starts[plan.c_blocks * plan.c_out];
    const int64_t input = plan.c_in * plan.h_in * plan.w_in * plan.images;
    const bool tiles_first = grid.tiles() > 1 && entries * static_cast<int64_t>(sizeof(sparseplan::Entry)) <
                                                     input * static_cast<int64_t>(sizeof(Scalar));
    Shares shares{grid, tiles_first ? 1 : larger(1, smaller(threads, plan.c_out / kLeastChannels)), tiles_first};
    while (shares.parts < plan.chunks() && shares.tasks() < kUnevenTasks * threads && is_uneven(plan, shares, threads)) {
        ++shares.parts;
    }
    shares.parts = smaller(shares.parts, plan.chunks());
    return shares;
}

// Few blocks: the threads share the tiles and output channels of each, equal in work and the same at every run, so that
// each thread finds its weights and its output in its own cache. Each copies the input it needs: a shared copy would
// cross from cache to cache.
void run_tiles(const sparseplan::FlatPlan& plan, const Sizes& sizes, const Call& call, int threads) {
    const Shares shares = shares_of(plan, sizes.grid, threads);
    run_team(threads, [&] {
        Scalar* copy = input_scratch(sizes);
        float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
        share_static(threads * sizes.blocks, [&](int64_t share) {
            const Block block = block_at(plan, call, share % sizes.blocks);
            const Span tasks = tasks_of(plan, shares, threads, share / sizes.blocks);
            if (tasks.begin == tasks.end) return;
            if (copies_whole(plan)) {
                const int64_t begin = tasks.begin, last_task = tasks.end - 1;
                const bool whole = shares.part_of(begin) != shares.part_of(last_task) && !shares.tiles_first;
                const Area first = area_at(plan, sizes.grid, whole ? 0 : shares.tile_of(begin));
                const Area last = area_at(plan, sizes.grid, whole ? sizes.tiles - 1 : shares.tile_of(last_task));
                copy_block(plan, block, {rows_under(plan, first).begin, rows_under(plan, last).end}, copy);
            }
            const Scalar* const shared = plan.copies_input ? copy : block.x;
            for (int64_t task = tasks.begin; task < tasks.end;) {
                const int64_t tile = shares.tile_of(task), k_begin = channel_at(plan, shares.part_of(task), shares.parts);
                const Area area = area_at(plan, sizes.grid, tile);
                const Scalar* const in = tile_input(plan, block, shared, area, copy);
                // Parts of one tile that follow each other are one.
                while (task + 1 < tasks.end && shares.tile_of(task + 1) == tile) ++task;
                const int64_t k_end = channel_at(plan, shares.part_of(task) + 1, shares.parts);
                const bool has_next = ++task < tasks.end;
                if (k_begin == k_end) continue;
                Ahead ahead = has_next ? ahead_of(plan, block, area_at(plan, sizes.grid, shares.tile_of(task))) : Ahead{};
                compute_tile(plan, block, in, area, copy, {k_begin, k_end}, ahead, sums);
            }
        });
        stream_fence();
    });
}

void run_flat(const sparseplan::FlatPlan& plan, const void* x, const void* residual, void* y, int threads) {
    constexpr uintptr_t kLine = 64;
    const bool streams = plan.streams_output && reinterpret_cast<uintptr_t>(y) % kLine == 0;
    const Target to{static_cast<Scalar*>(y), static_cast<const Scalar*>(residual), plan.relu, streams};
    const Call call{static_cast<const Scalar*>(x), to};
    const Sizes sizes = sizes_of(plan);
    if (threads == 1 || sizes.blocks % threads == 0 || sizes.blocks >= 4 * threads) {
        run_blocks(plan, sizes, call, threads);
    } else {
        run_tiles(plan, sizes, call, threads);
    }
}

}  // namespace
