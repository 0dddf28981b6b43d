#include "ceilings/table.h"
#include "simd/avx512.h"

#include "ceilings/work.inc.h"

namespace sparseplan {

const CeilingsTable kCeilingsAvx512{"avx512", fma_work, sum_floats, store_floats, copy_half};

}  // namespace sparseplan
