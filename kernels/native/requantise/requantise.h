// int32 sums of products -> stored bytes, as kernels/quantisation.py defines it.
#pragma once

#include <cstdint>
#include <vector>

namespace sparseplan {

// By output channel, every array padded with zeros to whole vectors of 16.
struct Requantisation {
    const int32_t* bias;        // added to the sums first
    const int64_t* multiplier;  // below 2^31
    const int64_t* shift;       // 1 to 62
    int zero_point;             // of the output
    int low;                    // least byte that is stored
};

// Owns the arrays of a Requantisation.
class RequantisationTable {
  public:
    RequantisationTable(const int32_t* bias, const int32_t* multiplier, const int32_t* shift, int64_t channels,
                        int zero_point, int low);

    Requantisation view() const {
        return {bias_.data(), multiplier_.data(), shift_.data(), zero_point_, low_};
    }

  private:
    std::vector<int32_t> bias_;
    std::vector<int64_t> multiplier_, shift_;
    int zero_point_, low_;
};

}  // namespace sparseplan
