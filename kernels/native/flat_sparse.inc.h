// Flat sparse convolution: for each non-zero, one broadcast and a row of multiply-adds on shifted input.
//
// Park et al., Faster CNNs with direct sparse convolutions and guided pruning, ICLR 2017, section 2.1; the split of
// strided input into phases makes every stride a unit stride. Shared text of all instruction sets, included after
// one of simd_*.h; everything is in an anonymous namespace, so the linker cannot mix the sets.

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// ---------------------------------------------------------------------------------------------- the inner kernel

struct Row {
    const sparseplan::Entry* begin;
    const sparseplan::Entry* end;
    float bias;
    bool opens;   // starts from the bias, else from the partial sums of earlier channels
    bool closes;  // ends with the rectifier
};

// `last` floats of the last vector may be read where the input is the caller's own memory (Guarded).
template <int T, bool Guarded>
void axpy_tile(const Row& row, const float* in, float* sums, int last) {
    Vec acc[T];
    if (row.opens) {
        const Vec bias = broadcast(row.bias);
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = bias;
    } else {
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = load(sums + t * kLanes);
    }
    for (const sparseplan::Entry* entry = row.begin; entry != row.end; ++entry) {
        const Vec value = broadcast(entry->value);
        const float* shifted = in + entry->offset;
#pragma GCC unroll 32
        for (int t = 0; t < T - 1; ++t) acc[t] = multiply_add(value, load(shifted + t * kLanes), acc[t]);
        const float* end = shifted + (T - 1) * kLanes;
        acc[T - 1] = multiply_add(value, Guarded ? load_first(end, last) : load(end), acc[T - 1]);
    }
    if (row.closes) {
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = positive(acc[t]);
    }
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t) store(sums + t * kLanes, acc[t]);
}

using AxpyTile = void (*)(const Row&, const float*, float*, int);

struct AxpyTiles {
    AxpyTile plain[kMaxTile + 1];
    AxpyTile guarded[kMaxTile + 1];
};

template <int T>
constexpr void list_tiles(AxpyTiles& tiles) {
    tiles.plain[T] = axpy_tile<T, false>;
    if constexpr (kGuardedLoads) tiles.guarded[T] = axpy_tile<T, true>;
    if constexpr (T > 1) list_tiles<T - 1>(tiles);
}

constexpr AxpyTiles make_tiles() {
    AxpyTiles tiles{};
    list_tiles<kMaxTile>(tiles);
    return tiles;
}

constexpr AxpyTiles kTiles = make_tiles();

// ------------------------------------------------------------------------------------------------------ copies

// `count` floats; short rows are the rule, so no call of memcpy.
inline void copy_row(const float* from, float* to, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
    if (i < count) {
        const int rest = static_cast<int>(count - i);
        store_first(to + i, load_first(from + i, rest), rest);
    }
}

inline void zero_row(float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = 0.0f;
}

// How many of the lanes from `lane` on hold images.
inline int present_lanes(int64_t images, int64_t lane) {
    return static_cast<int>(larger(0, smaller(images - lane, kLanes)));
}

// from[image][i] -> v[i][lane] for i < count <= kLanes; lanes beyond `images` become zero.
inline void load_images(const float* from, int64_t image_stride, int images, int count, Vec (&v)[kLanes]) {
    for (int lane = 0; lane < kLanes; ++lane) {
        v[lane] = lane < images ? load_first(from + lane * image_stride, count) : zero();
    }
    transpose(v);
}

// from[image][column] -> to[column][lane].
void interleave(const float* from, int64_t image_stride, int images, int64_t columns, float* to, int64_t to_stride) {
    for (int64_t column = 0; column < columns; column += kLanes) {
        const int count = static_cast<int>(smaller(columns - column, kLanes));
        Vec v[kLanes];
        load_images(from + column, image_stride, images, count, v);
        for (int i = 0; i < count; ++i) store(to + (column + i) * to_stride, v[i]);
    }
}

// from[i][lane], `count` <= kLanes rows anywhere in memory -> to[image][i].
inline void deinterleave(const float* const* from, int count, float* to, int64_t image_stride, int images) {
    Vec v[kLanes];
    for (int i = 0; i < kLanes; ++i) v[i] = load(from[i < count ? i : 0]);
    transpose(v);
    for (int lane = 0; lane < images; ++lane) store_first(to + lane * image_stride, v[lane], count);
}

// -------------------------------------------------------------------------------- input: NCHW -> padded phases

struct Span {
    int64_t begin, end;  // positions of a phase that hold input; the rest of the pitch is padding
};

inline Span valid_columns(const sparseplan::FlatPlan& plan, int64_t phase) {
    const int64_t lead = plan.pad_w - phase, last = plan.w_in - 1 + plan.pad_w - phase;
    const int64_t begin = smaller(lead > 0 ? (lead + plan.stride_w - 1) / plan.stride_w : 0, plan.pitch);
    const int64_t end = last < 0 ? 0 : last / plan.stride_w + 1;
    return {begin, larger(begin, smaller(end, plan.pitch))};
}

// One input row of `Lanes` images at a time, its pixels dealt out to the phases in turn. `to` is the row in the first
// phase, already advanced to the lanes.
void deal_row(const sparseplan::FlatPlan& plan, const float* from, int images, float* to) {
    const int64_t image_stride = plan.c_in * plan.h_in * plan.w_in;
    int64_t position = plan.pad_w / plan.stride_w, phase = plan.pad_w % plan.stride_w;
    for (int64_t column = 0; column < plan.w_in; column += kLanes) {
        const int count = static_cast<int>(smaller(plan.w_in - column, kLanes));
        Vec v[kLanes];
        load_images(from + column, image_stride, images, count, v);
        for (int i = 0; i < count; ++i) {
            for (int64_t b = 0; b < plan.phases_w_count; ++b) {
                if (plan.phases_w[b] == phase && position < plan.pitch) {
                    store(to + b * plan.phase_floats + position * plan.images, v[i]);
                }
            }
            if (++phase == plan.stride_w) {
                phase = 0;
                ++position;
            }
        }
    }
}

// One input row of a block of images into all column phases; `to` is the row in the first of them.
void copy_phases(const sparseplan::FlatPlan& plan, const float* from, int64_t images, float* to) {
    const int64_t image_stride = plan.c_in * plan.h_in * plan.w_in;
    for (int64_t b = 0; b < plan.phases_w_count; ++b) {
        const Span valid = valid_columns(plan, plan.phases_w[b]);
        const int64_t x = valid.begin * plan.stride_w + plan.phases_w[b] - plan.pad_w, count = valid.end - valid.begin;
        float* row = to + b * plan.phase_floats;
        zero_row(row, valid.begin * plan.images);
        zero_row(row + valid.end * plan.images, (plan.pitch - valid.end) * plan.images);
        float* inside = row + valid.begin * plan.images;
        if (plan.images == 1 && plan.stride_w == 1) {
            copy_row(from + x, inside, count);
        } else if (plan.images == 1) {
            for (int64_t i = 0; i < count; ++i) inside[i] = from[x + i * plan.stride_w];
        } else if (plan.stride_w == 1) {
            for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
                interleave(from + lane * image_stride + x, image_stride, present_lanes(images, lane), count,
                           inside + lane, plan.images);
            }
        }
    }
    if (plan.images == 1 || plan.stride_w == 1) return;
    for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
        deal_row(plan, from + lane * image_stride, present_lanes(images, lane), to + lane);
    }
}

void copy_channel(const sparseplan::FlatPlan& plan, const float* from, int64_t images, float* to) {
    float* const end = to + plan.channel_floats;
    for (int64_t a = 0; a < plan.phases_h_count; ++a) {
        float* row = to;
        for (int64_t y = 0; y < plan.rows; ++y, row += plan.pitch * plan.images) {
            const int64_t y_in = y * plan.stride_h + plan.phases_h[a] - plan.pad_h;
            if (y_in >= 0 && y_in < plan.h_in) {
                copy_phases(plan, from + y_in * plan.w_in, images, row);
                continue;
            }
            for (int64_t b = 0; b < plan.phases_w_count; ++b) {
                zero_row(row + b * plan.phase_floats, plan.pitch * plan.images);
            }
        }
        const int64_t rest = plan.phase_floats - plan.rows * plan.pitch * plan.images;
        for (int64_t b = 0; b < plan.phases_w_count; ++b) zero_row(row + b * plan.phase_floats, rest);
        to += plan.phases_w_count * plan.phase_floats;
    }
    zero_row(to, end - to);
}

// Channels [begin, end) of a block of images; `x` is the block's first image.
void copy_channels(const sparseplan::FlatPlan& plan, const float* x, int64_t images, int64_t begin, int64_t end,
                   float* to) {
    if (plan.images > 1 && plan.h_in * plan.w_in * plan.rows * plan.pitch == 1) {
        // One pixel an image: the channels are what lies side by side.
        for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
            interleave(x + lane * plan.c_in + begin, plan.c_in, present_lanes(images, lane), end - begin,
                       to + begin * plan.channel_floats + lane, plan.channel_floats);
        }
        return;
    }
    for (int64_t c = begin; c < end; ++c) {
        copy_channel(plan, x + c * plan.h_in * plan.w_in, images, to + c * plan.channel_floats);
    }
}

// ------------------------------------------------------------------------------------------- output: sums -> NCHW

struct Tile {
    int64_t begin;    // first float
    int64_t vectors;
};

// One image: rows of the output without the columns between w_out and the pitch.
void write_flat(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, float* y) {
    const int64_t total = (plan.h_out - 1) * plan.pitch + plan.w_out;
    const int64_t end = smaller(tile.begin + tile.vectors * kLanes, total);
    int64_t row = tile.begin / plan.pitch, column = tile.begin % plan.pitch;
    for (int64_t position = tile.begin; position < end; ++row, column = 0) {
        const int64_t row_end = (row + 1) * plan.pitch;
        const int64_t count = smaller(row * plan.pitch + plan.w_out, end) - position;
        if (count > 0) copy_row(sums + (position - tile.begin), y + row * plan.w_out + column, count);
        position = row_end;
    }
}

// Interleaved images, one vector a position: the valid positions of a tile are consecutive pixels of the output.
void write_interleaved(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, float* y, int images) {
    const int64_t begin = tile.begin / kLanes;
    const float* from[kMaxTile];
    int count = 0;
    int64_t pixel = -1;
    for (int64_t t = 0; t < tile.vectors; ++t) {
        const int64_t row = (begin + t) / plan.pitch, column = (begin + t) % plan.pitch;
        if (column >= plan.w_out) continue;
        if (pixel < 0) pixel = row * plan.w_out + column;
        from[count++] = sums + t * kLanes;
    }
    const int64_t image_stride = plan.c_out * plan.h_out * plan.w_out;
    for (int i = 0; i < count; i += kLanes) {
        const int some = static_cast<int>(smaller(count - i, kLanes));
        deinterleave(from + i, some, y + pixel + i, image_stride, images);
    }
}

// One pixel an image: consecutive output channels are consecutive in memory.
void write_pixels(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, int64_t channels, float* y,
                  int64_t images) {
    const int64_t sums_stride = plan.tile * kLanes;
    for (int64_t t = 0; t < tile.vectors; ++t) {
        const int64_t image = tile.begin + t * kLanes;
        const int present = present_lanes(images, image);
        for (int64_t k = 0; k < channels; k += kLanes) {
            const int some = static_cast<int>(smaller(channels - k, kLanes));
            const float* from[kLanes];
            for (int i = 0; i < some; ++i) from[i] = sums + (k + i) * sums_stride + t * kLanes;
            deinterleave(from, some, y + image * plan.c_out + k, plan.c_out, present);
        }
    }
}

// --------------------------------------------------------------------------------------------------- the whole run

// A block of images: where the first lies in x and y, and whether x ends with the block.
struct Block {
    const float* x;
    float* y;
    int64_t images;
    bool is_last;
};

struct Sizes {
    int64_t blocks, tiles, input_floats, work_floats;
};

inline Sizes sizes_of(const sparseplan::FlatPlan& plan) {
    // The last vector of the last channel may reach beyond the padded input.
    const int64_t input_floats = plan.copies_input ? plan.c_in * plan.channel_floats + kLanes : 0;
    return {(plan.n + plan.images - 1) / plan.images, (plan.vectors + plan.tile - 1) / plan.tile, input_floats,
            plan.k_block * plan.tile * kLanes};
}

inline Block block_at(const sparseplan::FlatPlan& plan, const float* x, float* y, int64_t index) {
    const int64_t first = index * plan.images;
    return {x + first * plan.c_in * plan.h_in * plan.w_in, y + first * plan.c_out * plan.h_out * plan.w_out,
            smaller(plan.images, plan.n - first), first + plan.images >= plan.n};
}

void write_tile(const sparseplan::FlatPlan& plan, const Block& block, Tile tile, int64_t k, int64_t channels,
                const float* sums) {
    const int64_t pixels = plan.h_out * plan.w_out, sums_stride = plan.tile * kLanes;
    if (plan.images > 1 && pixels == 1) {
        write_pixels(plan, tile, sums, channels, block.y + k, block.images);
        return;
    }
    for (int64_t i = 0; i < channels; ++i) {
        float* plane = block.y + (k + i) * pixels;
        if (plan.images == 1) {
            write_flat(plan, tile, sums + i * sums_stride, plane);
        } else {
            write_interleaved(plan, tile, sums + i * sums_stride, plane, static_cast<int>(block.images));
        }
    }
}

// Output channels [k_begin, k_end) of one tile; `in` is the block's input as the offsets expect it.
void compute_tile(const sparseplan::FlatPlan& plan, const Block& block, const float* in, int64_t index, int64_t k_begin,
                  int64_t k_end, float* sums) {
    const Tile tile{index * plan.tile * kLanes, smaller(plan.tile, plan.vectors - index * plan.tile)};
    const int64_t total = ((plan.h_out - 1) * plan.pitch + plan.w_out) * plan.images;
    const int64_t last = total - tile.begin - (tile.vectors - 1) * kLanes;
    const bool guarded = !plan.copies_input && block.is_last && last < kLanes;
    const AxpyTile axpy = (guarded ? kTiles.guarded : kTiles.plain)[tile.vectors];
    for (int64_t k = k_begin; k < k_end; k += plan.k_block) {
        const int64_t channels = smaller(plan.k_block, k_end - k);
        for (int64_t c = 0; c < plan.c_blocks; ++c) {
            const int64_t* start = plan.starts + c * plan.c_out + k;
            const bool opens = c == 0, closes = plan.relu && c == plan.c_blocks - 1;
            for (int64_t i = 0; i < channels; ++i) {
                const Row row{plan.entries + start[i], plan.entries + start[i + 1], plan.bias[k + i], opens, closes};
                axpy(row, in + tile.begin, sums + i * plan.tile * kLanes, static_cast<int>(last));
            }
        }
        write_tile(plan, block, tile, k, channels, sums);
    }
}

// Enough blocks of images for all threads: each thread copies and computes its own, in its own cache.
void run_blocks(const sparseplan::FlatPlan& plan, const Sizes& sizes, const float* x, float* y, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t index = 0; index < sizes.blocks; ++index) {
        const Block block = block_at(plan, x, y, index);
        float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
        const float* in = block.x;
        if (plan.copies_input) {
            float* copy = sparseplan::thread_scratch(sparseplan::Slot::input, sizes.input_floats);
            copy_channels(plan, block.x, block.images, 0, plan.c_in, copy);
            in = copy;
        }
        for (int64_t tile = 0; tile < sizes.tiles; ++tile) compute_tile(plan, block, in, tile, 0, plan.c_out, sums);
    }
}

// Few blocks: the threads share one block's input and split its tiles and output channels.
void run_tiles(const sparseplan::FlatPlan& plan, const Sizes& sizes, const float* x, float* y, int threads) {
    constexpr int64_t kTasksPerThread = 4;  // rows of unequal length are evened out by dynamic scheduling
    const int64_t wanted = kTasksPerThread * threads;
    const int64_t parts = smaller((wanted + sizes.tiles - 1) / sizes.tiles, plan.c_out);
    const int64_t tasks = sizes.tiles * parts;
    float* copy = sparseplan::thread_scratch(sparseplan::Slot::input, sizes.input_floats);
#pragma omp parallel num_threads(threads)
    {
        float* sums = sparseplan::thread_scratch(sparseplan::Slot::work, sizes.work_floats);
        for (int64_t index = 0; index < sizes.blocks; ++index) {
            const Block block = block_at(plan, x, y, index);
            if (plan.copies_input) {
#pragma omp for schedule(static)
                for (int64_t c = 0; c < plan.c_in; c += kLanes) {
                    copy_channels(plan, block.x, block.images, c, smaller(c + kLanes, plan.c_in), copy);
                }
            }
            const float* in = plan.copies_input ? copy : block.x;
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < tasks; ++task) {
                const int64_t part = task % parts;
                const int64_t k_begin = plan.c_out * part / parts, k_end = plan.c_out * (part + 1) / parts;
                compute_tile(plan, block, in, task / parts, k_begin, k_end, sums);
            }
        }
    }
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
