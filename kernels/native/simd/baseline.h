// Vectors of 4 floats in the compiler's own vector language: SSE2 on x86-64, NEON on ARM.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

typedef float Vec __attribute__((vector_size(16)));
using Scalar = float;
using Columns = const uint16_t*;
constexpr int kLanes = 4;
constexpr int kMaxTile = 12;  // of 16 registers, one holds the broadcast value and one or two the products
constexpr int kMaxQuad = 2;   // of a quarter of the registers, with a quad, a value in every lane and a product
constexpr bool kGuardedLoads = false;  // load_first is a loop

inline Vec zero() { return Vec{}; }
inline Vec broadcast(float value) { return Vec{value, value, value, value}; }
inline Vec broadcast_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return broadcast(value);
}
inline Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
// Four floats, and one of them in every lane.
inline Vec load_quad(const float* from) { return load(from); }
template <int Lane>
inline Vec of_quad(Vec quad) {
    return broadcast(quad[Lane]);
}
inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }
// No stores past the caches in the compiler's own vectors.
inline void stream(float* to, Vec v) { store(to, v); }
inline void stream_fence() {}
inline Vec multiply_add(Vec a, Vec b, Vec c) { return a * b + c; }
inline Vec load_sums(const float* from) { return load(from); }
// A NaN stays one, as in torch.
inline Vec positive(Vec v) { return v < zero() ? zero() : v; }
inline Vec at_least(Vec floor, Vec v) { return v < floor ? floor : v; }
inline Vec add(Vec a, Vec b) { return a + b; }

inline Vec load_first(const float* from, int count) {
    Vec v{};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
}
inline void store_first(float* to, Vec v, int count) {
    for (int i = 0; i < count; ++i) to[i] = v[i];
}

// lanes[source], or `otherwise` where the source is negative.
using LaneOrder = const int32_t*;
inline LaneOrder lane_order(const int32_t* source) { return source; }
inline Vec pick(Vec lanes, LaneOrder source, Vec otherwise) {
    for (int i = 0; i < kLanes; ++i) {
        if (source[i] >= 0) otherwise[i] = lanes[source[i]];
    }
    return otherwise;
}

inline Columns load_columns(const uint16_t* from) { return from; }
inline Vec gather(const float* from, Columns columns) {
    return Vec{from[columns[0]], from[columns[1]], from[columns[2]], from[columns[3]]};
}

inline void transpose(Vec (&v)[4]) {
    const Vec a = v[0], b = v[1], c = v[2], d = v[3];
    for (int i = 0; i < 4; ++i) v[i] = Vec{a[i], b[i], c[i], d[i]};
}

}  // namespace
