#include "parallel.h"
#include "reorder/table.h"
#include "simd/avx2.h"

#include "reorder/run.inc.h"

namespace sparseplan {

const ReorderTable kReorderAvx2{"avx2", kLanes, run_reorder};

}  // namespace sparseplan
