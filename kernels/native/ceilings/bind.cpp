#include "binding.h"
#include "ceilings/ceilings.h"

namespace sparseplan {

using namespace nb::literals;

void bind_ceilings(nb::module_& m) {
    m.def("peak_flop_per_s", [](const std::string& unit, double seconds, int threads) {
        nb::gil_scoped_release release;
        return peak_flop_per_s(unit, seconds, threads);
    }, "unit"_a, "seconds"_a, "threads"_a);
    m.def("bandwidth_byte_per_s", [](const std::string& access, int64_t bytes_per_thread, double seconds, int threads,
                                     int repeats) {
        nb::gil_scoped_release release;
        return bandwidth_byte_per_s(access, bytes_per_thread, seconds, threads, repeats);
    }, "access"_a, "bytes_per_thread"_a, "seconds"_a, "threads"_a, "repeats"_a);
    m.def("parallel_region_latency_s", [](int threads) {
        nb::gil_scoped_release release;
        return parallel_region_latency_s(threads);
    }, "threads"_a);
    m.def("timer_latency_s", &timer_latency_s);
    m.def("cycle_s", [](int threads, int repeats) {
        nb::gil_scoped_release release;
        return cycle_s(threads, repeats);
    }, "threads"_a, "repeats"_a);
}

}  // namespace sparseplan
