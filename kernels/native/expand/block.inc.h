// What the inner loops of all formats of expand/plan.h share. Each format is a type whose `add` adds the products of a
// block of `Rows` rows with `N` samples, whose dealt-out inputs lie plan.pitch values apart. Included after one of the
// headers of vectors.
//
// Prefetching is left to the hardware: asking ahead by 0.5 to 16 KiB, into level 1 or 2, was up to 30 % slower on Zen 4,
// from level 3 and from the main memory; on Zen 5 0.5 to 4 KiB into level 1 changed nothing.

namespace {

using sparseplan::ExpandBlock;
using sparseplan::ExpandPlan;
using sparseplan::kFewRows;
using sparseplan::kManyRows;

// Bytes that hold one bit for each lane of a vector.
constexpr int kBitBytes = kLanes / 8;

inline const Value* values_of(const ExpandPlan& plan, const ExpandBlock& block) {
    return static_cast<const Value*>(plan.values) + block.values;
}

}  // namespace
