#include "binding.h"
#include "vector/pack.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using VectorLayer = Layer<VectorSparse>;

const VectorTable& table(const std::string& isa, const std::string& dtype) {
#ifdef SPARSEPLAN_X86
    if (dtype == "int8") return table_for(isa, {&kVectorInt8Avx512});
    if (dtype == "bfloat16") return table_for(isa, {&kVectorBf16Avx512});
    require(dtype == "float32", "no vector-sparse kernel computes in this dtype");
    return table_for(isa, {&kVectorF32Baseline, &kVectorF32Avx2, &kVectorF32Avx512});
#else
    require(dtype == "float32", "no vector-sparse kernel computes in this dtype");
    return table_for(isa, {&kVectorF32Baseline});
#endif
}

}  // namespace

void bind_vector(nb::module_& m) {
    nb::class_<VectorPlan>(m, "VectorShape")
        .def("__init__", [](VectorPlan* self, int64_t n, int64_t h_in, int64_t w_in, int64_t c_out, int64_t h_out,
                            int64_t w_out, int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w,
                            int64_t groups, int64_t group_bytes, int64_t group_words, int64_t rows, int64_t pitch,
                            int64_t phase_bytes, int64_t word_bytes, int64_t step_bytes, int64_t run_pixels,
                            int64_t band_lines, int64_t band_columns, int64_t chunk_entries, bool copies_input,
                            uint32_t padding_word) {
            VectorPlan plan{};
            plan.n = n, plan.h_in = h_in, plan.w_in = w_in;
            plan.c_out = c_out, plan.h_out = h_out, plan.w_out = w_out;
            plan.stride_h = stride_h, plan.stride_w = stride_w, plan.pad_h = pad_h, plan.pad_w = pad_w;
            plan.groups = groups, plan.group_bytes = group_bytes, plan.group_words = group_words;
            plan.rows = rows, plan.pitch = pitch, plan.phase_bytes = phase_bytes;
            plan.word_bytes = word_bytes, plan.step_bytes = step_bytes, plan.run_pixels = run_pixels;
            plan.band_lines = band_lines, plan.band_columns = band_columns, plan.chunk_entries = chunk_entries;
            plan.copies_input = copies_input, plan.padding_word = padding_word;
            new (self) VectorPlan(plan);
        }, nb::kw_only(), "n"_a, "h_in"_a, "w_in"_a, "c_out"_a, "h_out"_a, "w_out"_a, "stride_h"_a, "stride_w"_a,
           "pad_h"_a, "pad_w"_a, "groups"_a, "group_bytes"_a, "group_words"_a, "rows"_a, "pitch"_a, "phase_bytes"_a,
           "word_bytes"_a, "step_bytes"_a, "run_pixels"_a, "band_lines"_a, "band_columns"_a, "chunk_entries"_a,
           "copies_input"_a, "padding_word"_a);


    nb::class_<VectorLayer>(m, "VectorSparse")
        .def("__init__", [](VectorLayer* self, const std::string& isa, const std::string& dtype, VectorPlan shape,
                            std::vector<int64_t> phases_h, std::vector<int64_t> phases_w,
                            Array<const float, nb::ndim<3>> weight, Array<const uint32_t, nb::ndim<2>> tap_offset,
                            int64_t group_offset, std::optional<Array<const float, nb::ndim<1>>> bias, bool relu,
                            std::optional<Array<const int32_t, nb::ndim<2>>> requantisation, int zero_point, int low) {
            const VectorTable& found = table(isa, dtype);
            require(shape.groups >= 1 && static_cast<int64_t>(weight.shape(0)) == shape.c_out,
                    "weight rows differ from c_out");
            require(static_cast<int64_t>(tap_offset.shape(0)) == shape.group_words &&
                        tap_offset.shape(1) == weight.shape(2), "tap_offset differs from the weight");
            require(!bias || static_cast<int64_t>(bias->shape(0)) == shape.c_out, "bias differs from c_out");
            require(!requantisation || (requantisation->shape(0) == 3 &&
                                        static_cast<int64_t>(requantisation->shape(1)) == shape.c_out),
                    "requantisation is not bias, multiplier and shift of c_out channels");
            shape.relu = relu;
            VectorRequantisation constants{};
            if (requantisation) {
                const int32_t* rows = requantisation->data();
                constants = {rows, rows + shape.c_out, rows + 2 * shape.c_out, zero_point, low};
            }
            const VectorWeight dense{weight.data(), static_cast<int64_t>(weight.shape(1)),
                                     static_cast<int64_t>(weight.shape(2)), bias ? bias->data() : nullptr};
            new (self) VectorLayer{
                VectorSparse(found, shape, std::move(phases_h), std::move(phases_w), dense, tap_offset.data(),
                             group_offset, requantisation ? &constants : nullptr),
                product({shape.n, shape.h_in, shape.w_in, shape.groups, shape.group_bytes}),
                found.value_bytes * product({shape.n, shape.c_out, shape.h_out, shape.w_out})};
        }, nb::kw_only(), "isa"_a, "dtype"_a, "shape"_a, "phases_h"_a, "phases_w"_a, "weight"_a, "tap_offset"_a,
           "group_offset"_a, "bias"_a.none(), "relu"_a, "requantisation"_a.none(), "zero_point"_a, "low"_a)
        .def("run", &VectorLayer::run, "x"_a, "x_bytes"_a, "residual"_a, "y"_a, "y_bytes"_a, "threads"_a)
        .def_prop_ro("entries", [](const VectorLayer& self) { return self.packed.entries(); });
}

}  // namespace sparseplan
