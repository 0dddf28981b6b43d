// Sparse matrix times few vectors: a vector of rows at a time, the input gathered. Included after one of simd/*.h.

namespace {

// Steps of a slice that hold two lines of values and one of columns, and how far ahead they are prefetched, in floats.
constexpr int kSteps = 32 / kLanes, kAhead = 1024;

template <int Images>
inline void sell_step(const sparseplan::SellPlan& plan, int64_t step, const float* x, Vec (&acc)[Images]) {
    const Vec values = load(plan.values + step * kLanes);
    const Columns columns = load_columns(plan.columns + step * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < Images; ++i) acc[i] = multiply_add(values, gather(x + i * plan.c_in, columns), acc[i]);
}

// Rows of one slice for images [image, image + Images).
template <int Images>
void sell_slice(const sparseplan::SellPlan& plan, int64_t slice, int64_t image, const float* x, const float* residual,
                float* y) {
    const float* const first = x + image * plan.c_in;
    const int64_t end = plan.starts[slice + 1];
    int64_t step = plan.starts[slice];
    Vec acc[Images];
    for (int i = 0; i < Images; ++i) acc[i] = load(plan.bias + slice * kLanes);
    for (; step + kSteps <= end; step += kSteps) {
        const float* values = plan.values + step * kLanes + kAhead;
        __builtin_prefetch(values);
        __builtin_prefetch(values + 16);
        __builtin_prefetch(plan.columns + step * kLanes + kAhead);
#pragma GCC unroll 8
        for (int i = 0; i < kSteps; ++i) sell_step<Images>(plan, step + i, first, acc);
    }
    for (; step < end; ++step) sell_step<Images>(plan, step, first, acc);
    const int64_t* rows = plan.rows + slice * kLanes;
    for (int i = 0; i < Images; ++i) {
        const int64_t row = (image + i) * plan.c_out;
        float sums[kLanes];
        if (residual != nullptr) {
            for (int lane = 0; lane < kLanes; ++lane) sums[lane] = rows[lane] >= 0 ? residual[row + rows[lane]] : 0.0f;
            acc[i] = add(acc[i], load(sums));
        }
        store(sums, plan.relu ? positive(acc[i]) : acc[i]);
        for (int lane = 0; lane < kLanes && rows[lane] >= 0; ++lane) y[row + rows[lane]] = sums[lane];
    }
}

void run_sell(const sparseplan::SellPlan& plan, const float* x, const float* residual, float* y, int threads) {
    const int64_t chunk = plan.slices / (8 * threads) + 1;
    run_team(threads, [&] {
        share_dynamic(plan.slices, chunk, [&](int64_t slice) {
            int64_t image = 0;
            for (; image + 4 <= plan.n; image += 4) sell_slice<4>(plan, slice, image, x, residual, y);
            for (; image + 2 <= plan.n; image += 2) sell_slice<2>(plan, slice, image, x, residual, y);
            if (image < plan.n) sell_slice<1>(plan, slice, image, x, residual, y);
        });
    });
}

}  // namespace
