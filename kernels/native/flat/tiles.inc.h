// The inner kernel, axpy_tile, for every size of a tile.

namespace {

using AxpyTile = void (*)(const Rows& rows, const Window& window, float* sums, int64_t sums_stride);

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
