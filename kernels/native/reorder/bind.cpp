#include "binding.h"
#include "reorder/table.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

const ReorderTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    return table_for(isa, {&kReorderBaseline, &kReorderAvx2, &kReorderAvx512});
#else
    return table_for(isa, {&kReorderBaseline});
#endif
}

Reorder direction_named(const std::string& source, const std::string& target) {
    if (target == "blocked" && source == "nchw") return Reorder::nchw_to_blocked;
    if (target == "blocked" && source == "nhwc") return Reorder::nhwc_to_blocked;
    if (source == "blocked" && target == "nchw") return Reorder::blocked_to_nchw;
    require(source == "blocked" && target == "nhwc", "source or target must be blocked, the other nchw or nhwc");
    return Reorder::blocked_to_nhwc;
}

}  // namespace

void bind_reorder(nb::module_& m) {
    m.def("reorder", [](const std::string& isa, const std::string& source, const std::string& target, int64_t n,
                        int64_t channels, int64_t pixels, uintptr_t x, size_t x_bytes, uintptr_t y, size_t y_bytes,
                        int threads) {
        const ReorderTable& kernels = table(isa);
        const ReorderPlan plan{direction_named(source, target), n, channels, pixels};
        require(n >= 1 && channels >= 1 && pixels >= 1 && threads >= 1, "sizes and threads must be at least 1");
        const int64_t stored = (n + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
        const size_t plain = sizeof(float) * product({n, channels, pixels});
        const size_t blocked = sizeof(float) * product({stored, channels, pixels});
        const size_t source_bytes = source == "blocked" ? blocked : plain;
        const size_t target_bytes = target == "blocked" ? blocked : plain;
        require(x_bytes == source_bytes && y_bytes == target_bytes, "x or y differs from the sizes");
        nb::gil_scoped_release release;
        kernels.run(plan, reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), threads);
    }, nb::kw_only(), "isa"_a, "source"_a, "target"_a, "n"_a, "channels"_a, "pixels"_a, "x"_a, "x_bytes"_a, "y"_a,
       "y_bytes"_a, "threads"_a);
}

}  // namespace sparseplan
