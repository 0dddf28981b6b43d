#include "parallel.h"
#include "sas/table.h"
#include "scratch.h"
#include "simd/avx2.h"

#include "sas/run.inc.h"
#include "sas/expand.inc.h"

namespace sparseplan {

const SasTable kSasAvx2{"avx2", kLanes, kMaxTile, run_sas, expand_sas};

}  // namespace sparseplan
