#include "isa_table.h"
#include "scratch.h"
#include "simd_baseline.h"

#include "ceilings.inc.h"
#include "flat_sparse.inc.h"
#include "sell.inc.h"

namespace sparseplan {

const IsaTable kBaseline{"baseline", kLanes, kMaxTile, kGuardedLoads, run_flat, run_sell, fma_work, sum_floats};

}  // namespace sparseplan
