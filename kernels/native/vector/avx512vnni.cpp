#include "vector/table.h"
#include "parallel.h"
#include "scratch.h"
#include "simd/avx512.h"
#include "requantise/avx512.inc.h"
#include "vector/int8.h"

namespace {

constexpr int kMaxRun = 7, kMaxRuns = 4, kQuadRuns = 2;

}  // namespace

#include "vector/run.inc.h"

namespace sparseplan {

const VectorTable kVectorInt8Avx512{"avx512vnni", kLanes, kMaxRun, kMaxRuns, sizeof(uint8_t), run_vector};

}  // namespace sparseplan
