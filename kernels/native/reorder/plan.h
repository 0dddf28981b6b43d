// Moving activations between the layouts of networks and the blocked one, [n / lanes][channels][pixels][lanes].
#pragma once

#include <cstdint>

namespace sparseplan {

enum class Reorder { nchw_to_blocked, blocked_to_nchw, nhwc_to_blocked, blocked_to_nhwc };

struct ReorderPlan {
    Reorder direction;
    int64_t n, channels, pixels;  // n need not fill the last block: its other lanes become zero, or are left out
};

}  // namespace sparseplan
