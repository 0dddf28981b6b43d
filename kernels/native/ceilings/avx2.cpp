#include "ceilings/table.h"
#include "simd/avx2.h"

#include "ceilings/work.inc.h"

namespace sparseplan {

const CeilingsTable kCeilingsAvx2{"avx2", fma_work, sum_floats, store_floats, copy_half};

}  // namespace sparseplan
