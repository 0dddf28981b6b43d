#include "binding.h"
#include "tiles/pack.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

using TilesLayer = Layer<TileSparse>;
template <typename T>
using Vector = Array<const T, nb::ndim<1>>;
template <typename T>
using Weight = Array<const T, nb::ndim<3>>;

const TilesTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    if (isa == kTilesAmxEmulated.name && cpu_has("avx512bf16")) return kTilesAmxEmulated;
    return table_for(isa, {&kTilesAmx});
#else
    return table_for<TilesTable>(isa, {});
#endif
}

template <typename T>
void check(const TilesPlan& shape, const Weight<T>& weight, const std::vector<int64_t>& taps) {
    require(shape.groups >= 1 && shape.c_out % shape.groups == 0 && shape.c_in % shape.groups == 0,
            "groups must divide the channels");
    require(!taps.empty() && weight.shape(2) == taps.size(), "taps differ from the weight's");
    require(static_cast<int64_t>(weight.shape(0)) == shape.c_out, "weight rows differ from c_out");
    require(static_cast<int64_t>(weight.shape(1)) == shape.c_in / shape.groups, "weight columns differ from c_in");
}

size_t input_values(const TilesPlan& shape) { return product({shape.images, shape.c_in, shape.h_in, shape.w_in}); }
size_t output_values(const TilesPlan& shape) { return product({shape.images, shape.c_out, shape.h_out, shape.w_out}); }

}  // namespace

void bind_tiles(nb::module_& m) {
    nb::class_<TilesPlan>(m, "TilesShape")
        .def("__init__", [](TilesPlan* self, int64_t images, int64_t positions, int64_t tiles, int64_t c_in,
                            int64_t h_in, int64_t w_in, int64_t c_out, int64_t h_out, int64_t w_out, int64_t stride_h,
                            int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t groups, int64_t group_room,
                            int64_t position_bytes, int64_t rows, int64_t pitch, int64_t phase_positions,
                            bool copies_input, bool relu, int fill) {
            new (self) TilesPlan{images, positions, tiles, c_in, h_in, w_in, c_out, h_out, w_out, stride_h, stride_w,
                                 pad_h, pad_w, groups, group_room, position_bytes, rows, pitch, phase_positions,
                                 copies_input, relu, static_cast<uint8_t>(fill), 0, nullptr, nullptr, 0, 0, nullptr,
                                 nullptr, 0, nullptr, nullptr, nullptr, nullptr, {}};
        }, nb::kw_only(), "images"_a, "positions"_a, "tiles"_a, "c_in"_a, "h_in"_a, "w_in"_a, "c_out"_a, "h_out"_a,
           "w_out"_a, "stride_h"_a, "stride_w"_a, "pad_h"_a, "pad_w"_a, "groups"_a, "group_room"_a,
           "position_bytes"_a, "rows"_a, "pitch"_a, "phase_positions"_a, "copies_input"_a, "relu"_a, "fill"_a);

    nb::class_<TilesLayer>(m, "TileSparse")
        .def("__init__", [](TilesLayer* self, const std::string& isa, const TilesPlan& shape,
                            std::vector<int64_t> phases_h, std::vector<int64_t> phases_w, Weight<float> weight,
                            const std::vector<int64_t>& taps, std::optional<Vector<float>> bias) {
            check<float>(shape, weight, taps);
            require(!bias || static_cast<int64_t>(bias->shape(0)) == shape.c_out, "bias differs from c_out");
            new (self) TilesLayer{
                TileSparse(table(isa), shape, std::move(phases_h), std::move(phases_w), weight.data(), taps,
                           bias ? bias->data() : nullptr),
                2 * input_values(shape), 2 * output_values(shape)};
        }, nb::kw_only(), "isa"_a, "shape"_a, "phases_h"_a, "phases_w"_a, "weight"_a, "taps"_a, "bias"_a.none())
        .def("__init__", [](TilesLayer* self, const std::string& isa, const TilesPlan& shape,
                            std::vector<int64_t> phases_h, std::vector<int64_t> phases_w, Weight<int8_t> weight,
                            const std::vector<int64_t>& taps, Vector<int32_t> bias, Vector<int32_t> multiplier,
                            Vector<int32_t> shift, int zero_point, int low) {
            check<int8_t>(shape, weight, taps);
            for (const Vector<int32_t>& array : {bias, multiplier, shift}) {
                require(static_cast<int64_t>(array.shape(0)) == shape.c_out, "one entry an output channel");
            }
            new (self) TilesLayer{
                TileSparse(table(isa), shape, std::move(phases_h), std::move(phases_w), weight.data(), taps,
                           bias.data(), multiplier.data(), shift.data(), zero_point, low),
                input_values(shape), output_values(shape)};
        }, nb::kw_only(), "isa"_a, "shape"_a, "phases_h"_a, "phases_w"_a, "weight"_a, "taps"_a, "bias"_a,
           "multiplier"_a, "shift"_a, "zero_point"_a, "low"_a)
        .def("run", &TilesLayer::run, "x"_a, "x_bytes"_a, "residual"_a, "y"_a, "y_bytes"_a, "threads"_a)
        .def_prop_ro("tiles", [](const TilesLayer& self) { return self.packed.tiles(); });
}

}  // namespace sparseplan
