// Sparse matrix times few vectors: a vector of rows at a time, the input gathered. Included after one of simd/*.h.

namespace {

// Rows of one slice for images [image, image + Images).
template <int Images>
void sell_slice(const sparseplan::SellPlan& plan, int64_t slice, int64_t image, const float* x, const float* residual,
                float* y) {
    Vec acc[Images];
    for (int i = 0; i < Images; ++i) acc[i] = load(plan.bias + slice * kLanes);
    for (int64_t step = plan.starts[slice]; step < plan.starts[slice + 1]; ++step) {
        const Vec values = load(plan.values + step * kLanes);
        const Columns columns = load_columns(plan.columns + step * kLanes);
#pragma GCC unroll 4
        for (int i = 0; i < Images; ++i) {
            acc[i] = multiply_add(values, gather(x + (image + i) * plan.c_in, columns), acc[i]);
        }
    }
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
