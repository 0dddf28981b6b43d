#include "vector/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/baseline.h"
#include "vector/f32.h"

namespace {

constexpr int kMaxRun = 6, kMaxRuns = 2, kQuadRuns = 0;

}  // namespace

#include "vector/run.inc.h"

namespace sparseplan {

const VectorTable kVectorF32Baseline{"baseline", kLanes, kMaxRun, kMaxRuns, sizeof(float), run_vector};

}  // namespace sparseplan
