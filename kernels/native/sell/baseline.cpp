#include "parallel.h"
#include "sell/table.h"
#include "simd/baseline.h"

#include "sell/run.inc.h"

namespace sparseplan {

const SellTable kSellBaseline{"baseline", kLanes, run_sell};

}  // namespace sparseplan
