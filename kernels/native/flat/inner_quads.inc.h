// The inner kernel of small tiles: four output channels at a time, a non-zero of each in turn.
//
// A tile of a few vectors leaves room in level 1 for many input channels, so that a visit has long rows of non-zeros and
// sums seldom pass through memory. Alone, such a tile would be bound by what each non-zero and each end of a row cost:
// four channels of like length share one loop, and one load brings the values of all four. Included after inner.inc.h.

#include "flat/quad_run.inc.h"

namespace {

// A tile of R rows of W vectors; Guarded where the input is the caller's own memory and the tile reaches its end.
template <int R, int W, bool Guarded>
void quad_tile(const QuadRun& run, const Window& window, const QuadSums& sums) {
    const int64_t row_floats = window.row_floats, sums_row = sums.row_floats;
    const Scalar* const in = window.in;
    const sparseplan::Quad* quad = run.quads;
    for (int64_t i = 0; i < run.count; ++i) {
        const sparseplan::QuadRows& rows = run.sets[i];
        run.ahead->ask();
        float* to[4];
        Vec acc[4][R * W];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
            to[k] = sums.at + (rows.channel[k] - sums.first) * sums.channel_floats;
            if (run.bias != nullptr) {
                const Vec bias = broadcast(run.bias[rows.channel[k]]);
#pragma GCC unroll 8
                for (int t = 0; t < R * W; ++t) acc[k][t] = bias;
            } else {
#pragma GCC unroll 8
                for (int t = 0; t < R * W; ++t) acc[k][t] = load(to[k] + t / W * sums_row + t % W * kLanes);
            }
        }
        for (const sparseplan::Quad* const end = quad + rows.steps; quad != end; ++quad) {
            const Vec values = load_quad(quad->value);
            uint64_t low, high;
            std::memcpy(&low, quad->offset, sizeof low);
            std::memcpy(&high, quad->offset + 2, sizeof high);
            __asm__("" : "+r"(low), "+r"(high));  // else GCC makes four loads of them
            const Vec value[4] = {of_quad<0>(values), of_quad<1>(values), of_quad<2>(values), of_quad<3>(values)};
            const Scalar* const from[4] = {in + static_cast<uint32_t>(low), in + (low >> 32),
                                           in + static_cast<uint32_t>(high), in + (high >> 32)};
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) {
                const Scalar* row = from[k];
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r, row += row_floats) {
                    if constexpr (R > 1) keep_pointer(row);
#pragma GCC unroll 8
                    for (int w = 0; w < W; ++w) {
                        const Scalar* at = row + w * kLanes;
                        const bool is_last = Guarded && w == W - 1;
                        Vec& sum = acc[k][r * W + w];
                        sum = multiply_add(value[k], is_last ? load_first(at, window.last) : load(at), sum);
                    }
                }
            }
        }
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
#pragma GCC unroll 8
            for (int t = 0; t < R * W; ++t) {
                store(to[k] + t / W * sums_row + t % W * kLanes, run.rectifies ? positive(acc[k][t]) : acc[k][t]);
            }
        }
    }
}

template <int R, int W>
constexpr void list_quad_tiles(QuadTiles& tiles) {
    tiles.plain[R][W] = quad_tile<R, W, false>;
    if constexpr (R == 1 && kGuardedLoads) tiles.guarded[W] = quad_tile<1, W, true>;
    if constexpr (W > 1) {
        list_quad_tiles<R, W - 1>(tiles);
    } else if constexpr (R > 1) {
        list_quad_tiles<R - 1, kMaxQuad / (R - 1)>(tiles);
    }
}

constexpr QuadTiles make_quad_tiles() {
    QuadTiles tiles{};
    list_quad_tiles<kMaxQuad, 1>(tiles);
    return tiles;
}

constexpr QuadTiles kQuadTiles = make_quad_tiles();

}  // namespace
