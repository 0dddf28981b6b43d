#include "vector/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx2.h"
#include "vector/f32.h"

namespace {

constexpr int kMaxRun = 7, kMaxRuns = 2, kQuadRuns = 0;

}  // namespace

#include "vector/run.inc.h"

namespace sparseplan {

const VectorTable kVectorF32Avx2{"avx2", kLanes, kMaxRun, kMaxRuns, sizeof(float), run_vector};

}  // namespace sparseplan
