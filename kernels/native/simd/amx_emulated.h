// The functions of amx.h on any CPU, for tests: rows and row bytes count as the manual says, and an operation that the
// hardware would refuse (#UD) aborts.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "simd/tile_config.h"

namespace {

struct TileRegister {
    int rows, row_bytes;
    unsigned char data[kTileRows][kTileRowBytes];
};

struct TileFile {
    bool is_configured;
    TileRegister registers[kTileRegisters];
};

thread_local TileFile tile_file;

inline void tile_check(bool holds) {
    if (!holds) std::abort();
}

inline TileRegister& tile_register(int index) {
    TileRegister& tile = tile_file.registers[index];
    tile_check(tile_file.is_configured && tile.rows > 0 && tile.row_bytes > 0);
    return tile;
}

inline void tile_configure(const TileConfig& config) {
    tile_check(config.palette == 1 && config.start_row == 0);
    std::memset(&tile_file, 0, sizeof tile_file);
    tile_file.is_configured = true;
    for (int i = 0; i < kTileRegisters; ++i) {
        TileRegister& tile = tile_file.registers[i];
        tile.rows = config.rows[i];
        tile.row_bytes = config.row_bytes[i];
        tile_check(tile.rows <= kTileRows && tile.row_bytes <= kTileRowBytes && (tile.rows == 0) == (tile.row_bytes == 0));
    }
}

inline void tile_release() { std::memset(&tile_file, 0, sizeof tile_file); }

template <int Tile>
inline void tile_zero() {
    std::memset(tile_register(Tile).data, 0, kTileBytes);
}

template <int Tile>
inline void tile_load(const void* from, int64_t stride) {
    TileRegister& tile = tile_register(Tile);
    std::memset(tile.data, 0, kTileBytes);
    for (int row = 0; row < tile.rows; ++row) {
        std::memcpy(tile.data[row], static_cast<const char*>(from) + row * stride, tile.row_bytes);
    }
}

template <int Tile>
inline void tile_store(void* to, int64_t stride) {
    const TileRegister& tile = tile_register(Tile);
    for (int row = 0; row < tile.rows; ++row) {
        std::memcpy(static_cast<char*>(to) + row * stride, tile.data[row], tile.row_bytes);
    }
}

// One step along the reduction: 4 bytes of a row of A and of a column of B, added to a sum.
template <typename Sum, typename Multiply>
inline void tile_dot(int sums_index, int a_index, int b_index, Multiply multiply) {
    TileRegister& sums = tile_register(sums_index);
    const TileRegister &a = tile_register(a_index), &b = tile_register(b_index);
    tile_check(sums_index != a_index && sums_index != b_index && a_index != b_index);
    tile_check(sums.rows == a.rows && sums.row_bytes == b.row_bytes && a.row_bytes == 4 * b.rows);
    for (int m = 0; m < a.rows; ++m) {
        for (int k = 0; k < b.rows; ++k) {
            for (int n = 0; n < b.row_bytes; n += 4) {
                Sum sum;
                std::memcpy(&sum, sums.data[m] + n, sizeof sum);
                sum = multiply(sum, a.data[m] + 4 * k, b.data[k] + n);
                std::memcpy(sums.data[m] + n, &sum, sizeof sum);
            }
        }
    }
}

inline float widen_bf16(const unsigned char* from) {
    uint16_t half;
    std::memcpy(&half, from, sizeof half);
    const uint32_t bits = uint32_t{half} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <int Sums, int A, int B>
inline void tile_dot_bf16() {
    tile_dot<float>(Sums, A, B, [](float sum, const unsigned char* a, const unsigned char* b) {
        sum += widen_bf16(a) * widen_bf16(b);
        return sum + widen_bf16(a + 2) * widen_bf16(b + 2);
    });
}

template <int Sums, int A, int B>
inline void tile_dot_u8s8() {
    tile_dot<uint32_t>(Sums, A, B, [](uint32_t sum, const unsigned char* a, const unsigned char* b) {
        for (int i = 0; i < 4; ++i) sum += static_cast<uint32_t>(int{a[i]} * int{static_cast<signed char>(b[i])});
        return sum;
    });
}

}  // namespace
