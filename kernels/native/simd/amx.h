// AMX: eight tile registers of 16 rows of 64 bytes. Inline assembly, as GCC's intrinsics print their arguments and so
// cannot take a register number from a template. amx_emulated.h has the same functions for any CPU.
#pragma once

#include <cstdint>

#include "simd/tile_config.h"

namespace {

// All registers are zero afterwards.
inline void tile_configure(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" ::"m"(config)); }
inline void tile_release() { __asm__ volatile("tilerelease"); }

template <int Tile>
inline void tile_zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(Tile));
}

// Rows `stride` bytes apart.
template <int Tile>
inline void tile_load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
inline void tile_store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
}

// sums[m][n] += sum over pairs k of a[m][k] * b[k / 2][n][k % 2]: bfloat16, in float32.
template <int Sums, int A, int B>
inline void tile_dot_bf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(B));
}

// sums[m][n] += sum over quads k of a[m][k] * b[k / 4][n][k % 4]: unsigned times signed bytes, in int32.
template <int Sums, int A, int B>
inline void tile_dot_u8s8() {
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(B));
}

}  // namespace
