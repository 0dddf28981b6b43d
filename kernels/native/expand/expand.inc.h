// Bitmaps: the values of a row are expanded to where its bits are set. Included after one of the headers of vectors and
// block.inc.h.

namespace {

struct Expand {
    static constexpr int kGroup = 1;
    // Four samples share one expansion; the sums of many rows of them would not fit into the registers.
    static constexpr bool kSharesWork = true;

    template <int Rows, int N, bool Guarded>
    static void add(const ExpandPlan& plan, const ExpandBlock& block, const Value* x, Sums (&sums)[N][Rows]) {
        if (block.few_values) {
            add_steps<Rows, N, Guarded, true>(plan, block, x, sums);
        } else {
            add_steps<Rows, N, Guarded, false>(plan, block, x, sums);
        }
    }

  private:
    template <int Rows, int N, bool Guarded, bool Few>
    static void add_steps(const ExpandPlan& plan, const ExpandBlock& block, const Value* x, Sums (&sums)[N][Rows]) {
        const uint8_t* bits = plan.bits + block.bits;
        const int32_t* windows = plan.windows + block.windows;
        const Value* values = values_of(plan, block);
        for (int64_t step = 0; step < block.steps; ++step) {
            Vec inputs[N];
            const Value* window = x + int64_t{windows[step]} * kLanes;
            for (int s = 0; s < N; ++s) inputs[s] = load(window + s * plan.pitch);
#pragma GCC unroll 8
            for (int row = 0; row < Rows; ++row) {
                const Vec weight = expand<Few>(values, bits + row * kBitBytes);
                for (int s = 0; s < N; ++s) {
                    sums[s][row] = dot(sums[s][row], weight, Guarded ? guarded(weight, inputs[s]) : inputs[s]);
                }
            }
            bits += Rows * kBitBytes;
        }
    }
};

}  // namespace
