#include "ceilings/table.h"
#include "simd/baseline.h"

#include "ceilings/work.inc.h"

namespace sparseplan {

const CeilingsTable kCeilingsBaseline{"baseline", fma_work, sum_floats, store_floats, copy_half};

}  // namespace sparseplan
