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

struct Output {
    Arithmetic::Value* y;
    const Arithmetic::Value* residual;  // or null
};

// Lanes of a block that are not consecutive output channels, and channels between them that have no weights.
void store_pieces(const sparseplan::VectorPlan& plan, const sparseplan::VectorBlock& block, Vec lanes, int64_t pixel,
                  bool runs_over, const Output& output) {
    for (int64_t p = block.first_piece; p < block.last_piece; ++p) {
        const sparseplan::VectorPiece& piece = plan.pieces[p];
        const int64_t at = pixel + piece.channel;
        // The blocks that follow write what runs over: a masked store costs twenty whole ones on Zen 4.
        const bool whole = piece.count == kLanes || (runs_over && piece.channel + kLanes <= plan.c_out);
        const int count = whole ? kLanes : piece.count;
        Vec v = pick(lanes, piece.source, load(piece.fixed));
        if (output.residual != nullptr) {
            const Arithmetic::Value* residual = output.residual + at;
            v = add(v, whole ? Arithmetic::load_values(residual) : Arithmetic::load_first_values(residual, count));
        }
        if (plan.relu) v = positive(v);
        if (whole) {
            Arithmetic::store_values(output.y + at, v);
        } else {
            Arithmetic::store_first_values(output.y + at, v, count);
        }
    }
}

// What is rare enough to go through memory: residuals, and blocks in pieces. `sums` is [runs][pixels][lanes].
void finish_tile(const sparseplan::VectorPlan& plan, const sparseplan::VectorBlock& block, const TileAt& at, int runs,
                 int pixels, const float* sums, const Output& output) {
    for (int r = 0; r < runs; ++r) {
        for (int i = 0; i < pixels; ++i, sums += kLanes) {
            const int64_t pixel = at.out[r] + i * plan.c_out;
            Vec v = load(sums);
            if (block.first_piece != block.last_piece) {
                store_pieces(plan, block, v, pixel, at.runs_over, output);
                continue;
            }
            v = add(v, Arithmetic::load_values(output.residual + pixel + block.channel));
            if (plan.relu) v = positive(v);
            Arithmetic::store_values(output.y + pixel + block.channel, v);
        }
    }
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

    if (output.residual != nullptr || block.first_piece != block.last_piece) {
        alignas(64) float values[Runs * Pixels * kLanes];
#pragma GCC unroll 8
        for (int r = 0; r < Runs; ++r) {
#pragma GCC unroll 8
            for (int i = 0; i < Pixels; ++i) store(values + (r * Pixels + i) * kLanes, Arithmetic::floats(sums[r][i]));
        }
        finish_tile(plan, block, at, Runs, Pixels, values, output);
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
