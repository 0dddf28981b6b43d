// Work that keeps one execution unit, the loads or the stores busy, for the ceilings of the machine. Included after simd_*.h.

namespace {

// Loads and sums end here: the compiler cannot drop what it cannot see through.
inline void keep(Vec& v) { __asm__ volatile("" : "+m"(v)); }

double fma_work(int64_t rounds) {
    // Enough independent chains to cover the latency of two units (4 to 5 cycles each).
    constexpr int kChains = 12;
    Vec acc[kChains], factor = broadcast(0.999f), term = broadcast(0.001f);
    keep(factor);
    keep(term);
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = broadcast(0.1f * static_cast<float>(i));
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) acc[i] = multiply_add(acc[i], factor, term);
    }
    for (int i = 0; i < kChains; ++i) keep(acc[i]);
    return 2.0 * kLanes * kChains * static_cast<double>(rounds);
}

float sum_floats(const float* data, int64_t count, int64_t passes) {
    constexpr int kChains = 8;
    Vec acc[kChains];
#pragma GCC unroll 8
    for (int i = 0; i < kChains; ++i) acc[i] = zero();
    for (int64_t pass = 0; pass < passes; ++pass) {
        for (int64_t position = 0; position < count; position += kChains * kLanes) {
#pragma GCC unroll 8
            for (int i = 0; i < kChains; ++i) acc[i] = add(acc[i], load(data + position + i * kLanes));
        }
    }
    for (int i = 1; i < kChains; ++i) acc[0] = add(acc[0], acc[i]);
    float lanes[kLanes], sum = 0.0f;
    store(lanes, acc[0]);
    for (float lane : lanes) sum += lane;
    return sum;
}

// Nor may it make a call of memset or memcpy of a loop that writes: these switch to stores that pass by the cache.
inline void written() { __asm__ volatile("" : : : "memory"); }

void store_floats(float* data, int64_t count, int64_t passes) {
    constexpr int kChains = 8;
    Vec value = broadcast(1.5f);
    keep(value);
    for (int64_t pass = 0; pass < passes; ++pass) {
        for (int64_t position = 0; position < count; position += kChains * kLanes) {
#pragma GCC unroll 8
            for (int i = 0; i < kChains; ++i) store(data + position + i * kLanes, value);
            written();
        }
    }
}

void copy_half(float* data, int64_t count, int64_t passes) {
    constexpr int kChains = 8;
    const int64_t half = count / 2;
    for (int64_t pass = 0; pass < passes; ++pass) {
        for (int64_t position = 0; position < half; position += kChains * kLanes) {
#pragma GCC unroll 8
            for (int i = 0; i < kChains; ++i) {
                store(data + half + position + i * kLanes, load(data + position + i * kLanes));
            }
            written();
        }
    }
}

}  // namespace
