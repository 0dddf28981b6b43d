// Tile-sparse convolution. Shared text of real and emulated tiles, included after one of simd/amx*.h; everything is in
// an anonymous namespace, so the linker cannot mix them.

#include "tiles/multiply.inc.h"
#include "tiles/output.inc.h"
#include "tiles/input.inc.h"

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline char* scratch_bytes(sparseplan::Slot slot, int64_t bytes) {
    return reinterpret_cast<char*>(sparseplan::thread_scratch(slot, (bytes + 3) / 4));
}

// Sums of a strip; a second buffer takes the next one's.
template <typename Numbers>
constexpr int64_t kStripBytes = Numbers::kRows * kMaxTiles * kTileBytes;

struct Sizes {
    int64_t groups;  // of pixels, in an image
    int64_t input_bytes, sums_bytes, x_image, y_image;
};

template <typename Numbers>
Sizes sizes_of(const sparseplan::TilesPlan& plan) {
    const int64_t step = plan.tiles * kTileRows;
    // The last tile reads whole, whatever lies behind the last position.
    const int64_t positions = plan.phases_h_count * plan.phases_w_count * plan.phase_positions + kTileRows;
    return {(plan.positions + step - 1) / step, plan.copies_input ? positions * plan.position_bytes : 0,
            2 * kStripBytes<Numbers>, plan.c_in * plan.h_in * plan.w_in * plan.value_bytes,
            plan.c_out * plan.h_out * plan.w_out * plan.value_bytes};
}

// Strips [begin, end) of one group of pixels; `in` is the image as the offsets expect it.
template <typename Numbers>
void compute_group(const sparseplan::TilesPlan& plan, const char* in, const Output& output, int64_t group,
                   int64_t begin, int64_t end, char* sums) {
    PixelTiles pixels{};
    Targets targets;
    targets.count = 0;
    int tiles = 0;
    for (int64_t first = group * plan.tiles * kTileRows; tiles < plan.tiles && first < plan.positions;
         ++tiles, first += kTileRows) {
        // Nothing is read beyond the caller's memory: the last tile starts earlier and repeats some pixels.
        const int64_t past = first + kTileRows - plan.positions;
        const int64_t repeated = plan.copies_input || past <= 0 ? 0 : smaller(past, first);
        pixels.start[tiles] = in + (first - repeated) * plan.position_bytes;
        const int64_t last = smaller(first + kTileRows, plan.positions);
        for (int64_t position = first; position < last; ++position) {
            const int64_t pixel = plan.pixels == nullptr ? position : plan.pixels[position];
            const int64_t row = tiles * kTileRows + position - first + repeated;
            targets.sums[targets.count] = row * kTileRowBytes;
            targets.pixel[targets.count] = pixel * plan.c_out * plan.value_bytes;
            targets.count += pixel >= 0;
        }
    }
    const auto& kernel = kRowKernels<typename Numbers::Multiply>[tiles];
    for (int64_t s = begin; s < end; ++s) {
        const sparseplan::Strip& strip = plan.strips[s];
        char* const fresh = sums + (s & 1) * kStripBytes<Numbers>;
        const char* const last = sums + (~s & 1) * kStripBytes<Numbers>;
        const int64_t rows = (strip.channels + 15) / 16;
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t* start = plan.starts + strip.block + row;
            kernel.multiply(plan.offsets + start[0], plan.offsets + start[1], plan.weights + start[0] * kTileBytes,
                            pixels, plan.position_bytes);
            // The last strip is written while the tile unit is busy with this one: the core runs ahead of it.
            if (s > begin) Numbers::write(plan, (&strip)[-1], last, targets, share_of(targets, row, rows), output);
            kernel.store(fresh + row * kMaxTiles * kTileBytes);
        }
    }
    Numbers::write(plan, plan.strips[end - 1], sums + (~end & 1) * kStripBytes<Numbers>, targets, {0, targets.count},
                   output);
}

inline Output output_at(const Sizes& sizes, const char* residual, char* y, int64_t image) {
    return {y + image * sizes.y_image, residual == nullptr ? nullptr : residual + image * sizes.y_image};
}

// Enough images for all threads: each thread copies and computes its own, in its own cache.
template <typename Numbers>
void run_images(const sparseplan::TilesPlan& plan, const Sizes& sizes, const char* x, const char* residual, char* y,
                int threads) {
    run_team(threads, [&] {
        tile_configure(tile_config(plan.positions));
        share_dynamic(plan.images, 1, [&](int64_t image) {
            char* sums = scratch_bytes(sparseplan::Slot::work, sizes.sums_bytes);
            const char* in = x + image * sizes.x_image;
            if (plan.copies_input) {
                char* copy = scratch_bytes(sparseplan::Slot::input, sizes.input_bytes);
                for (int64_t row = 0; row < copied_rows(plan); ++row) copy_rows(plan, in, row, copy);
                in = copy;
            }
            const Output output = output_at(sizes, residual, y, image);
            for (int64_t group = 0; group < sizes.groups; ++group) {
                compute_group<Numbers>(plan, in, output, group, 0, plan.strips_count, sums);
            }
        });
        tile_release();
    });
}

// Few images: the threads share one image's input and split its pixels and output channels.
template <typename Numbers>
void run_groups(const sparseplan::TilesPlan& plan, const Sizes& sizes, const char* x, const char* residual, char* y,
                int threads) {
    constexpr int64_t kTasksPerThread = 4;  // rows of unequal length are evened out by dynamic scheduling
    const int64_t wanted = (kTasksPerThread * threads + sizes.groups - 1) / sizes.groups;
    const int64_t parts = threads == 1 ? 1 : smaller(wanted, plan.strips_count);
    char* copy = scratch_bytes(sparseplan::Slot::input, sizes.input_bytes);
    run_team(threads, [&] {
        tile_configure(tile_config(plan.positions));
        char* sums = scratch_bytes(sparseplan::Slot::work, sizes.sums_bytes);
        for (int64_t image = 0; image < plan.images; ++image) {
            const char* in = x + image * sizes.x_image;
            if (plan.copies_input) {
                share_static(copied_rows(plan), [&](int64_t row) { copy_rows(plan, in, row, copy); });
                in = copy;
            }
            const Output output = output_at(sizes, residual, y, image);
            share_dynamic(sizes.groups * parts, 1, [&](int64_t task) {
                const int64_t part = task % parts;
                compute_group<Numbers>(plan, in, output, task / parts, plan.strips_count * part / parts,
                                       plan.strips_count * (part + 1) / parts, sums);
            });
        }
        tile_release();
    });
}

template <typename Numbers>
void run_tiles(const sparseplan::TilesPlan& plan, const void* x, const void* residual, void* y, int threads) {
    const Sizes sizes = sizes_of<Numbers>(plan);
    const bool many = plan.images % threads == 0 || plan.images >= 4 * threads;
    const auto run = threads == 1 || many ? run_images<Numbers> : run_groups<Numbers>;
    run(plan, sizes, static_cast<const char*>(x), static_cast<const char*>(residual), static_cast<char*>(y), threads);
}

}  // namespace
