// What LDTILECFG reads (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, section 18.3).
#pragma once

#include <cstdint>

namespace {

constexpr int kTileRegisters = 8, kTileRows = 16, kTileRowBytes = 64;
constexpr int kTileBytes = kTileRows * kTileRowBytes;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace
