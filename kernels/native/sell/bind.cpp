#include "binding.h"
#include "sell/pack.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using SellLayer = Layer<SellSparse>;

const SellTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    return table_for(isa, {&kSellBaseline, &kSellAvx2, &kSellAvx512});
#else
    return table_for(isa, {&kSellBaseline});
#endif
}

}  // namespace

void bind_sell(nb::module_& m) {
    nb::class_<SellLayer>(m, "SellSparse")
        .def("__init__", [](SellLayer* self, const std::string& isa, int64_t n, Array<const float, nb::ndim<2>> weight,
                            std::optional<Array<const float, nb::ndim<1>>> bias, bool relu) {
            const int64_t c_out = static_cast<int64_t>(weight.shape(0)), c_in = static_cast<int64_t>(weight.shape(1));
            require(!bias || static_cast<int64_t>(bias->shape(0)) == c_out, "bias differs from c_out");
            const float* start = bias ? bias->data() : nullptr;
            new (self) SellLayer{SellSparse(table(isa), n, c_out, c_in, weight.data(), start, relu),
                                 sizeof(float) * product({n, c_in}), sizeof(float) * product({n, c_out})};
        }, nb::kw_only(), "isa"_a, "n"_a, "weight"_a, "bias"_a.none(), "relu"_a)
        .def("run", &SellLayer::run, "x"_a, "x_bytes"_a, "residual"_a, "y"_a, "y_bytes"_a, "threads"_a)
        .def_prop_ro("stored", [](const SellLayer& self) { return self.packed.stored(); });
}

}  // namespace sparseplan
