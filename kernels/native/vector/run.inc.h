// Vector-sparse convolution. Shared text of all instruction sets and arithmetics, included after one of simd/*.h, an
// arithmetic and the sizes kMaxRun and kMaxRuns; everything is in an anonymous namespace, so the linker cannot mix them.

#include "vector/tile.inc.h"
#include "vector/copy.inc.h"

namespace {

struct Bands {
    int64_t line_bands, column_bands, count;
};

inline Bands bands_of(const sparseplan::VectorPlan& plan) {
    const int64_t lines = plan.n * plan.h_out;
    // Bands of less than an image start anew with each image.
    const int64_t in_image = (plan.h_out + plan.band_lines - 1) / plan.band_lines;
    const int64_t line_bands = plan.band_lines < plan.h_out ? plan.n * in_image
                                                            : (lines + plan.band_lines - 1) / plan.band_lines;
    const int64_t column_bands = (plan.w_out + plan.band_columns - 1) / plan.band_columns;
    return {line_bands, column_bands, line_bands * column_bands};
}

inline Band band_at(const sparseplan::VectorPlan& plan, const Bands& bands, int64_t index) {
    const int64_t line_band = index / bands.column_bands, part = index % bands.column_bands;
    const int64_t column = part * plan.band_columns, columns = smaller(plan.band_columns, plan.w_out - column);
    if (plan.band_lines < plan.h_out) {
        const int64_t in_image = (plan.h_out + plan.band_lines - 1) / plan.band_lines;
        const int64_t image = line_band / in_image, row = line_band % in_image * plan.band_lines;
        const int64_t rows = smaller(plan.band_lines, plan.h_out - row);
        return {image * plan.h_out + row, image * plan.h_out + row + rows, column, columns};
    }
    const int64_t line = line_band * plan.band_lines;
    return {line, smaller(line + plan.band_lines, plan.n * plan.h_out), column, columns};
}

inline int64_t run_of(const sparseplan::VectorPlan& plan, const Band& band) {
    return smaller(plan.run_pixels, band.columns);
}

inline int64_t runs_of_line(const sparseplan::VectorPlan& plan, const Band& band) {
    return (band.columns + plan.run_pixels - 1) / plan.run_pixels;
}

inline int64_t tiles_of(const sparseplan::VectorPlan& plan, const Band& band) {
    return ((band.line_end - band.line_begin) * runs_of_line(plan, band) + kMaxRuns - 1) / kMaxRuns;
}

// The caller's memory that a band reads, about: only prefetches rely on it.
struct Region {
    const char* begin;
    int64_t bytes;
};

inline Region region_of(const sparseplan::VectorPlan& plan, const Band& band, const char* x) {
    const int64_t pixel_bytes = plan.groups * plan.group_bytes, last = band.line_end - 1;
    const int64_t top = larger(0, band.line_begin % plan.h_out * plan.stride_h - plan.pad_h);
    const int64_t bottom = smaller(plan.h_in, (last % plan.h_out + plan.rows - plan.h_out + 1) * plan.stride_h);
    int64_t begin = (band.line_begin / plan.h_out * plan.h_in + top) * plan.w_in;
    int64_t end = (last / plan.h_out * plan.h_in + bottom) * plan.w_in;
    if (band.columns < plan.w_out) {
        begin += band.column_begin * plan.stride_w;
        end = begin + band.columns * plan.stride_w;
    }
    return {x + begin * pixel_bytes, (end - begin) * pixel_bytes};
}

// The runs of a tile; `in` is the band's copy, or all of x. Returns how many there are.
int locate_tile(const sparseplan::VectorPlan& plan, const Band& band, const char* in, int64_t index, TileAt& at) {
    const int64_t in_line = runs_of_line(plan, band), lines = band.line_end - band.line_begin;
    const int64_t runs = smaller(lines * in_line - index * kMaxRuns, kMaxRuns), pixels = run_of(plan, band);
    const int64_t image_lines = smaller(lines, plan.h_out);
    at.skips = false;
    for (int64_t r = 0; r < runs; ++r) {
        const int64_t run = index * kMaxRuns + r, line = run / in_line;
        // The last run of a line overlaps the one before rather than being shorter.
        const int64_t even = run % in_line * pixels, column = smaller(even, band.columns - pixels);
        at.skip[r] = static_cast<int>(even - column);
        at.skips |= even != column;
        const int64_t global = band.line_begin + line;
        if (plan.copies_input) {
            const int64_t rows = plan.rows - plan.h_out + image_lines;
            at.in[r] = in + ((line / image_lines * rows + line % image_lines) * plan.pitch + column) * 4;
        } else {
            const int64_t row = global / plan.h_out * plan.h_in + global % plan.h_out * plan.stride_h;
            at.in[r] = in + (row * plan.w_in + (band.column_begin + column) * plan.stride_w) * plan.groups *
                                plan.group_bytes;
        }
        at.out[r] = (global * plan.w_out + band.column_begin + column) * plan.c_out;
    }
    return static_cast<int>(runs);
}

// Blocks [block_begin, block_end) of a band, in chunks whose weights stay in a cache; `in` is the band's copy, or all of x.
void compute_band(const sparseplan::VectorPlan& plan, const Band& band, const char* in, int64_t block_begin,
                  int64_t block_end, const Region& next, const Output& output) {
    const auto& kernels = plan.copies_input ? kTiles.planar : kTiles.strided;
    const int64_t tiles = tiles_of(plan, band);
    int64_t asked = 0;
    while (block_begin < block_end) {
        int64_t chunk_end = block_begin + 1;
        const int64_t limit = plan.blocks[block_begin].begin + plan.chunk_entries;
        while (chunk_end < block_end && plan.blocks[chunk_end].end <= limit) ++chunk_end;
        for (int64_t index = 0; index < tiles; ++index) {
            TileAt at;
            const TileKernel kernel = kernels[locate_tile(plan, band, in, index, at)][run_of(plan, band)];
            for (int64_t b = block_begin; b < chunk_end; ++b) {
                at.runs_over = b + 1 < block_end;
                at.ahead = next.begin + asked;
                at.ahead_bytes = asked < next.bytes ? 2 * kLine : 0;
                asked += (plan.blocks[b].end - plan.blocks[b].begin) * at.ahead_bytes;
                kernel(plan, b, at, output);
            }
        }
        block_begin = chunk_end;
    }
}

// The first block of the share [num / den, 1] of a band's work: storing a tile counts as some entries.
inline int64_t block_at(const sparseplan::VectorPlan& plan, int64_t num, int64_t den) {
    constexpr int64_t kStoreEntries = 4;
    const int64_t count = plan.blocks_count;
    const int64_t work = plan.blocks[count - 1].end + count * kStoreEntries;
    int64_t block = 0;
    while (block < count && (plan.blocks[block].begin + block * kStoreEntries) * den < work * num) ++block;
    return block;
}

// All pixels x blocks in as many equal shares as there are threads: whole bands, and blocks of those that two threads
// share. Each copies the input of its bands itself: memory that another core has just written costs more than a second
// copy.
void run_share(const sparseplan::VectorPlan& plan, const Bands& bands, int64_t share, int64_t shares, const char* x,
               const Output& output) {
    const int64_t copy_floats = plan.copies_input ? plan.groups * plan.group_words * plan.word_bytes / 4 : 0;
    char* copy = reinterpret_cast<char*>(sparseplan::thread_scratch(sparseplan::Slot::input, copy_floats));
    const int64_t total = plan.n * plan.h_out * plan.w_out;
    const int64_t begin = total * share / shares, end = total * (share + 1) / shares;
    int64_t position = 0;
    for (int64_t index = 0; index < bands.count && position < end; ++index) {
        const Band band = band_at(plan, bands, index);
        const int64_t pixels = (band.line_end - band.line_begin) * band.columns, from = position;
        position += pixels;
        const int64_t first = from >= begin ? 0 : block_at(plan, smaller(begin - from, pixels), pixels);
        const int64_t last = block_at(plan, smaller(end - from, pixels), pixels);
        if (first == last) continue;
        if (plan.copies_input) copy_band(plan, band, x, copy);
        const Region next = index + 1 < bands.count ? region_of(plan, band_at(plan, bands, index + 1), x) : Region{x, 0};
        compute_band(plan, band, plan.copies_input ? copy : x, first, last, next, output);
    }
}

void run_vector(const sparseplan::VectorPlan& plan, const void* x, const void* residual, void* y, int threads) {
    const Output output{static_cast<Arithmetic::Value*>(y), static_cast<const Arithmetic::Value*>(residual)};
    const Bands bands = bands_of(plan);
    run_team(threads, [&] {
        share_static(threads, [&](int64_t share) {
            run_share(plan, bands, share, threads, static_cast<const char*>(x), output);
        });
    });
}

}  // namespace
