#include "binding.h"
#include "flat/pack.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using FlatLayer = Layer<FlatSparse>;

const FlatTable& table(const std::string& isa, int lanes) {
#ifdef SPARSEPLAN_X86
    if (isa == kFlatAvx512Fp16Emulated.name && cpu_has("avx512")) return kFlatAvx512Fp16Emulated;
    if (lanes == kFlatAvx512Vl.lanes) return table_for(isa, {&kFlatAvx2, &kFlatAvx512Vl});
    return table_for(isa, {&kFlatBaseline, &kFlatAvx2, &kFlatAvx512, &kFlatAvx512Fp16});
#else
    return table_for(isa, {&kFlatBaseline});
#endif
}

FlatLayout layout_named(const std::string& name) {
    require(name == "nchw" || name == "nhwc" || name == "blocked", "layout must be nchw, nhwc or blocked");
    return name == "nchw" ? FlatLayout::nchw : name == "nhwc" ? FlatLayout::nhwc : FlatLayout::blocked;
}

}  // namespace

void bind_flat(nb::module_& m) {
    nb::class_<FlatPlan>(m, "FlatShape")
        .def("__init__", [](FlatPlan* self, int64_t n, int64_t c_in, int64_t h_in, int64_t w_in, int64_t c_out,
                            int64_t h_out, int64_t w_out, int64_t stride_h, int64_t stride_w, int64_t pad_h,
                            int64_t pad_w, int64_t images, int64_t rows, int64_t pitch, int64_t phase_floats,
                            int64_t channel_floats, int64_t area_rows, int64_t area_columns, int64_t tile_rows,
                            int64_t tile_columns, int64_t k_block, int64_t c_blocks, bool copies_input,
                            bool copies_tiles, int64_t window_channels, int64_t window_blocks, int64_t quad_rows, int64_t quad_columns,
                            int64_t k_chunk, bool asks_ahead, bool streams_output, const std::string& layout) {
            new (self) FlatPlan{n, c_in, h_in, w_in, c_out, h_out, w_out, stride_h, stride_w, pad_h, pad_w,
                                nullptr, nullptr, 0, 0,
                                images, rows, pitch, phase_floats, channel_floats, area_rows, area_columns, tile_rows,
                                tile_columns, tile_rows * tile_columns, k_block, c_blocks, copies_input, copies_tiles,
                                window_channels, window_blocks, quad_rows, quad_columns, k_chunk, asks_ahead, streams_output, layout_named(layout), false,
                                nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
        }, nb::kw_only(), "n"_a, "c_in"_a, "h_in"_a, "w_in"_a, "c_out"_a, "h_out"_a, "w_out"_a, "stride_h"_a,
           "stride_w"_a, "pad_h"_a, "pad_w"_a, "images"_a, "rows"_a, "pitch"_a, "phase_floats"_a, "channel_floats"_a,
           "area_rows"_a, "area_columns"_a, "tile_rows"_a, "tile_columns"_a, "k_block"_a, "c_blocks"_a,
           "copies_input"_a, "copies_tiles"_a = false, "window_channels"_a = 0, "window_blocks"_a = 0, "quad_rows"_a = 0, "quad_columns"_a = 0, "k_chunk"_a = 1,
           "asks_ahead"_a = false, "streams_output"_a = false, "layout"_a = "nchw");

    nb::class_<FlatLayer>(m, "FlatSparse")
        .def("__init__", [](FlatLayer* self, const std::string& isa, int lanes, FlatPlan shape,
                            std::vector<int64_t> phases_h, std::vector<int64_t> phases_w, Array<const float, nb::ndim<2>> weight,
                            Array<const uint32_t, nb::ndim<1>> tap_offset, int64_t block_taps, int64_t groups,
                            int64_t group_offset, std::optional<Array<const float, nb::ndim<1>>> bias, bool relu) {
            const int64_t c_out = shape.c_out, taps = static_cast<int64_t>(weight.shape(1));
            require(static_cast<int64_t>(weight.shape(0)) == c_out, "weight rows differ from c_out");
            require(static_cast<int64_t>(tap_offset.shape(0)) == taps, "tap_offset differs from the weight's columns");
            require(!bias || static_cast<int64_t>(bias->shape(0)) == c_out, "bias differs from c_out");
            require(groups >= 1 && c_out % groups == 0 && block_taps >= 1, "groups must divide c_out");
            shape.relu = relu;
            const FlatTable& kernels = table(isa, lanes);
            const size_t scalar_bytes = static_cast<size_t>(kernels.scalar_bytes);
            new (self) FlatLayer{
                FlatSparse(kernels, shape, std::move(phases_h), std::move(phases_w),
                           {weight.data(), tap_offset.data(), taps, block_taps, groups, group_offset},
                           bias ? bias->data() : nullptr),
                scalar_bytes * product({shape.n, shape.c_in, shape.h_in, shape.w_in}),
                scalar_bytes * product({shape.n, c_out, shape.h_out, shape.w_out})};
        }, nb::kw_only(), "isa"_a, "lanes"_a, "shape"_a, "phases_h"_a, "phases_w"_a, "weight"_a, "tap_offset"_a,
           "block_taps"_a, "groups"_a, "group_offset"_a, "bias"_a.none(), "relu"_a)
        .def("run", &FlatLayer::run, "x"_a, "x_bytes"_a, "residual"_a, "y"_a, "y_bytes"_a, "threads"_a)
        .def_prop_ro("nonzeros", [](const FlatLayer& self) { return self.packed.nonzeros(); });
}

}  // namespace sparseplan
