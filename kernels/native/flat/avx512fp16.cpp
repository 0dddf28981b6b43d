#include "flat/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx512fp16.h"

#include "flat/inner_half.inc.h"
#include "flat/run.inc.h"

namespace sparseplan {

const FlatTable kFlatAvx512Fp16{"avx512fp16", kLanes, kMaxTile, kMaxTileRows, kMaxQuad, kGuardedLoads, sizeof(Scalar),
                                   run_flat};

}  // namespace sparseplan
