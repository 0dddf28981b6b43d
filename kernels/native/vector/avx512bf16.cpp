#include "vector/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx512.h"
#include "vector/bf16.h"

namespace {

constexpr int kMaxRun = 7, kMaxRuns = 4, kQuadRuns = 2;

}  // namespace

#include "vector/run.inc.h"

namespace sparseplan {

const VectorTable kVectorBf16Avx512{"avx512bf16", kLanes, kMaxRun, kMaxRuns, sizeof(uint16_t), run_vector};

}  // namespace sparseplan
