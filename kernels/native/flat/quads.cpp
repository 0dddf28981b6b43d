#include "flat/quads.h"

#include <algorithm>
#include <numeric>

namespace sparseplan {
namespace {

// The non-zeros of one channel in one block of taps, and a zero that fills up a shorter row: a row without one is as long
// as any.
struct Row {
    int64_t channel;
    std::vector<int64_t> taps;
    int64_t zero;
};

Row row_of(const Taps& taps, int64_t channel, int64_t begin, int64_t end) {
    Row row{channel, {}, begin};
    const float* const weight = taps.weight + channel * taps.count;
    for (int64_t tap = begin; tap < end; ++tap) {
        if (weight[tap] != 0.0f) {
            row.taps.push_back(tap);
        } else {
            row.zero = tap;
        }
    }
    return row;
}

void add_set(const FlatPlan& plan, const Taps& taps, const Row* const (&rows)[4], PackedQuads& packed) {
    QuadRows set{static_cast<uint32_t>(rows[0]->taps.size()), {}};  // the longest
    for (int i = 0; i < 4; ++i) set.channel[i] = static_cast<uint32_t>(rows[i]->channel);
    for (size_t step = 0; step < set.steps; ++step) {
        Quad quad;
        for (int i = 0; i < 4; ++i) {
            const Row& row = *rows[i];
            const int64_t tap = step < row.taps.size() ? row.taps[step] : row.zero;
            quad.value[i] = taps.weight[row.channel * taps.count + tap];
            quad.offset[i] = taps.offset_of(row.channel, plan.c_out, tap);
        }
        packed.quads.push_back(quad);
    }
    packed.sets.push_back(set);
}

}  // namespace

PackedQuads deal_quads(const FlatPlan& plan, const Taps& taps) {
    PackedQuads packed;
    for (int64_t begin = 0; begin < taps.count; begin += taps.block_count) {
        const int64_t end = std::min(begin + taps.block_count, taps.count);
        for (int64_t first = 0; first < plan.c_out; first += plan.k_chunk) {
            std::vector<Row> rows;
            for (int64_t k = first; k < std::min(first + plan.k_chunk, plan.c_out); ++k) {
                rows.push_back(row_of(taps, k, begin, end));
            }
            std::stable_sort(rows.begin(), rows.end(),
                             [](const Row& a, const Row& b) { return a.taps.size() > b.taps.size(); });
            packed.starts.push_back(static_cast<int64_t>(packed.quads.size()));
            for (size_t i = 0; i < rows.size(); i += 4) {
                const auto at = [&](size_t index) { return &rows[std::min(index, rows.size() - 1)]; };
                add_set(plan, taps, {at(i), at(i + 1), at(i + 2), at(i + 3)}, packed);
            }
        }
    }
    return packed;
}

}  // namespace sparseplan
