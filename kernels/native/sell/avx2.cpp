#include "parallel.h"
#include "sell/table.h"
#include "simd/avx2.h"

#include "sell/run.inc.h"

namespace sparseplan {

const SellTable kSellAvx2{"avx2", kLanes, run_sell};

}  // namespace sparseplan
