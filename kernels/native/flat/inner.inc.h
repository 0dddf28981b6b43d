// The inner kernel: for each non-zero, one broadcast and a row of multiply-adds on shifted input.
//
// Park et al., Faster CNNs with direct sparse convolutions and guided pruning, ICLR 2017, section 2.1.

#include "flat/row.inc.h"

namespace {

// `last` floats of the last vector may be read where the input is the caller's own memory (Guarded).
template <int T, bool Guarded>
void axpy_tile(const Row& row, const float* in, float* sums, int last) {
    Vec acc[T];
    if (row.opens) {
        const Vec bias = broadcast(row.bias);
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = bias;
    } else {
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = load(sums + t * kLanes);
    }
    for (const sparseplan::Entry* entry = row.begin; entry != row.end; ++entry) {
        const Vec value = broadcast(entry->value);
        const float* shifted = in + entry->offset;
#pragma GCC unroll 32
        for (int t = 0; t < T - 1; ++t) acc[t] = multiply_add(value, load(shifted + t * kLanes), acc[t]);
        const float* end = shifted + (T - 1) * kLanes;
        acc[T - 1] = multiply_add(value, Guarded ? load_first(end, last) : load(end), acc[T - 1]);
    }
    if (row.closes) {
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = positive(acc[t]);
    }
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t) store(sums + t * kLanes, acc[t]);
}

}  // namespace

#include "flat/tiles.inc.h"
