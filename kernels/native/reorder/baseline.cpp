#include "parallel.h"
#include "reorder/table.h"
#include "simd/baseline.h"

#include "reorder/run.inc.h"

namespace sparseplan {

const ReorderTable kReorderBaseline{"baseline", kLanes, run_reorder};

}  // namespace sparseplan
