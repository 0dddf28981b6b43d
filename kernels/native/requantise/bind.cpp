#include "binding.h"
#include "requantise/table.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using Ints = Array<const int32_t, nb::ndim<1>>;
using Bytes = Array<uint8_t, nb::ndim<2>>;

const RequantiseTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    return table_for(isa, {&kRequantiseAvx512});
#else
    return table_for<RequantiseTable>(isa, {});
#endif
}

}  // namespace

void bind_requantise(nb::module_& m) {
    m.def("requantise", [](const std::string& isa, Array<const int32_t, nb::ndim<2>> sums, Ints bias, Ints multiplier,
                           Ints shift, int zero_point, int low, std::optional<Array<const uint8_t, nb::ndim<2>>> residual,
                           Bytes y) {
        const size_t pixels = sums.shape(0), channels = sums.shape(1);
        for (const Ints& array : {bias, multiplier, shift}) require(array.shape(0) == channels, "one entry a channel");
        require(y.shape(0) == pixels && y.shape(1) == channels, "y differs from sums");
        require(!residual || (residual->shape(0) == pixels && residual->shape(1) == channels),
                "residual differs from sums");
        const RequantisationTable constants(bias.data(), multiplier.data(), shift.data(),
                                            static_cast<int64_t>(channels), zero_point, low);
        table(isa).run(constants.view(), sums.data(), residual ? residual->data() : nullptr, y.data(),
                       static_cast<int64_t>(pixels), static_cast<int64_t>(channels));
    }, nb::kw_only(), "isa"_a, "sums"_a, "bias"_a, "multiplier"_a, "shift"_a, "zero_point"_a, "low"_a,
       "residual"_a.none(), "y"_a);
    m.def("store_bytes", [](const std::string& isa, uintptr_t x, uintptr_t y, int64_t count, float per_scale,
                            int zero_point, int threads) {
        const RequantiseTable& kernels = table(isa);
        require(count >= 0 && threads >= 1 && zero_point >= 0 && zero_point <= 255, "sizes or zero point");
        nb::gil_scoped_release release;
        kernels.store(reinterpret_cast<const float*>(x), reinterpret_cast<uint8_t*>(y), count, per_scale, zero_point,
                      threads);
    }, nb::kw_only(), "isa"_a, "x"_a, "y"_a, "count"_a, "per_scale"_a, "zero_point"_a, "threads"_a);
    m.def("load_bytes", [](const std::string& isa, uintptr_t x, uintptr_t y, int64_t count, float scale,
                           int zero_point, int threads) {
        const RequantiseTable& kernels = table(isa);
        require(count >= 0 && threads >= 1 && zero_point >= 0 && zero_point <= 255, "sizes or zero point");
        nb::gil_scoped_release release;
        kernels.load(reinterpret_cast<const uint8_t*>(x), reinterpret_cast<float*>(y), count, scale, zero_point,
                     threads);
    }, nb::kw_only(), "isa"_a, "x"_a, "y"_a, "count"_a, "scale"_a, "zero_point"_a, "threads"_a);
}

}  // namespace sparseplan
