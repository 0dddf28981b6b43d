#include "binding.h"
#include "scratch.h"

using namespace nanobind::literals;

NB_MODULE(_native, m) {
    m.def("isa_list", &sparseplan::isa_list);
    m.def("advise_huge_pages", &sparseplan::advise_huge_pages, "address"_a, "bytes"_a);
    m.def("fill_scratch", &sparseplan::fill_scratch, "value"_a, "threads"_a);
    sparseplan::bind_ceilings(m);
    sparseplan::bind_flat(m);
    sparseplan::bind_sell(m);
}
