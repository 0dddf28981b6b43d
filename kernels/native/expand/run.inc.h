// Product of compressed weights and a small batch; see expand/plan.h. Included after one of the headers of vectors,
// deal.inc.h and the formats.

namespace {

struct Ends {
    const Value* residual;
    Value* y;
};

template <typename Format, int Rows, int N, bool Guarded>
void run_block(const ExpandPlan& plan, int64_t block, int64_t sample, const Value* x, Ends ends) {
    Sums sums[N][Rows];
    for (auto& rows : sums) {
        for (Sums& sum : rows) sum = no_sums();
    }
    Format::template add<Rows, N, Guarded>(plan, plan.starts[block], x + sample * plan.pitch, sums);
    const int64_t first = block * Rows, rows = plan.c_out - first < Rows ? plan.c_out - first : Rows;
    for (int s = 0; s < N; ++s) {
        float totals[Rows];
        for (int row = 0; row < Rows; row += 4) sum_rows(sums[s] + row, totals + row);
        const int64_t at = (sample + s) * plan.c_out + first;
        for (int64_t row = 0; row < rows; ++row) {
            float total = totals[row] + plan.bias[first + row];
            if (ends.residual != nullptr) total += to_float(ends.residual[at + row]);
            ends.y[at + row] = from_float(plan.relu && total < 0.0f ? 0.0f : total);
        }
    }
}

// All samples of a block, whose weights stay in the caches meanwhile.
template <typename Format, int Rows>
void run_samples(const ExpandPlan& plan, int64_t block, const Value* x, Ends ends) {
    int64_t s = 0;
    if constexpr (Rows == kFewRows) {
        for (; s + 4 <= plan.n; s += 4) run_block<Format, Rows, 4, false>(plan, block, s, x, ends);
        if (s + 3 == plan.n) return run_block<Format, Rows, 3, false>(plan, block, s, x, ends);
    }
    for (; s + 2 <= plan.n; s += 2) run_block<Format, Rows, 2, false>(plan, block, s, x, ends);
    if (s < plan.n) run_block<Format, Rows, 1, false>(plan, block, s, x, ends);
}

template <typename Format, int Rows>
void run_share(const ExpandPlan& plan, int64_t begin, int64_t end, const Value* x, bool finite, Ends ends) {
    for (int64_t block = begin; block < end; ++block) {
        if (finite) {
            run_samples<Format, Rows>(plan, block, x, ends);
        } else {
            for (int64_t s = 0; s < plan.n; ++s) run_block<Format, Rows, 1, true>(plan, block, s, x, ends);
        }
    }
}

// The first block of one of `pieces` consecutive shares of about equal bytes.
inline int64_t first_block(const ExpandPlan& plan, int64_t piece, int64_t pieces) {
    if (piece == pieces) return plan.blocks;
    const auto bytes_before = [&](int64_t block) {
        const ExpandBlock& start = plan.starts[block];
        return start.bits + start.places + start.values * int64_t{sizeof(Value)};
    };
    const int64_t wanted = bytes_before(plan.blocks) / pieces * piece;
    int64_t low = 0, high = plan.blocks;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (bytes_before(middle) < wanted) low = middle + 1;
        else high = middle;
    }
    return low;
}

template <typename Format>
void run_expand(const ExpandPlan& plan, const void* x, const void* residual, void* y, int threads) {
    const Value* from = static_cast<const Value*>(x);
    const Ends ends{static_cast<const Value*>(residual), static_cast<Value*>(y)};
    run_team(threads, [&] {
        const int64_t floats = plan.n * plan.pitch * int64_t{sizeof(Value)} / int64_t{sizeof(float)};
        Value* dealt = reinterpret_cast<Value*>(sparseplan::thread_scratch(sparseplan::Slot::input, floats));
        bool finite = true;
        for (int64_t s = 0; s < plan.n; ++s) {
            finite &= deal<Format::kGroup>(from + s * plan.c_in, plan.c_in, plan.pitch, dealt + s * plan.pitch);
        }
        share_static(threads, [&](int64_t piece) {
            const int64_t begin = first_block(plan, piece, threads), end = first_block(plan, piece + 1, threads);
            if constexpr (Format::kSharesWork) {
                if (plan.rows == kFewRows) return run_share<Format, kFewRows>(plan, begin, end, dealt, finite, ends);
            }
            run_share<Format, kManyRows>(plan, begin, end, dealt, finite, ends);
        });
    });
}

}  // namespace
