// Float32 arithmetic of the vector-sparse kernels: a word is one channel. Included after one of simd/*.h.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct Arithmetic {
    using Value = float;
    using Sums = Vec;

    static Sums start(const float* bias) { return load(bias); }
    static Vec weights(const uint32_t* from) { return load(reinterpret_cast<const float*>(from)); }
    static void accumulate(Sums& sums, Vec weights, const char* word) {
        sums = multiply_add(weights, broadcast(*reinterpret_cast<const float*>(word)), sums);
    }
    static Vec floats(Sums sums) { return sums; }
    static Vec load_values(const Value* from) { return load(from); }
    static void store_values(Value* to, Vec v) { store(to, v); }
    static Vec load_first_values(const Value* from, int count) { return load_first(from, count); }
    static void store_first_values(Value* to, Vec v, int count) { store_first(to, v, count); }
};

}  // namespace
