#include "flat/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx512fp16_emulated.h"

#include "flat/inner_half.inc.h"
#include "flat/run.inc.h"

namespace sparseplan {

const FlatTable kFlatAvx512Fp16Emulated{"avx512fp16_emulated", kLanes, kMaxTile, kMaxTileRows, kMaxQuad, kGuardedLoads,
                                           sizeof(Scalar), run_flat};

}  // namespace sparseplan
