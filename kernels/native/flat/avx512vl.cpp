#include "flat/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx2.h"

#include "flat/inner.inc.h"
#include "flat/inner_quads.inc.h"
#include "flat/run.inc.h"

namespace sparseplan {

const FlatTable kFlatAvx512Vl{"avx512", kLanes, kMaxTile, kMaxTileRows, kMaxQuad, kGuardedLoads, sizeof(Scalar), run_flat};

}  // namespace sparseplan
