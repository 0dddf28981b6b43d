#include "parallel.h"
#include "sas/table.h"
#include "scratch.h"
#include "simd/avx512.h"

#include "sas/run.inc.h"

namespace sparseplan {

const SasTable kSasAvx512{"avx512", kLanes, kMaxTile, run_sas};

}  // namespace sparseplan
