// The products: one weight tile against up to four tiles of 16 pixels.

namespace {

constexpr int kMaxTiles = 4;
// Registers 0 to 3 hold sums, 4 a weight tile; 5 to 7 take the pixels in turn, so that a load need not wait for a
// product. With one or two tiles of pixels, 7 takes every other weight tile.
constexpr int kWeightTile = 4, kFirstPixelTile = 5, kOtherWeightTile = 7;

// Tiles shorter than 16 pixels only where an image has no 16.
inline TileConfig tile_config(int64_t positions) {
    TileConfig config;
    for (int i = 0; i < kTileRegisters; ++i) {
        const bool is_whole = positions >= kTileRows || i == kWeightTile || i == kOtherWeightTile;
        config.rows[i] = is_whole ? kTileRows : static_cast<uint8_t>(positions);
        config.row_bytes[i] = kTileRowBytes;
    }
    return config;
}

struct MultiplyBf16 {
    using Sum = float;
    template <int Sums, int A, int B>
    static void dot() { tile_dot_bf16<Sums, A, B>(); }
};

struct MultiplyInt8 {
    using Sum = uint32_t;  // rows beyond the last pixel hold anything, and may wrap
    template <int Sums, int A, int B>
    static void dot() { tile_dot_u8s8<Sums, A, B>(); }
};

// Where the tiles of one group of pixels start; unused ones are null.
struct PixelTiles {
    const char* start[kMaxTiles];
};

// One weight tile against all tiles of pixels.
template <typename Multiply, int Tiles, int Chain>
inline void multiply_tile(const char* weights, uint32_t at, const PixelTiles& pixels, int64_t stride) {
    constexpr int kWeight = Chain % 2 == 0 ? kWeightTile : kOtherWeightTile;
    constexpr int kSums = Chain * Tiles;
    tile_load<kWeight>(weights, kTileRowBytes);
    tile_load<kFirstPixelTile>(pixels.start[0] + at, stride);
    Multiply::template dot<kSums, kFirstPixelTile, kWeight>();
    if constexpr (Tiles > 1) {
        tile_load<kFirstPixelTile + 1>(pixels.start[1] + at, stride);
        Multiply::template dot<kSums + 1, kFirstPixelTile + 1, kWeight>();
    }
    if constexpr (Tiles > 2) {
        tile_load<kFirstPixelTile + 2>(pixels.start[2] + at, stride);
        Multiply::template dot<kSums + 2, kFirstPixelTile + 2, kWeight>();
    }
    if constexpr (Tiles > 3) {
        tile_load<kFirstPixelTile>(pixels.start[3] + at, stride);
        Multiply::template dot<kSums + 3, kFirstPixelTile, kWeight>();
    }
}

// A product takes 52 cycles and one can start every 16: fewer than four tiles of pixels need several sums each.
template <int Tiles>
constexpr int kChains = Tiles <= 2 ? kMaxTiles / Tiles : 1;

// One row of blocks of the weight, 16 output channels; the sums stay in the registers.
template <typename Multiply, int Tiles>
void multiply_row(const uint32_t* offset, const uint32_t* end, const char* weights, PixelTiles pixels,
                  int64_t stride) {
    constexpr int kChain = kChains<Tiles>, kSums = kChain * Tiles;
    tile_zero<0>();
    if constexpr (kSums > 1) tile_zero<1>();
    if constexpr (kSums > 2) tile_zero<2>();
    if constexpr (kSums > 3) tile_zero<3>();
    for (; end - offset >= kChain; offset += kChain, weights += kChain * kTileBytes) {
        multiply_tile<Multiply, Tiles, 0>(weights, offset[0], pixels, stride);
        if constexpr (kChain > 1) multiply_tile<Multiply, Tiles, 1>(weights + kTileBytes, offset[1], pixels, stride);
        if constexpr (kChain > 2) {
            multiply_tile<Multiply, Tiles, 2>(weights + 2 * kTileBytes, offset[2], pixels, stride);
            multiply_tile<Multiply, Tiles, 3>(weights + 3 * kTileBytes, offset[3], pixels, stride);
        }
    }
    for (; kChain > 1 && offset != end; ++offset, weights += kTileBytes) {
        multiply_tile<Multiply, Tiles, 0>(weights, *offset, pixels, stride);
    }
}

// Sums of multiply_row to [Tiles][16][16] of 4 bytes, room for four.
template <typename Multiply, int Tiles>
void store_row(char* sums) {
    constexpr int kChain = kChains<Tiles>, kSums = kChain * Tiles;
    tile_store<0>(sums, kTileRowBytes);
    if constexpr (kSums > 1) tile_store<1>(sums + kTileBytes, kTileRowBytes);
    if constexpr (kSums > 2) tile_store<2>(sums + 2 * kTileBytes, kTileRowBytes);
    if constexpr (kSums > 3) tile_store<3>(sums + 3 * kTileBytes, kTileRowBytes);
    using Sum = typename Multiply::Sum;
    Sum* total = reinterpret_cast<Sum*>(sums);
    for (int i = 0; kChain > 1 && i < Tiles * kTileBytes / 4; ++i) {
        for (int chain = 1; chain < kChain; ++chain) total[i] += total[i + chain * Tiles * kTileBytes / 4];
    }
}

template <typename Multiply>
struct RowKernel {
    void (*multiply)(const uint32_t* offset, const uint32_t* end, const char* weights, PixelTiles pixels,
                     int64_t stride);
    void (*store)(char* sums);
};

// By tiles of pixels.
template <typename Multiply>
constexpr RowKernel<Multiply> kRowKernels[kMaxTiles + 1] = {{nullptr, nullptr},
                                                            {multiply_row<Multiply, 1>, store_row<Multiply, 1>},
                                                            {multiply_row<Multiply, 2>, store_row<Multiply, 2>},
                                                            {multiply_row<Multiply, 3>, store_row<Multiply, 3>},
                                                            {multiply_row<Multiply, 4>, store_row<Multiply, 4>}};

}  // namespace
