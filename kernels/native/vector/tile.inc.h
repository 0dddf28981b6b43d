// The inner kernel: for each entry one load of weights, and a multiply-add with a broadcast word for every pixel.

namespace {

// Where the runs of a tile lie; positions of y and of the residual in values.
struct TileAt {
    const char* in[kMaxRuns];
    int64_t out[kMaxRuns];
    const char* ahead;      // input that will be needed next, two lines for each entry
    int64_t ahead_bytes;    // of an entry: two lines, or nothing once all of it has been asked for
    bool runs_over;         // whether this thread computes the next block after this one
};

// Sums of a tile in memory: [runs][pixels][lanes].
struct TileSums {
    const float* values;
    int runs, pixels;
};

struct Output {
    Arithmetic::Value* y;
    const Arithmetic::Value* residual;  // or null
};

// Values of the output channels from `channel` on, one vector for each pixel of a tile: `make(sums)` gives what it
// starts from. Whole vectors unless `count` is less.
template <typename Make>
inline void store_tile(const sparseplan::VectorPlan& plan, const TileAt& at, const TileSums& sums, int64_t channel,
                       int count, const Output& output, Make make) {
    const float* from = sums.values;
    for (int r = 0; r < sums.runs; ++r) {
        int64_t to = at.out[r] + channel;
        for (int i = 0; i < sums.pixels; ++i, from += kLanes, to += plan.c_out) {
            Vec v = make(from);
            if (output.residual != nullptr) {
                const Arithmetic::Value* residual = output.residual + to;
                v = add(v, count == kLanes ? Arithmetic::load_values(residual)
                                           : Arithmetic::load_first_values(residual, count));
            }
            if (plan.relu) v = positive(v);
            if (count == kLanes) {
                Arithmetic::store_values(output.y + to, v);
            } else {
                Arithmetic::store_first_values(output.y + to, v, count);
            }
        }
    }
}

// The lanes of a block that are not consecutive output channels, and channels without weights between them.
void store_piece(const sparseplan::VectorPlan& plan, const sparseplan::VectorPiece& piece, const TileAt& at,
                 const TileSums& sums, const Output& output) {
    // The blocks that follow write what runs over: a masked store costs twenty whole ones on Zen 4.
    const int count = at.runs_over && piece.channel + kLanes <= plan.c_out ? kLanes : piece.count;
    const Vec fixed = load(piece.fixed);
    if (piece.is_fixed) {
        store_tile(plan, at, sums, piece.channel, count, output, [&](const float*) { return fixed; });
    } else {
        const auto order = lane_order(piece.source);
        store_tile(plan, at, sums, piece.channel, count, output,
                   [&](const float* lanes) { return pick(load(lanes), order, fixed); });
    }
}

void store_pieces(const sparseplan::VectorPlan& plan, const sparseplan::VectorBlock& block, const TileAt& at,
                  const TileSums& sums, const Output& output) {
    for (int64_t p = block.first_piece; p < block.last_piece; ++p) store_piece(plan, plan.pieces[p], at, sums, output);
}

constexpr int64_t kPrefetch = 16;  // entries ahead
constexpr int64_t kLine = 64;

// Runs x Pixels accumulators. Planar: the words of consecutive pixels are adjacent.
template <int Runs, int Pixels, bool Planar>
void tile(const sparseplan::VectorPlan& plan, const sparseplan::VectorBlock& block, const float* bias, const TileAt& at,
          const Output& output) {
    Arithmetic::Sums sums[Runs][Pixels];
#pragma GCC unroll 8
    for (int r = 0; r < Runs; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < Pixels; ++i) sums[r][i] = Arithmetic::start(bias);
    }

    const int64_t step = Planar ? 4 : plan.step_bytes;
    const uint32_t* weights = plan.weights + block.begin * kLanes;
    const uint32_t* const end = plan.offsets + block.end;
    const char* ahead = at.ahead;
    const int64_t ahead_bytes = at.ahead_bytes;
    for (const uint32_t* offset = plan.offsets + block.begin; offset != end; ++offset, weights += kLanes) {
        __builtin_prefetch(weights + kPrefetch * kLanes);
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + kLine, 0, 2);
        ahead += ahead_bytes;
        const auto lanes = Arithmetic::weights(weights);
        const int64_t shift = *offset;
#pragma GCC unroll 8
        for (int r = 0; r < Runs; ++r) {
            const char* word = at.in[r] + shift;
#pragma GCC unroll 8
            for (int i = 0; i < Pixels; ++i) Arithmetic::accumulate(sums[r][i], lanes, word + i * step);
        }
    }

    if (output.residual != nullptr || !block.is_consecutive) {
        // Rare enough to go through memory.
        alignas(64) float values[Runs * Pixels * kLanes];
#pragma GCC unroll 8
        for (int r = 0; r < Runs; ++r) {
#pragma GCC unroll 8
            for (int i = 0; i < Pixels; ++i) store(values + (r * Pixels + i) * kLanes, Arithmetic::floats(sums[r][i]));
        }
        const TileSums stored{values, Runs, Pixels};
        if (block.is_consecutive) {
            store_tile(plan, at, stored, block.channel, kLanes, output, [](const float* lanes) { return load(lanes); });
        }
        store_pieces(plan, block, at, stored, output);
        return;
    }
    const bool relu = plan.relu;
    const int64_t c_out = plan.c_out;
    Arithmetic::Value* const y = output.y + block.channel;
#pragma GCC unroll 8
    for (int r = 0; r < Runs; ++r) {
        Arithmetic::Value* pixel = y + at.out[r];
        if (relu) {
#pragma GCC unroll 8
            for (int i = 0; i < Pixels; ++i, pixel += c_out) {
                Arithmetic::store_values(pixel, positive(Arithmetic::floats(sums[r][i])));
            }
        } else {
#pragma GCC unroll 8
            for (int i = 0; i < Pixels; ++i, pixel += c_out) {
                Arithmetic::store_values(pixel, Arithmetic::floats(sums[r][i]));
            }
        }
    }
    // Only channels without weights are left, which read no sums.
    if (block.first_piece != block.last_piece) store_pieces(plan, block, at, {bias, Runs, Pixels}, output);
}

using TileKernel = void (*)(const sparseplan::VectorPlan&, const sparseplan::VectorBlock&, const float*, const TileAt&,
                            const Output&);

struct TileKernels {
    TileKernel planar[kMaxRuns + 1][kMaxRun + 1];
    TileKernel strided[kMaxRuns + 1][kMaxRun + 1];
};

template <int Runs, int Pixels>
constexpr void list_tiles(TileKernels& kernels) {
    kernels.planar[Runs][Pixels] = tile<Runs, Pixels, true>;
    kernels.strided[Runs][Pixels] = tile<Runs, Pixels, false>;
    if constexpr (Pixels > 1) {
        list_tiles<Runs, Pixels - 1>(kernels);
    } else if constexpr (Runs > 1) {
        list_tiles<Runs - 1, kMaxRun>(kernels);
    }
}

constexpr TileKernels make_tiles() {
    TileKernels kernels{};
    list_tiles<kMaxRuns, kMaxRun>(kernels);
    return kernels;
}

constexpr TileKernels kTiles = make_tiles();

}  // namespace
