// The products: one weight tile against up to four tiles of 16 pixels.

namespace {

constexpr int kMaxTiles = 4;
// Registers 0 to 3 hold the sums; 5 to 7 take the pixels in turn, so that a load need not wait for a product.
constexpr int kWeightTile = 4, kFirstPixelTile = 5, kPixelTiles = 3;

// Tiles shorter than 16 pixels only where an image has no 16.
inline TileConfig tile_config(int64_t positions) {
    TileConfig config;
    for (int i = 0; i < kTileRegisters; ++i) {
        config.rows[i] = i == kWeightTile || positions >= kTileRows ? kTileRows : static_cast<uint8_t>(positions);
        config.row_bytes[i] = kTileRowBytes;
    }
    return config;
}

struct MultiplyBf16 {
    template <int Sums, int A, int B>
    static void dot() { tile_dot_bf16<Sums, A, B>(); }
};

struct MultiplyInt8 {
    template <int Sums, int A, int B>
    static void dot() { tile_dot_u8s8<Sums, A, B>(); }
};

// Where the tiles of one group of pixels start; unused ones are null.
struct PixelTiles {
    const char* start[kMaxTiles];
};

// One row of blocks of the weight: 16 output channels. Sums go to [Tiles][16][16] of 4 bytes.
template <typename Multiply, int Tiles>
void multiply_row(const uint32_t* offset, const uint32_t* end, const char* weights, const PixelTiles& pixels,
                  int64_t stride, char* sums) {
    const char *const first = pixels.start[0], *const second = pixels.start[1];
    const char *const third = pixels.start[2], *const fourth = pixels.start[3];
    tile_zero<0>();
    if (Tiles > 1) tile_zero<1>();
    if (Tiles > 2) tile_zero<2>();
    if (Tiles > 3) tile_zero<3>();
    for (; offset != end; ++offset, weights += kTileBytes) {
        const uint32_t at = *offset;
        tile_load<kWeightTile>(weights, kTileRowBytes);
        tile_load<kFirstPixelTile>(first + at, stride);
        Multiply::template dot<0, kFirstPixelTile, kWeightTile>();
        if (Tiles > 1) {
            tile_load<kFirstPixelTile + 1>(second + at, stride);
            Multiply::template dot<1, kFirstPixelTile + 1, kWeightTile>();
        }
        if (Tiles > 2) {
            tile_load<kFirstPixelTile + 2>(third + at, stride);
            Multiply::template dot<2, kFirstPixelTile + 2, kWeightTile>();
        }
        if (Tiles > 3) {
            tile_load<kFirstPixelTile>(fourth + at, stride);
            Multiply::template dot<3, kFirstPixelTile, kWeightTile>();
        }
    }
    tile_store<0>(sums, kTileRowBytes);
    if (Tiles > 1) tile_store<1>(sums + kTileBytes, kTileRowBytes);
    if (Tiles > 2) tile_store<2>(sums + 2 * kTileBytes, kTileRowBytes);
    if (Tiles > 3) tile_store<3>(sums + 3 * kTileBytes, kTileRowBytes);
}

template <typename Multiply>
void multiply_row(int tiles, const uint32_t* offset, const uint32_t* end, const char* weights, const PixelTiles& pixels,
                  int64_t stride, char* sums) {
    switch (tiles) {
        case 1: return multiply_row<Multiply, 1>(offset, end, weights, pixels, stride, sums);
        case 2: return multiply_row<Multiply, 2>(offset, end, weights, pixels, stride, sums);
        case 3: return multiply_row<Multiply, 3>(offset, end, weights, pixels, stride, sums);
        default: return multiply_row<Multiply, 4>(offset, end, weights, pixels, stride, sums);
    }
}

}  // namespace
