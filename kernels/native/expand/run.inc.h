// Product of compressed weights and a small batch; see expand/plan.h. Included after one of the headers of vectors.

namespace {

using sparseplan::ExpandPlan;
using sparseplan::kExpandRows;

// Packed weights run this many bytes ahead of the loop.
#ifndef AHEAD
#define AHEAD 2048
#endif
constexpr int64_t kAhead = AHEAD;

template <int Group>
constexpr int kSelectBits = Group == 8 ? 3 : Group == 4 ? 2 : Group == 2 ? 1 : 0;

// Deals one sample out into [steps][Group][kLanes], the rest zeros; returns whether all of it is finite.
template <int Group>
bool deal(const Value* x, int64_t c_in, int64_t steps, Value* to) {
    bool finite = true;
    for (int64_t c = 0; c < c_in; ++c) finite &= is_finite(x[c]);
    const int64_t whole = c_in / (kLanes * Group);
    for (int64_t step = 0; step < whole; ++step) {
        for (int64_t j = 0; j < Group; ++j) {
            for (int64_t lane = 0; lane < kLanes; ++lane) to[j * kLanes + lane] = x[lane * Group + j];
        }
        x += kLanes * Group;
        to += kLanes * Group;
    }
    if (whole == steps) return finite;
    const int64_t left = c_in - whole * kLanes * Group;
    for (int64_t i = 0; i < kLanes * Group; ++i) to[i] = Value{};
    for (int64_t i = 0; i < left; ++i) to[i % Group * kLanes + i / Group] = x[i];
    return finite;
}

template <int Group>
inline Vec choose(const Vec* planes, const Bits* bits) {
    if constexpr (Group == 1) {
        return planes[0];
    } else {
        constexpr int kHalf = Group / 2;
        return pick(bits[kSelectBits<Group> - 1], choose<kHalf>(planes, bits), choose<kHalf>(planes + kHalf, bits));
    }
}

inline void prefetch(const void* from) { __builtin_prefetch(static_cast<const char*>(from) + kAhead); }

// Sums of the rows of a block for `N` samples, whose dealt-out inputs lie `pitch` values apart.
template <int Group, int N, bool Guarded>
inline void add_block(const ExpandPlan& plan, int64_t block, const Value* x, int64_t pitch,
                      Sums (&sums)[kExpandRows][N]) {
    constexpr int kBits = kSelectBits<Group>;
    const uint8_t* bits = plan.bits + plan.bit_starts[block];
    const Value* values = static_cast<const Value*>(plan.values) + plan.value_starts[block];
    const int64_t slots =
        Group == 1 ? 1
                   : (plan.value_starts[block + 1] - plan.value_starts[block]) / (plan.steps * kExpandRows * kLanes);
    for (int64_t step = 0; step < plan.steps; ++step, x += kLanes * Group) {
        for (int64_t slot = 0; slot < slots; ++slot) {
            prefetch(bits);
#pragma GCC unroll 4
            for (int row = 0; row < kExpandRows; ++row) {
                Vec weight;
                Bits which[kBits + 1];
                prefetch(values);
                if constexpr (Group == 1) {
                    which[0] = load_bits(bits);
                    bits += kBitBytes;
                    weight = expand(values, which[0]);
                    values += count(which[0]);
                } else {
#pragma GCC unroll 3
                    for (int i = 0; i < kBits; ++i) which[i] = load_bits(bits + i * kBitBytes);
                    bits += kBits * kBitBytes;
                    weight = load(values);
                    values += kLanes;
                }
#pragma GCC unroll 4
                for (int sample = 0; sample < N; ++sample) {
                    Vec planes[Group];
#pragma GCC unroll 8
                    for (int j = 0; j < Group; ++j) planes[j] = load(x + sample * pitch + j * kLanes);
                    const Vec chosen = choose<Group>(planes, which);
                    sums[row][sample] = dot(sums[row][sample], weight, Guarded ? guarded(weight, chosen) : chosen);
                }
            }
        }
    }
}

template <int Group, int N, bool Guarded>
void run_block(const ExpandPlan& plan, int64_t block, int64_t sample, const Value* x, const Value* residual,
               Value* y) {
    Sums sums[kExpandRows][N];
    for (auto& row : sums) {
        for (Sums& sum : row) sum = no_sums();
    }
    const int64_t pitch = plan.steps * Group * kLanes, first = block * kExpandRows;
    add_block<Group, N, Guarded>(plan, block, x + sample * pitch, pitch, sums);
    const int64_t rows = plan.c_out - first < kExpandRows ? plan.c_out - first : kExpandRows;
    for (int s = 0; s < N; ++s) {
        float totals[kExpandRows];
        sum_rows(sums[0][s], sums[1][s], sums[2][s], sums[3][s], totals);
        const int64_t at = (sample + s) * plan.c_out + first;
        for (int64_t row = 0; row < rows; ++row) {
            float total = totals[row] + plan.bias[first + row];
            if (residual != nullptr) total += to_float(residual[at + row]);
            y[at + row] = from_float(plan.relu && total < 0.0f ? 0.0f : total);
        }
    }
}

// The first block of one of `pieces` consecutive shares of about equal bytes.
inline int64_t first_block(const ExpandPlan& plan, int64_t piece, int64_t pieces) {
    const auto bytes_before = [&](int64_t block) {
        return plan.bit_starts[block] + plan.value_starts[block] * int64_t{sizeof(Value)};
    };
    const int64_t wanted = bytes_before(plan.blocks) / pieces * piece;
    if (piece == pieces) return plan.blocks;
    int64_t low = 0, high = plan.blocks;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (bytes_before(middle) < wanted) low = middle + 1;
        else high = middle;
    }
    return low;
}

template <int Group>
void run_expand(const ExpandPlan& plan, const void* x, const void* residual, void* y, int threads) {
    const Value *from = static_cast<const Value*>(x), *added = static_cast<const Value*>(residual);
    Value* to = static_cast<Value*>(y);
    const int64_t pitch = plan.steps * Group * kLanes;
    run_team(threads, [&] {
        const int64_t floats = (plan.n * pitch * int64_t{sizeof(Value)} + 3) / 4;
        Value* dealt = reinterpret_cast<Value*>(sparseplan::thread_scratch(sparseplan::Slot::input, floats));
        bool finite = true;
        for (int64_t s = 0; s < plan.n; ++s) {
            finite &= deal<Group>(from + s * plan.c_in, plan.c_in, plan.steps, dealt + s * pitch);
        }
        share_static(threads, [&](int64_t piece) {
            const int64_t end = first_block(plan, piece + 1, threads);
            for (int64_t block = first_block(plan, piece, threads); block < end; ++block) {
                int64_t s = 0;
                if (finite) {
                    for (; s + 4 <= plan.n; s += 4) run_block<Group, 4, false>(plan, block, s, dealt, added, to);
                    for (; s + 2 <= plan.n; s += 2) run_block<Group, 2, false>(plan, block, s, dealt, added, to);
                    if (s < plan.n) run_block<Group, 1, false>(plan, block, s, dealt, added, to);
                } else {
                    for (; s < plan.n; ++s) run_block<Group, 1, true>(plan, block, s, dealt, added, to);
                }
            }
        });
    });
}

}  // namespace
