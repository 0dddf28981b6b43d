#include "requantise/requantise.h"

#include <stdexcept>

namespace sparseplan {

RequantisationTable::RequantisationTable(const int32_t* bias, const int32_t* multiplier, const int32_t* shift,
                                         int64_t channels, int zero_point, int low)
    : zero_point_(zero_point), low_(low) {
    constexpr int64_t kLanes = 16;
    const int64_t padded = (channels + kLanes - 1) / kLanes * kLanes;
    bias_.assign(padded, 0);
    multiplier_.assign(padded, 0);
    shift_.assign(padded, 1);
    for (int64_t k = 0; k < channels; ++k) {
        if (multiplier[k] < 0 || shift[k] < 1 || shift[k] > 62) {
            throw std::invalid_argument("multiplier or shift outside their ranges");
        }
        bias_[k] = bias[k];
        multiplier_[k] = multiplier[k];
        shift_[k] = shift[k];
    }
    if (zero_point < 0 || zero_point > 255 || low < 0 || low > 255) {
        throw std::invalid_argument("zero_point and low must be bytes");
    }
}

}  // namespace sparseplan
