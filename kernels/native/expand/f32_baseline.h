// Plain code over 8 floats, for any processor.
#pragma once

#include "expand/f32.h"

namespace {

constexpr int kLanes = 8;
struct Vec {
    float lane[kLanes];
};
using Sums = Vec;
using Choice = uint8_t;

inline Vec load(const Value* from) {
    Vec v;
    __builtin_memcpy(v.lane, from, sizeof v.lane);
    return v;
}
inline Sums no_sums() { return Sums{}; }
inline Sums dot(Sums sums, const Vec& weight, const Vec& x) {
    for (int i = 0; i < kLanes; ++i) sums.lane[i] += weight.lane[i] * x.lane[i];
    return sums;
}
// x where the weight is not zero, else zero: what a skipped weight makes of an infinity or a NaN.
inline Vec guarded(const Vec& weight, Vec x) {
    for (int i = 0; i < kLanes; ++i) x.lane[i] = weight.lane[i] != 0.0f ? x.lane[i] : 0.0f;
    return x;
}

inline void sum_rows(const Sums* rows, float* sums) {
    for (int row = 0; row < 4; ++row) {
        const float* lane = rows[row].lane;
        sums[row] = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
}

// The next values of the stream where a bit is set, zeros elsewhere.
inline Vec expand(const Value*& values, const uint8_t* bits) {
    Vec v;
    const unsigned stored = *bits;
    int next = 0;
    for (int i = 0; i < kLanes; ++i) {
        const int set = stored >> i & 1;
        v.lane[i] = set ? values[next] : 0.0f;
        next += set;
    }
    values += next;
    return v;
}

inline Choice load_bits(const uint8_t* from) { return *from; }
inline Vec pick(Choice bits, const Vec& unset, const Vec& set) {
    Vec v;
    for (int i = 0; i < kLanes; ++i) v.lane[i] = bits & 1 << i ? set.lane[i] : unset.lane[i];
    return v;
}

}  // namespace
