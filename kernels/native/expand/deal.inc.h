// The input as the inner loops read it. Included after one of the headers of vectors.

namespace {

// Deals one sample out into [steps][Group][kLanes], the rest of `pitch` zeros; returns whether all of it is finite.
template <int Group>
bool deal(const Value* __restrict x, int64_t c_in, int64_t pitch, Value* __restrict to) {
    constexpr int64_t kStep = kLanes * Group;
    Word largest = 0;
    for (int64_t c = 0; c < c_in; ++c) {
        const Word exponent = exponent_bits(x[c]);
        largest = exponent > largest ? exponent : largest;
    }
    const int64_t whole = c_in / kStep;
    for (int64_t step = 0; step < whole; ++step) {
        const Value* from = x + step * kStep;
        Value* vectors = to + step * kStep;
        for (int64_t lane = 0; lane < kLanes; ++lane) {
#pragma GCC unroll 8
            for (int64_t j = 0; j < Group; ++j) vectors[j * kLanes + lane] = from[lane * Group + j];
        }
    }
    for (int64_t i = whole * kStep; i < pitch; ++i) to[i] = Value{};
    for (int64_t i = 0; i < c_in - whole * kStep; ++i) {
        to[whole * kStep + i % Group * kLanes + i / Group] = x[whole * kStep + i];
    }
    return largest != kNotFinite;
}

}  // namespace
