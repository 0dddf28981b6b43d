#include "expand/table.h"
#include "parallel.h"
#include "scratch.h"

#include "expand/bf16_avx512.h"
#include "expand/run.inc.h"

namespace sparseplan {

const ExpandTable kExpandAvx512Bf16{
    "avx512bf16", kLanes, sizeof(Value), {run_expand<1>, run_expand<2>, run_expand<4>, run_expand<8>}};

}  // namespace sparseplan
