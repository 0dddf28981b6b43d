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
}

}  // namespace sparseplan
