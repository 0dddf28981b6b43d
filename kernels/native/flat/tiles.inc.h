// The inner kernel, axpy_tile, for every size of a tile.

namespace {

using AxpyTile = void (*)(const Row& row, const Scalar* in, float* sums, int last);

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

}  // namespace
