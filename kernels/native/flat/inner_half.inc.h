// The inner kernel in half precision: short runs of products are summed in half, the runs in float.
//
// A run's rounding errors grow with its length (see kernels/reference.py), widening its sums costs as much as four
// products: 32 products a run keep both small. The two halves of an entry's value are equal, so that a broadcast of 32
// bits fills the lanes.

#include "flat/axpy.inc.h"

namespace {

constexpr int64_t kRunProducts = 32;

// sums = (bias or sums) + run, then the rectifier. The run passes through memory: a conversion of half a register needs
// a shuffle, that of a load does not.
template <int T>
inline void add_run(const Vec (&run)[T], const float* bias, bool rectifies, float* sums) {
    alignas(64) Scalar halves[T * kLanes];
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t) store(halves + t * kLanes, run[t]);
    const Wide start = broadcast_wide(bias == nullptr ? 0.0f : *bias);
#pragma GCC unroll 4
    for (int i = 0; i < T * kLanes; i += kWideLanes) {
        const Wide sum = add(bias == nullptr ? load_wide(sums + i) : start, widen(halves + i));
        store(sums + i, rectifies ? positive(sum) : sum);
    }
}

// A tile of R rows of W vectors; Guarded where the input is the caller's own memory and the tile reaches its end.
template <int R, int W, bool Guarded>
void axpy_tile(const Rows& rows, const Window& window, float* sums, int64_t sums_stride) {
    constexpr int kSums = R * W;
    const int64_t row_floats = window.row_floats;
    Entries entries(rows.entries + rows.starts[0]);
    for (int64_t k = 0; k < rows.channels; ++k, sums += sums_stride) {
        const sparseplan::Entry* const row_end = rows.entries + rows.starts[k + 1];
        const int64_t count = row_end - entries.at();
        // Runs of like length: a last one of few products would cost as much to widen as a long one.
        int64_t runs = 1, length = count;
        if (count > kRunProducts) {
            runs = (count + kRunProducts - 1) / kRunProducts;
            length = (count + runs - 1) / runs;
        }
        const float* bias = rows.bias == nullptr ? nullptr : rows.bias + k;
        for (int64_t run = 1; run <= runs; ++run, bias = nullptr) {
            const sparseplan::Entry* const end = run == runs ? row_end : entries.at() + length;
            Vec acc[kSums];
#pragma GCC unroll 32
            for (int t = 0; t < kSums; ++t) acc[t] = zero();
            while (entries.at() != end) axpy<R, W, Guarded>(entries.take(), window, row_floats, acc);
            add_run<kSums>(acc, bias, rows.rectifies && run == runs, sums);
        }
    }
}

}  // namespace

#include "flat/tiles.inc.h"
#include "flat/no_quads.inc.h"
