#include "ceilings/table.h"
#include "simd/amx.h"

namespace sparseplan {
namespace {

// Four chains of products of zeros: 16 cycles each, 52 until the next of its chain may start. Zeros cost what other
// numbers do.
template <typename Products>
double tile_work(int64_t rounds, Products products) {
    TileConfig config;
    for (int i = 0; i < kTileRegisters; ++i) {
        config.rows[i] = kTileRows;
        config.row_bytes[i] = kTileRowBytes;
    }
    tile_configure(config);
    for (int64_t round = 0; round < rounds; ++round) products();
    tile_release();
    return 4.0 * kTileRows * kTileBytes * static_cast<double>(rounds);  // of one flop a byte of B and row of A
}

}  // namespace

double amx_bf16_work(int64_t rounds) {
    return tile_work(rounds, [] {
        tile_dot_bf16<0, 4, 5>();
        tile_dot_bf16<1, 4, 5>();
        tile_dot_bf16<2, 4, 5>();
        tile_dot_bf16<3, 4, 5>();
    });
}

double amx_int8_work(int64_t rounds) {
    return 2.0 * tile_work(rounds, [] {
        tile_dot_u8s8<0, 4, 5>();
        tile_dot_u8s8<1, 4, 5>();
        tile_dot_u8s8<2, 4, 5>();
        tile_dot_u8s8<3, 4, 5>();
    });
}

}  // namespace sparseplan
