#include "binding.h"
#include "expand/pack.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using ExpandLayer = Layer<ExpandSparse>;

const ExpandTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    return table_for(isa, {&kExpandBaseline, &kExpandAvx2, &kExpandAvx512, &kExpandAvx512Bf16});
#else
    return table_for(isa, {&kExpandBaseline});
#endif
}

ExpandFormat format_named(const std::string& name) {
    constexpr const char* kNames[kExpandFormats] = {"expand", "select2", "select4", "select8", "look_up"};
    for (int i = 0; i < kExpandFormats; ++i) {
        if (name == kNames[i]) return static_cast<ExpandFormat>(i);
    }
    throw std::invalid_argument("no format is named '" + name + "'");
}

}  // namespace

void bind_expand(nb::module_& m) {
    nb::class_<ExpandLayer>(m, "ExpandSparse")
        .def("__init__", [](ExpandLayer* self, const std::string& isa, const std::string& format, int64_t n,
                            Array<const float, nb::ndim<2>> weight, std::optional<Array<const float, nb::ndim<1>>> bias,
                            bool relu) {
            const int64_t c_out = static_cast<int64_t>(weight.shape(0)), c_in = static_cast<int64_t>(weight.shape(1));
            require(n >= 1, "n must be at least 1");
            require(!bias || static_cast<int64_t>(bias->shape(0)) == c_out, "bias differs from c_out");
            const ExpandTable& kernels = table(isa);
            new (self) ExpandLayer{ExpandSparse(kernels, format_named(format), n, c_out, c_in, weight.data(),
                                                bias ? bias->data() : nullptr, relu),
                                   kernels.value_bytes * product({n, c_in}), kernels.value_bytes * product({n, c_out})};
        }, nb::kw_only(), "isa"_a, "format"_a, "n"_a, "weight"_a, "bias"_a.none(), "relu"_a)
        .def("run", &ExpandLayer::run, "x"_a, "x_bytes"_a, "residual"_a, "y"_a, "y_bytes"_a, "threads"_a)
        .def_prop_ro("packed_bytes", [](const ExpandLayer& self) { return self.packed.packed_bytes(); });
}

}  // namespace sparseplan
