// Windows: each value finds its input by a permutation of two vectors. Included after one of the headers of vectors and
// block.inc.h.

namespace {

struct LookUp {
    static constexpr int kGroup = 1;
    static constexpr bool kSharesWork = false;

    template <int Rows, int N, bool Guarded>
    static void add(const ExpandPlan& plan, const ExpandBlock& block, const Value* x, Sums (&sums)[N][Rows]) {
        const uint8_t *counts = plan.bits + block.bits, *places = plan.places + block.places;
        const int32_t* windows = plan.windows + block.windows;
        const Value* values = values_of(plan, block);
        for (int64_t step = 0; step < block.steps; ++step) {
            const Value* window = x + int64_t{windows[step]} * (2 * kLanes);
            Vec low[N], high[N];
            for (int s = 0; s < N; ++s) {
                low[s] = load(window + s * plan.pitch);
                high[s] = load(window + s * plan.pitch + kLanes);
            }
#pragma GCC unroll 8
            for (int row = 0; row < Rows; ++row) {
                const int count = counts[row];
                const Vec weight = load_first(values, count);
                for (int s = 0; s < N; ++s) {
                    const Vec found = look_up(places, low[s], high[s]);
                    sums[s][row] = dot(sums[s][row], weight, Guarded ? guarded(weight, found) : found);
                }
                values += count;
                places += count;
            }
            counts += Rows;
        }
    }
};

}  // namespace
