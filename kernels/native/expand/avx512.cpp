#include "expand/table.h"
#include "parallel.h"
#include "scratch.h"

#include "expand/f32_avx512.h"

#include "expand/block.inc.h"
#include "expand/deal.inc.h"
#include "expand/expand.inc.h"
#include "expand/look_up.inc.h"
#include "expand/run.inc.h"
#include "expand/select.inc.h"

namespace sparseplan {

const ExpandTable kExpandAvx512{
    "avx512", kLanes, sizeof(Value),
    {run_expand<Expand>, run_expand<Select<2>>, run_expand<Select<4>>, run_expand<Select<8>>, run_expand<LookUp>}};

}  // namespace sparseplan
