#include "sell/pack.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace sparseplan {

SellSparse::SellSparse(const SellTable& isa, int64_t n, int64_t c_out, int64_t c_in, const float* weight,
                       const float* bias, bool relu)
    : isa_(isa) {
    if (c_in > 65536) throw std::invalid_argument("columns are stored in 16 bits: c_in must be at most 65536");
    const int64_t lanes = isa.lanes, slices = (c_out + lanes - 1) / lanes;
    std::vector<int64_t> length(c_out), order(c_out);
    for (int64_t k = 0; k < c_out; ++k) {
        length[k] = c_in - std::count(weight + k * c_in, weight + (k + 1) * c_in, 0.0f);
    }
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length[a] > length[b]; });

    starts_.assign(slices + 1, 0);
    for (int64_t slice = 0; slice < slices; ++slice) starts_[slice + 1] = starts_[slice] + length[order[slice * lanes]];
    values_.assign(starts_[slices] * lanes, 0.0f);
    columns_.assign(starts_[slices] * lanes, 0);
    rows_.assign(slices * lanes, -1);
    bias_.assign(slices * lanes, 0.0f);
    for (int64_t i = 0; i < c_out; ++i) {
        const int64_t k = order[i];
        rows_[i] = k;
        if (bias != nullptr) bias_[i] = bias[k];
        int64_t at = starts_[i / lanes] * lanes + i % lanes;
        for (int64_t c = 0; c < c_in; ++c) {
            const float value = weight[k * c_in + c];
            if (value == 0.0f) continue;
            values_[at] = value;
            columns_[at] = static_cast<uint16_t>(c);
            at += lanes;
        }
    }
    plan_ = {n, c_in, c_out, slices, relu, starts_.data(), values_.data(), columns_.data(), rows_.data(), bias_.data()};
}

}  // namespace sparseplan
