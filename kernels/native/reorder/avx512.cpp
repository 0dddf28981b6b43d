#include "parallel.h"
#include "reorder/table.h"
#include "simd/avx512.h"

#include "reorder/run.inc.h"

namespace sparseplan {

const ReorderTable kReorderAvx512{"avx512", kLanes, run_reorder};

}  // namespace sparseplan
