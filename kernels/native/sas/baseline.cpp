#include "parallel.h"
#include "sas/table.h"
#include "scratch.h"
#include "simd/baseline.h"

#include "sas/run.inc.h"
#include "sas/expand.inc.h"

namespace sparseplan {

const SasTable kSasBaseline{"baseline", kLanes, kMaxTile, run_sas, expand_sas};

}  // namespace sparseplan
