// The wide tensor of a SAS layer, for dense kernels: slots outermost, [pixels][groups][slots][channels]. Values are
// handled as integers of their size, which compare with zero as the numbers do; the compiler vectorises the loops.

namespace {

template <typename Int>
constexpr Int kMagnitude = static_cast<Int>(~(Int{1} << (8 * sizeof(Int) - 1)));

template <typename Int>
inline void split_signs(const Int* __restrict__ x, int64_t channels, Int* __restrict__ to) {
    for (int64_t c = 0; c < channels; ++c) to[c] = x[c] > 0 ? x[c] : Int{0};
    for (int64_t c = 0; c < channels; ++c) to[channels + c] = x[c] > 0 ? Int{0} : static_cast<Int>(x[c] & kMagnitude<Int>);
}

template <typename Int>
inline void append_magnitudes(const Int* __restrict__ x, int64_t channels, Int* __restrict__ to) {
    for (int64_t c = 0; c < channels; ++c) to[c] = x[c];
    for (int64_t c = 0; c < channels; ++c) to[channels + c] = static_cast<Int>(x[c] & kMagnitude<Int>);
}

template <typename Int>
inline void deal_slots(const Int* __restrict__ x, int64_t channels, int64_t bits, uint16_t* __restrict__ slots,
                       Int* __restrict__ to) {
    find_slots(x, channels, bits, 1, slots);
    for (int64_t slot = 0; slot < int64_t{1} << bits; ++slot, to += channels) {
        const uint16_t wanted = static_cast<uint16_t>(slot);
        for (int64_t c = 0; c < channels; ++c) to[c] = slots[c] == wanted ? static_cast<Int>(x[c] & kMagnitude<Int>) : Int{0};
    }
}

template <typename Int>
void expand(const sparseplan::SasExpansion& plan, const Int* x, Int* wide, int threads) {
    constexpr int64_t kChunk = 16;
    const int64_t c_in = plan.groups * plan.channels, width = c_in << plan.bits;
    const bool alone = threads == 1 || plan.pixels * width < 1 << 14;  // less than starting a team takes
    run_team(alone ? 1 : threads, [&] {
        uint16_t* slots = reinterpret_cast<uint16_t*>(
            sparseplan::thread_scratch(sparseplan::Slot::work, (plan.channels + 1) / 2));
        share_static((plan.pixels + kChunk - 1) / kChunk, [&](int64_t chunk) {
            for (int64_t pixel = chunk * kChunk; pixel < smaller((chunk + 1) * kChunk, plan.pixels); ++pixel) {
                for (int64_t group = 0; group < plan.groups; ++group) {
                    const Int* from = x + pixel * c_in + group * plan.channels;
                    Int* to = wide + pixel * width + (group * plan.channels << plan.bits);
                    if (plan.keeps_signs) {
                        append_magnitudes(from, plan.channels, to);
                    } else if (plan.bits == 1) {
                        split_signs(from, plan.channels, to);
                    } else {
                        deal_slots(from, plan.channels, plan.bits, slots, to);
                    }
                }
            }
        });
    });
}

void expand_sas(const sparseplan::SasExpansion& plan, const void* x, void* wide, int threads) {
    if (plan.value_bytes == 4) {
        expand(plan, static_cast<const int32_t*>(x), static_cast<int32_t*>(wide), threads);
    } else {
        expand(plan, static_cast<const int16_t*>(x), static_cast<int16_t*>(wide), threads);
    }
}

}  // namespace
