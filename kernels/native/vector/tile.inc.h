// The inner kernel: for each entry one load of weights, and a multiply-add with a broadcast word for every pixel.

namespace {

// Where the runs of a tile lie; positions of y and of the residual in values.
struct TileAt {
    const char* in[kMaxRuns];
    int64_t out[kMaxRuns];
    int skip[kMaxRuns];     // pixels of a run that the run before it stores
    bool skips;             // any of them
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

// Values of the output channels from `channel` on, one vector for each pixel of a tile; make(i) gives the sums of the
// i-th. Whole vectors unless `count` is less.
template <typename Make>
inline void store_tile(const sparseplan::VectorPlan& plan, const TileAt& at, const TileSums& sums, int64_t channel,
                       int count, const Arithmetic::Channels& channels, const Output& output, Make make) {
    for (int r = 0; r < sums.runs; ++r) {
        int64_t to = at.out[r] + at.skip[r] * plan.c_out + channel;
        for (int64_t index = r * sums.pixels + at.skip[r]; index < (r + 1) * sums.pixels; ++index, to += plan.c_out) {
            const Arithmetic::Value* residual = output.residual == nullptr ? nullptr : output.residual + to;
            if (count < kLanes) {
                Arithmetic::put_first(output.y + to, make(index), residual, count, channels);
            } else if (residual == nullptr) {
                Arithmetic::put(output.y + to, make(index), channels);
            } else {
                Arithmetic::put_residual(output.y + to, make(index), residual, channels);
            }
        }
    }
}

// The lanes of a block that are not consecutive output channels, and channels without weights between them.
void store_pieces(const sparseplan::VectorPlan& plan, const sparseplan::VectorBlock& block, const TileAt& at,
                  const TileSums& sums, const Output& output) {
    for (int64_t p = block.first_piece; p < block.last_piece; ++p) {
        const sparseplan::VectorPiece& piece = plan.pieces[p];
        // The blocks that follow write what runs over: a masked store costs twenty whole ones on Zen 4.
        const int count = at.runs_over && piece.channel + kLanes <= plan.c_out ? kLanes : piece.count;
        const Arithmetic::Channels channels = Arithmetic::channels(plan, plan.blocks_count + p);
        const Vec fixed = load(piece.fixed);
        if (piece.is_fixed) {
            store_tile(plan, at, sums, piece.channel, count, channels, output, [&](int64_t) { return fixed; });
        } else {
            const auto order = lane_order(piece.source);
            store_tile(plan, at, sums, piece.channel, count, channels, output,
                       [&](int64_t i) { return pick(load(sums.values + i * kLanes), order, fixed); });
        }
    }
}

constexpr int64_t kAhead = 16;  // entries
// On Zen 5 the time is the same without the prefetches of weights or of input.
// With narrower vectors loads bind, and prefetches cost more than they bring (a fifth of the time with AVX2 on Zen 4).
constexpr bool kPrefetches = kLanes == 16;
constexpr int64_t kLine = 64;

inline Vec word_at(const char* word) { return broadcast(*reinterpret_cast<const float*>(word)); }

// Where a core makes two multiply-adds a cycle, a load for each binds: in the first runs of a tile four pixels share one.
template <int Pixels>
inline void accumulate_quad(Vec (&sums)[Pixels], Arithmetic::Weights weights, const char* words) {
    const Vec quad = load_quad(reinterpret_cast<const float*>(words));
    Arithmetic::accumulate(sums[0], weights, of_quad<0>(quad));
    Arithmetic::accumulate(sums[1], weights, of_quad<1>(quad));
    Arithmetic::accumulate(sums[2], weights, of_quad<2>(quad));
    Arithmetic::accumulate(sums[3], weights, of_quad<3>(quad));
}

// Runs x Pixels accumulators. Planar: the words of consecutive pixels are adjacent.
template <int Runs, int Pixels, bool Planar>
void tile(const sparseplan::VectorPlan& plan, int64_t index, const TileAt& at, const Output& output) {
    const sparseplan::VectorBlock& block = plan.blocks[index];
    Vec sums[Runs][Pixels];
#pragma GCC unroll 8
    for (int r = 0; r < Runs; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < Pixels; ++i) sums[r][i] = Arithmetic::start(plan.bias + index * kLanes);
    }

    const int64_t step = Planar ? 4 : plan.step_bytes;
    const uint32_t* weights = plan.weights + block.begin * kLanes;
    const uint32_t* const end = plan.offsets + block.end;
    const char* ahead = at.ahead;
    const int64_t ahead_bytes = at.ahead_bytes;
    for (const uint32_t* offset = plan.offsets + block.begin; offset != end; ++offset, weights += kLanes) {
        if constexpr (kPrefetches) {
            __builtin_prefetch(weights + kAhead * kLanes);
            __builtin_prefetch(ahead, 0, 2);
            __builtin_prefetch(ahead + kLine, 0, 2);
            ahead += ahead_bytes;
        }
        const auto lanes = Arithmetic::weights(weights);
        const int64_t shift = *offset;
#pragma GCC unroll 8
        for (int r = 0; r < Runs; ++r) {
            const char* word = at.in[r] + shift;
            constexpr bool kCanQuad = Planar && Pixels >= 4;
            const int first_single = kCanQuad && r < kQuadRuns ? 4 : 0;
            if constexpr (kCanQuad) {
                if (r < kQuadRuns) accumulate_quad(sums[r], lanes, word);
            }
#pragma GCC unroll 8
            for (int i = first_single; i < Pixels; ++i) {
                Arithmetic::accumulate(sums[r][i], lanes, word_at(word + i * step));
            }
        }
    }

    const Arithmetic::Channels channels = Arithmetic::channels(plan, index);
    if (output.residual == nullptr && block.is_consecutive && !at.skips) {
        const int64_t c_out = plan.c_out;
#pragma GCC unroll 8
        for (int r = 0; r < Runs; ++r) {
            Arithmetic::Value* to = output.y + block.channel + at.out[r];
#pragma GCC unroll 8
            for (int i = 0; i < Pixels; ++i, to += c_out) Arithmetic::put(to, sums[r][i], channels);
        }
        // What is left are channels without weights, which read no sums.
        if (block.first_piece != block.last_piece) store_pieces(plan, block, at, {nullptr, Runs, Pixels}, output);
        return;
    }
    // Rare enough to go through memory.
    alignas(64) float values[Runs * Pixels * kLanes];
#pragma GCC unroll 8
    for (int r = 0; r < Runs; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < Pixels; ++i) store(values + (r * Pixels + i) * kLanes, sums[r][i]);
    }
    const TileSums stored{values, Runs, Pixels};
    if (block.is_consecutive) {
        store_tile(plan, at, stored, block.channel, kLanes, channels, output,
                   [&](int64_t i) { return load(values + i * kLanes); });
    }
    store_pieces(plan, block, at, stored, output);
}

using TileKernel = void (*)(const sparseplan::VectorPlan&, int64_t, const TileAt&, const Output&);

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
