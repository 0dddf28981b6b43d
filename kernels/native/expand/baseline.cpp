#include "expand/table.h"
#include "parallel.h"
#include "scratch.h"

#include "expand/f32_baseline.h"

#include "expand/block.inc.h"
#include "expand/deal.inc.h"
#include "expand/run.inc.h"
#include "expand/select.inc.h"

namespace sparseplan {

const ExpandTable kExpandBaseline{
    "baseline", kLanes, sizeof(Value),
    {nullptr, run_expand<Select<2>>, run_expand<Select<4>>, run_expand<Select<8>>, nullptr}};

}  // namespace sparseplan
