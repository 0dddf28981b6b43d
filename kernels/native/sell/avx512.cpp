#include "parallel.h"
#include "sell/table.h"
#include "simd/avx512.h"

#include "sell/run.inc.h"

namespace sparseplan {

const SellTable kSellAvx512{"avx512", kLanes, run_sell};

}  // namespace sparseplan
