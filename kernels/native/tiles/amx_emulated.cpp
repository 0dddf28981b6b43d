#include "parallel.h"
#include "scratch.h"
#include "simd/amx_emulated.h"
#include "tiles/table.h"

#include "tiles/run.inc.h"

namespace sparseplan {

const TilesTable kTilesAmxEmulated{"amx_emulated", run_tiles<Bf16>, run_tiles<Int8>};

}  // namespace sparseplan
