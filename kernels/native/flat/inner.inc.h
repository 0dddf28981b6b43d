// The inner kernel: for each non-zero, one broadcast and a tile of multiply-adds on shifted input.
//
// Park et al., Faster CNNs with direct sparse convolutions and guided pruning, ICLR 2017, section 2.1.

namespace {

// The non-zeros of consecutive output channels in one block of input channels.
struct Rows {
    const sparseplan::Entry* entries;
    const int64_t* starts;  // [channels + 1], into entries
    int64_t channels;
    const float* bias;      // [channels], or null: the sums of earlier blocks go on
    bool rectifies;
};

// The input under a tile for offset 0.
struct Window {
    const float* in;
    int64_t row_floats;  // from one row of the tile to the next
    int last;            // floats of the last vector that may be read (guarded tiles)
};

// Left alone, GCC gives every vector of the later rows of a tile an address computation of its own.
inline void keep_pointer(const float*& pointer) { __asm__("" : "+r"(pointer)); }

// Adds one non-zero to the sums of a tile.
template <int R, int W, bool Guarded>
inline void axpy(const sparseplan::Entry* entry, const Window& window, int64_t row_floats, Vec (&acc)[R * W]) {
    // One load, from where the value goes on as an integer: loads are what binds.
    uint64_t both;
    std::memcpy(&both, entry, sizeof both);
    const Vec value = broadcast_bits(static_cast<uint32_t>(both));
    const float* row = window.in + (both >> 32);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, row += row_floats) {
        keep_pointer(row);
#pragma GCC unroll 32
        for (int w = 0; w < W; ++w) {
            const float* from = row + w * kLanes;
            const bool is_last = Guarded && w == W - 1;
            Vec& sum = acc[r * W + w];
            sum = multiply_add(value, is_last ? load_first(from, window.last) : load(from), sum);
        }
    }
}

// A sum waits about 4 cycles for the last addition to it, and a core makes up to two a cycle: small tiles deal their
// non-zeros out to several sums.
constexpr int chains_of(int vectors) { return vectors >= 8 ? 1 : vectors >= 4 ? 2 : 4; }

// The non-zeros of small tiles pass fast enough to come late from memory; the hardware prefetches within pages only.
constexpr int kPrefetchBytes = 2048;

// A tile of R rows of W vectors; Guarded where the input is the caller's own memory and the tile reaches its end.
// A loop over the channels in here rather than around it: a call for each would cost as much as half a non-zero.
template <int R, int W, bool Guarded>
void axpy_tile(const Rows& rows, const Window& window, float* sums, int64_t sums_stride) {
    constexpr int kSums = R * W, kChains = chains_of(kSums);
    const int64_t row_floats = window.row_floats, channels = rows.channels;
    const int64_t* const starts = rows.starts;
    const float* const biases = rows.bias;
    const bool rectifies = rows.rectifies;
    const sparseplan::Entry* entry = rows.entries + starts[0];
    for (int64_t k = 0; k < channels; ++k, sums += sums_stride) {
        const sparseplan::Entry* const end = rows.entries + starts[k + 1];
        Vec acc[kChains][kSums];
        if (biases != nullptr) {
            const Vec bias = broadcast(biases[k]);
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[0][t] = bias;
        } else {
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[0][t] = load(sums + t * kLanes);
        }
        if constexpr (kChains > 1) {
#pragma GCC unroll 32
            for (int t = kSums; t < kChains * kSums; ++t) acc[t / kSums][t % kSums] = zero();
            for (; end - entry >= kChains; entry += kChains) {
                __builtin_prefetch(reinterpret_cast<const char*>(entry) + kPrefetchBytes);
#pragma GCC unroll 8
                for (int chain = 0; chain < kChains; ++chain) {
                    axpy<R, W, Guarded>(entry + chain, window, row_floats, acc[chain]);
                }
            }
        }
        for (; entry != end; ++entry) axpy<R, W, Guarded>(entry, window, row_floats, acc[0]);
#pragma GCC unroll 32
        for (int t = kSums; t < kChains * kSums; ++t) acc[0][t % kSums] = add(acc[0][t % kSums], acc[t / kSums][t % kSums]);
        if (rectifies) {
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[0][t] = positive(acc[0][t]);
        }
#pragma GCC unroll 32
        for (int t = 0; t < kSums; ++t) store(sums + t * kLanes, acc[0][t]);
    }
}

using AxpyTile = void (*)(const Rows&, const Window&, float*, int64_t);

constexpr int kMaxTileRows = 4;

struct AxpyTiles {
    AxpyTile plain[kMaxTileRows + 1][kMaxTile + 1];
    AxpyTile guarded[kMaxTile + 1];  // of one row
};

template <int R, int W>
constexpr void list_tiles(AxpyTiles& tiles) {
    tiles.plain[R][W] = axpy_tile<R, W, false>;
    if constexpr (R == 1 && kGuardedLoads) tiles.guarded[W] = axpy_tile<1, W, true>;
    if constexpr (W > 1) {
        list_tiles<R, W - 1>(tiles);
    } else if constexpr (R > 1) {
        list_tiles<R - 1, kMaxTile / (R - 1)>(tiles);
    }
}

constexpr AxpyTiles make_tiles() {
    AxpyTiles tiles{};
    list_tiles<kMaxTileRows, kMaxTile / kMaxTileRows>(tiles);
    return tiles;
}

constexpr AxpyTiles kTiles = make_tiles();

}  // namespace
