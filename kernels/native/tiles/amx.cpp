#include "parallel.h"
#include "scratch.h"
#include "simd/amx.h"
#include "tiles/table.h"

#include "tiles/run.inc.h"

namespace sparseplan {

const TilesTable kTilesAmx{"amx", run_tiles<Bf16>, run_tiles<Int8>};

}  // namespace sparseplan
