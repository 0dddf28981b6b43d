#include "binding.h"
#include "sas/pack.h"
#include "scratch.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using SasLayer = Layer<SasSelect>;

const SasTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    return table_for(isa, {&kSasBaseline, &kSasAvx2, &kSasAvx512});
#else
    return table_for(isa, {&kSasBaseline});
#endif
}

const SasTable& best_table() {
#ifdef SPARSEPLAN_X86
    for (const SasTable* table : {&kSasAvx512, &kSasAvx2}) {
        if (cpu_has(table->name)) return *table;
    }
#endif
    return kSasBaseline;
}

// Into memory of this thread, whose address it returns: a fresh wide tensor would cost more in page faults than to fill.
// Addresses for the reason that Layer::run takes them.
uintptr_t expand(const SasExpansion& plan, uintptr_t x, size_t x_bytes, int threads) {
    const size_t narrow = product({plan.pixels, plan.groups, plan.channels, plan.value_bytes});
    require(x_bytes == narrow, "x differs from the expansion");
    require(threads >= 1, "threads must be at least 1");
    nb::gil_scoped_release release;
    const int64_t floats = static_cast<int64_t>(((narrow << plan.bits) + sizeof(float) - 1) / sizeof(float));
    void* wide = thread_scratch(Slot::input, floats);
    best_table().expand(plan, reinterpret_cast<const void*>(x), wide, threads);
    return reinterpret_cast<uintptr_t>(wide);
}

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
    return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

}  // namespace

void bind_sas(nb::module_& m) {
    nb::class_<SasLayer>(m, "SasSelect")
        .def("__init__", [](SasLayer* self, const std::string& isa, Array<const float, nb::ndim<4>> weight,
                            std::optional<Array<const float, nb::ndim<1>>> bias, bool relu, int64_t n, int64_t c_in,
                            std::vector<int64_t> size, std::vector<int64_t> stride, std::vector<int64_t> padding,
                            std::vector<int64_t> dilation, int64_t groups, int64_t bits, int64_t vectors,
                            int64_t c_block, int64_t tile, bool fetches_rows) {
            for (const auto* pair : {&size, &stride, &padding, &dilation}) {
                require(pair->size() == 2, "size, stride, padding and dilation are two numbers each");
            }
            for (int64_t value : {n, c_in, size[0], size[1], stride[0], stride[1], dilation[0], dilation[1], groups,
                                  bits, vectors, c_block, tile}) {
                require(value >= 1, "sizes must be at least 1");
            }
            require(bits < 16 && padding[0] >= 0 && padding[1] >= 0, "too many slots, or negative padding");
            const int64_t c_out = static_cast<int64_t>(weight.shape(0)), kernel_h = static_cast<int64_t>(weight.shape(2)),
                          kernel_w = static_cast<int64_t>(weight.shape(3));
            require(c_out % groups == 0 && c_in % groups == 0, "groups must divide the channels");
            require(static_cast<int64_t>(weight.shape(1)) == c_in / groups << bits, "weight differs from c_in");
            require(!bias || static_cast<int64_t>(bias->shape(0)) == c_out, "bias differs from c_out");
            const int64_t h_out = output_size(size[0], kernel_h, stride[0], padding[0], dilation[0]);
            const int64_t w_out = output_size(size[1], kernel_w, stride[1], padding[1], dilation[1]);
            require(h_out >= 1 && w_out >= 1 && kernel_h >= 1 && kernel_w >= 1, "the kernel exceeds the input");
            SasPlan shape{};
            shape.n = n;
            shape.c_in = c_in;
            shape.h_in = size[0];
            shape.w_in = size[1];
            shape.c_out = c_out;
            shape.h_out = h_out;
            shape.w_out = w_out;
            shape.stride_h = stride[0];
            shape.stride_w = stride[1];
            shape.pad_h = padding[0];
            shape.pad_w = padding[1];
            shape.groups = groups;
            shape.bits = bits;
            shape.vectors = vectors;
            shape.tile = tile;
            shape.fetches_rows = fetches_rows;
            shape.relu = relu;
            new (self) SasLayer{SasSelect(table(isa), shape, weight.data(), kernel_h, kernel_w, dilation[0], dilation[1],
                                          c_block, bias ? bias->data() : nullptr),
                                sizeof(float) * product({n, c_in, size[0], size[1]}),
                                sizeof(float) * product({n, c_out, h_out, w_out})};
        }, nb::kw_only(), "isa"_a, "weight"_a, "bias"_a.none(), "relu"_a, "n"_a, "c_in"_a, "size"_a, "stride"_a,
           "padding"_a, "dilation"_a, "groups"_a, "bits"_a, "vectors"_a, "c_block"_a, "tile"_a, "fetches_rows"_a)
        .def("run", &SasLayer::run, "x"_a, "x_bytes"_a, "residual"_a, "y"_a, "y_bytes"_a, "threads"_a);

    nb::class_<SasExpansion>(m, "SasExpansion")
        .def("__init__", [](SasExpansion* self, int64_t pixels, int64_t groups, int64_t channels, int64_t bits,
                            int64_t value_bytes) {
            require(pixels >= 1 && groups >= 1 && channels >= 1, "sizes must be at least 1");
            require(bits >= 1 && bits < 16, "bits must be in 1 .. 15");
            require(value_bytes == 2 || value_bytes == 4, "values have 2 or 4 bytes");
            new (self) SasExpansion{pixels, groups, channels, bits, value_bytes};
        }, nb::kw_only(), "pixels"_a, "groups"_a, "channels"_a, "bits"_a, "value_bytes"_a)
        .def("run", &expand, "x"_a, "x_bytes"_a, "threads"_a);
}

}  // namespace sparseplan
