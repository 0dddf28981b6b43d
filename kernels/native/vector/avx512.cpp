#include "vector/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx512.h"
#include "vector/f32.h"

namespace {

constexpr int kMaxRun = 7, kMaxRuns = 4, kQuadRuns = 2;

}  // namespace

#include "vector/run.inc.h"

namespace sparseplan {

const VectorTable kVectorF32Avx512{"avx512", kLanes, kMaxRun, kMaxRuns, sizeof(float), run_vector};

}  // namespace sparseplan
