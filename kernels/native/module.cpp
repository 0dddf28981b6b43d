// The Python face of the native code. Callers check shapes and give friendly errors; the checks here guard memory.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ceilings.h"
#include "cpu_features.h"
#include "flat_pack.h"
#include "isa_table.h"
#include "scratch.h"
#include "sell_pack.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace sparseplan;

namespace {

template <typename T, typename... Rest>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu, Rest...>;

std::vector<const IsaTable*> isa_tables() {
    std::vector<const IsaTable*> tables{&kBaseline};
#ifdef SPARSEPLAN_X86
    if (cpu_features().avx2) tables.push_back(&kAvx2);
    if (cpu_features().avx512) tables.push_back(&kAvx512);
#endif
    return tables;
}

const IsaTable& isa_table(const std::string& name) {
    for (const IsaTable* table : isa_tables()) {
        if (name == table->name) return *table;
    }
    throw std::invalid_argument("this CPU has no instruction set '" + name + "'");
}

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

// A packed layer with the sizes that a run must have.
template <typename Packed>
struct Layer {
    Packed packed;
    size_t input_floats, output_floats;

    // Addresses, not arrays: the exchange of two tensors costs 5 us, as much as a small layer.
    void run(uintptr_t x, size_t x_floats, uintptr_t y, size_t y_floats, int threads) const {
        require(x_floats == input_floats && y_floats == output_floats, "x or y differs from the packed problem");
        require(threads >= 1, "threads must be at least 1");
        nb::gil_scoped_release release;
        packed.run(reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), threads);
    }
};

using FlatLayer = Layer<FlatSparse>;
using SellLayer = Layer<SellSparse>;

size_t product(std::initializer_list<int64_t> sizes) {
    int64_t result = 1;
    for (int64_t size : sizes) result *= size;
    return static_cast<size_t>(result);
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("isa_list", [] {
        std::vector<std::string> names;
        for (const IsaTable* table : isa_tables()) names.emplace_back(table->name);
        return names;
    });
    m.def("fill_scratch", &fill_scratch, "value"_a, "threads"_a);
    m.def("peak_flop_per_s", [](const std::string& unit, double seconds, int threads) {
        nb::gil_scoped_release release;
        return peak_flop_per_s(*isa_tables().back(), unit, seconds, threads);
    }, "unit"_a, "seconds"_a, "threads"_a);
    m.def("bandwidth_byte_per_s", [](int64_t bytes_per_thread, double seconds, int threads) {
        nb::gil_scoped_release release;
        return bandwidth_byte_per_s(*isa_tables().back(), bytes_per_thread, seconds, threads);
    }, "bytes_per_thread"_a, "seconds"_a, "threads"_a);
    m.def("parallel_region_latency_s", [](int threads) {
        nb::gil_scoped_release release;
        return parallel_region_latency_s(threads);
    }, "threads"_a);

    nb::class_<FlatPlan>(m, "FlatShape")
        .def("__init__", [](FlatPlan* self, int64_t n, int64_t c_in, int64_t h_in, int64_t w_in, int64_t c_out,
                            int64_t h_out, int64_t w_out, int64_t stride_h, int64_t stride_w, int64_t pad_h,
                            int64_t pad_w, int64_t images, int64_t rows, int64_t pitch, int64_t phase_floats,
                            int64_t channel_floats, int64_t vectors, int64_t tile, int64_t k_block, int64_t c_blocks,
                            bool copies_input) {
            new (self) FlatPlan{n, c_in, h_in, w_in, c_out, h_out, w_out, stride_h, stride_w, pad_h, pad_w,
                                nullptr, nullptr, 0, 0,
                                images, rows, pitch, phase_floats, channel_floats, vectors, tile, k_block, c_blocks,
                                copies_input, false, nullptr, nullptr, nullptr};
        }, nb::kw_only(), "n"_a, "c_in"_a, "h_in"_a, "w_in"_a, "c_out"_a, "h_out"_a, "w_out"_a, "stride_h"_a,
           "stride_w"_a, "pad_h"_a, "pad_w"_a, "images"_a, "rows"_a, "pitch"_a, "phase_floats"_a, "channel_floats"_a,
           "vectors"_a, "tile"_a, "k_block"_a, "c_blocks"_a, "copies_input"_a);

    nb::class_<FlatLayer>(m, "FlatSparse")
        .def("__init__", [](FlatLayer* self, const std::string& isa, FlatPlan shape, std::vector<int64_t> phases_h,
                            std::vector<int64_t> phases_w, Array<const float, nb::ndim<2>> weight,
                            Array<const uint32_t, nb::ndim<1>> tap_offset, int64_t block_taps, int64_t groups,
                            int64_t group_offset, std::optional<Array<const float, nb::ndim<1>>> bias, bool relu) {
            const int64_t c_out = shape.c_out, taps = static_cast<int64_t>(weight.shape(1));
            require(static_cast<int64_t>(weight.shape(0)) == c_out, "weight rows differ from c_out");
            require(static_cast<int64_t>(tap_offset.shape(0)) == taps, "tap_offset differs from the weight's columns");
            require(!bias || static_cast<int64_t>(bias->shape(0)) == c_out, "bias differs from c_out");
            require(groups >= 1 && c_out % groups == 0 && block_taps >= 1, "groups must divide c_out");
            shape.relu = relu;
            new (self) FlatLayer{
                FlatSparse(isa_table(isa), shape, std::move(phases_h), std::move(phases_w), weight.data(),
                           tap_offset.data(), taps, block_taps, groups, group_offset, bias ? bias->data() : nullptr),
                product({shape.n, shape.c_in, shape.h_in, shape.w_in}),
                product({shape.n, c_out, shape.h_out, shape.w_out})};
        }, nb::kw_only(), "isa"_a, "shape"_a, "phases_h"_a, "phases_w"_a, "weight"_a, "tap_offset"_a, "block_taps"_a,
           "groups"_a, "group_offset"_a, "bias"_a.none(), "relu"_a)
        .def("run", &FlatLayer::run, "x"_a, "x_floats"_a, "y"_a, "y_floats"_a, "threads"_a)
        .def_prop_ro("nonzeros", [](const FlatLayer& self) { return self.packed.nonzeros(); });

    nb::class_<SellLayer>(m, "SellSparse")
        .def("__init__", [](SellLayer* self, const std::string& isa, int64_t n, Array<const float, nb::ndim<2>> weight,
                            std::optional<Array<const float, nb::ndim<1>>> bias, bool relu) {
            const int64_t c_out = static_cast<int64_t>(weight.shape(0)), c_in = static_cast<int64_t>(weight.shape(1));
            require(!bias || static_cast<int64_t>(bias->shape(0)) == c_out, "bias differs from c_out");
            const float* start = bias ? bias->data() : nullptr;
            new (self) SellLayer{SellSparse(isa_table(isa), n, c_out, c_in, weight.data(), start, relu),
                                 product({n, c_in}), product({n, c_out})};
        }, nb::kw_only(), "isa"_a, "n"_a, "weight"_a, "bias"_a.none(), "relu"_a)
        .def("run", &SellLayer::run, "x"_a, "x_floats"_a, "y"_a, "y_floats"_a, "threads"_a)
        .def_prop_ro("stored", [](const SellLayer& self) { return self.packed.stored(); });
}
