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
inline void deal_slots(const Int* __restrict__ x, const uint16_t* __restrict__ slots, int64_t channels, int64_t bits,
                       Int* __restrict__ to) {
    for (int64_t slot = 0; slot < int64_t{1} << bits; ++slot, to += channels) {
        const uint16_t wanted = static_cast<uint16_t>(slot);
        for (int64_t c = 0; c < channels; ++c) to[c] = slots[c] == wanted ? static_cast<Int>(x[c] & kMagnitude<Int>) : Int{0};
    }
}

// Pixels of one chunk: `rows` rows of the channels of a group.
template <typename Int>
inline void expand_rows(const sparseplan::SasExpansion& plan, const Int* x, int64_t rows, uint16_t* slots, Int* wide) {
    const int64_t channels = plan.channels;
    if (plan.bits > 1) find_slots(x, rows, channels, plan.bits, 1, slots);
    for (int64_t row = 0; row < rows; ++row, x += channels, slots += channels, wide += channels << plan.bits) {
        if (plan.bits == 1) {
            split_signs(x, channels, wide);
        } else {
            deal_slots(x, slots, channels, plan.bits, wide);
        }
    }
}

template <typename Int>
void expand(const sparseplan::SasExpansion& plan, const Int* x, Int* wide, int threads) {
    const int64_t c_in = plan.groups * plan.channels;
    const bool alone = threads == 1 || plan.pixels * c_in << plan.bits < 1 << 14;  // less than starting a team takes
    run_team(alone ? 1 : threads, [&] {
        uint16_t* slots = reinterpret_cast<uint16_t*>(
            sparseplan::thread_scratch(sparseplan::Slot::work, (kSlotPixels * c_in + 1) / 2));
        share_static((plan.pixels + kSlotPixels - 1) / kSlotPixels, [&](int64_t chunk) {
            const int64_t pixel = chunk * kSlotPixels, pixels = smaller(kSlotPixels, plan.pixels - pixel);
            expand_rows(plan, x + pixel * c_in, pixels * plan.groups, slots, wide + (pixel * c_in << plan.bits));
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
