// Float32 arithmetic of the vector-sparse kernels: a word is one channel. Included after one of simd/*.h.
#pragma once

#include <cstdint>
#include <limits>

#include "vector/plan.h"

namespace {

struct Arithmetic {
    using Value = float;

    // What turns the sums of some output channels into values.
    struct Channels {
        Vec floor;  // 0 with the rectifier; a NaN stays one
    };
    static Channels channels(const sparseplan::VectorPlan& plan, int64_t) {
        return {broadcast(plan.relu ? 0.0f : -std::numeric_limits<float>::infinity())};
    }

    static Vec start(const float* bias) { return load(bias); }
    using Weights = Vec;
    static Weights weights(const uint32_t* from) { return load(reinterpret_cast<const float*>(from)); }
    static void accumulate(Vec& sums, Weights weights, Vec words) { sums = multiply_add(weights, words, sums); }

    static void put(Value* to, Vec sums, const Channels& channels) { store(to, at_least(channels.floor, sums)); }
    static void put_residual(Value* to, Vec sums, const Value* residual, const Channels& channels) {
        put(to, add(sums, load(residual)), channels);
    }
    // The first `count` lanes; `residual` may be null.
    static void put_first(Value* to, Vec sums, const Value* residual, int count, const Channels& channels) {
        if (residual != nullptr) sums = add(sums, load_first(residual, count));
        store_first(to, at_least(channels.floor, sums), count);
    }
};

}  // namespace
