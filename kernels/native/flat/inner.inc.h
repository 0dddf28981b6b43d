// The inner kernel: for each non-zero, one broadcast and a tile of multiply-adds on shifted input.
//
// Park et al., Faster CNNs with direct sparse convolutions and guided pruning, ICLR 2017, section 2.1.

#include "flat/axpy.inc.h"

namespace {

// A sum waits about 4 cycles for the last addition to it, and a core makes up to two a cycle: small tiles deal their
// non-zeros out to several sums.
constexpr int chains_of(int vectors) { return vectors >= 8 ? 1 : vectors >= 4 ? 2 : 4; }

// The non-zeros of small tiles pass fast enough to come late from memory; the hardware prefetches within pages only.
constexpr int kPrefetchBytes = 2048;

// A tile of R rows of W vectors; Guarded where the input is the caller's own memory and the tile reaches its end.
// A loop over the channels in here rather than around it: a call for each would cost as much as half a non-zero.
template <int R, int W, bool Guarded>
void axpy_tile(const Rows& rows, const Window& window, float* sums, int64_t sums_stride) {
    constexpr int kSums = R * W, kChains = chains_of(kSums);
    const int64_t row_floats = window.row_floats, channels = rows.channels;
    const int64_t* const starts = rows.starts;
    const float* const biases = rows.bias;
    const bool rectifies = rows.rectifies;
    Entries entries(rows.entries + starts[0]);
    for (int64_t k = 0; k < channels; ++k, sums += sums_stride) {
        const sparseplan::Entry* const end = rows.entries + starts[k + 1];
        Vec acc[kChains][kSums];
        if (biases != nullptr) {
            const Vec bias = broadcast(biases[k]);
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[0][t] = bias;
        } else {
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[0][t] = load(sums + t * kLanes);
        }
        if constexpr (kChains > 1) {
#pragma GCC unroll 32
            for (int t = kSums; t < kChains * kSums; ++t) acc[t / kSums][t % kSums] = zero();
            while (end - entries.at() >= kChains) {
                __builtin_prefetch(reinterpret_cast<const char*>(entries.at()) + kPrefetchBytes);
#pragma GCC unroll 8
                for (int chain = 0; chain < kChains; ++chain) {
                    axpy<R, W, Guarded>(entries.take(), window, row_floats, acc[chain]);
                }
            }
        }
        while (entries.at() != end) axpy<R, W, Guarded>(entries.take(), window, row_floats, acc[0]);
#pragma GCC unroll 32
        for (int t = kSums; t < kChains * kSums; ++t) acc[0][t % kSums] = add(acc[0][t % kSums], acc[t / kSums][t % kSums]);
        if (rectifies) {
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[0][t] = positive(acc[0][t]);
        }
#pragma GCC unroll 32
        for (int t = 0; t < kSums; ++t) store(sums + t * kLanes, acc[0][t]);
    }
}

}  // namespace

#include "flat/tiles.inc.h"
