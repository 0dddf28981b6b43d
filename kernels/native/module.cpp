#include "binding.h"
#include "scratch.h"

using namespace nanobind::literals;

NB_MODULE(_native, m) {
    m.def("isa_list", &sparseplan::isa_list);
    m.def("fill_scratch", &sparseplan::fill_scratch, "value"_a, "threads"_a);
    sparseplan::bind_ceilings(m);
    sparseplan::bind_expand(m);
    sparseplan::bind_channels(m);
    sparseplan::bind_flat(m);
    sparseplan::bind_reorder(m);
    sparseplan::bind_requantise(m);
    sparseplan::bind_sas(m);
    sparseplan::bind_sell(m);
    sparseplan::bind_tiles(m);
    sparseplan::bind_vector(m);
}
