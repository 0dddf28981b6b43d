// Vectors of 8 floats, two of the compiler's own each, for any processor.
#pragma once

#include "expand/f32.h"

namespace {

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadBits __attribute__((vector_size(16)));

struct Vec {
    Quad low, high;
};
using Sums = Vec;
struct Choice {
    QuadBits low, high;  // all ones or all zeros in a lane
};
constexpr int kLanes = 8;

inline Vec load(const Value* from) {
    Vec v;
    __builtin_memcpy(&v.low, from, sizeof v.low);
    __builtin_memcpy(&v.high, from + 4, sizeof v.high);
    return v;
}
inline Sums no_sums() { return Sums{}; }
inline Sums dot(Sums sums, Vec weight, Vec x) {
    return {sums.low + weight.low * x.low, sums.high + weight.high * x.high};
}

inline Quad where(QuadBits mask, Quad set, Quad unset) {
    return reinterpret_cast<Quad>((mask & reinterpret_cast<QuadBits>(set)) |
                                  (~mask & reinterpret_cast<QuadBits>(unset)));
}
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(Vec weight, Vec x) {
    const Quad zero{};
    return {where(weight.low != zero, x.low, zero), where(weight.high != zero, x.high, zero)};
}

inline void sum_rows(const Sums* rows, float* sums) {
    for (int row = 0; row < 4; ++row) {
        const Quad four = rows[row].low + rows[row].high;
        sums[row] = (four[0] + four[1]) + (four[2] + four[3]);
    }
}

inline Choice load_bits(const uint8_t* from) {
    const QuadBits low = {1, 2, 4, 8}, high = {16, 32, 64, 128};
    const int32_t bits = *from;
    const QuadBits all = {bits, bits, bits, bits};
    return {(all & low) == low, (all & high) == high};
}
inline Vec pick(Choice bits, Vec unset, Vec set) {
    return {where(bits.low, set.low, unset.low), where(bits.high, set.high, unset.high)};
}

}  // namespace
