// Groups: each value chooses its input from a group of 2, 4 or 8. Included after one of the headers of vectors and
// block.inc.h.

namespace {

template <int Group>
struct Select {
    static constexpr int kGroup = Group;
    static constexpr bool kSharesWork = false;
    static constexpr int kBits = Group == 8 ? 3 : Group == 4 ? 2 : 1;

    template <int Width>
    static Vec choose(const Choice* which, const Vec* inputs) {
        if constexpr (Width == 1) {
            return inputs[0];
        } else {
            constexpr int kHalf = Width / 2, kBit = Width == 8 ? 2 : Width == 4 ? 1 : 0;
            return pick(which[kBit], choose<kHalf>(which, inputs), choose<kHalf>(which, inputs + kHalf));
        }
    }

    template <int Rows, int N, bool Guarded>
    static void add(const ExpandPlan& plan, const ExpandBlock& block, const Value* x, Sums (&sums)[N][Rows]) {
        // Rows that share the loads of a sample: the bits of two fit into the seven mask registers.
        constexpr int kTogether = N == 1 ? Rows : 2;
        const uint8_t* bits = plan.bits + block.bits;
        const Value* values = values_of(plan, block);
        for (int64_t step = 0; step < block.steps; ++step) {
            for (int64_t slot = block.slots; slot > 0; --slot) {
#pragma GCC unroll 4
                for (int first = 0; first < Rows; first += kTogether) {
#pragma GCC unroll 2
                    for (int s = 0; s < N; ++s) {
                        Vec inputs[Group];
#pragma GCC unroll 8
                        for (int j = 0; j < Group; ++j) inputs[j] = load(x + s * plan.pitch + j * kLanes);
#pragma GCC unroll 8
                        for (int row = first; row < first + kTogether; ++row) {
                            Choice which[kBits];
#pragma GCC unroll 3
                            for (int i = 0; i < kBits; ++i) which[i] = load_bits(bits + (row * kBits + i) * kBitBytes);
                            const Vec weight = load(values + row * kLanes), chosen = choose<Group>(which, inputs);
                            sums[s][row] = dot(sums[s][row], weight, Guarded ? guarded(weight, chosen) : chosen);
                        }
                    }
                }
                bits += Rows * kBits * kBitBytes;
                values += Rows * kLanes;
            }
            x += Group * kLanes;
        }
    }
};

}  // namespace
