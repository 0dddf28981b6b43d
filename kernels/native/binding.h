// What the Python faces of all kernels share. Callers check shapes and give friendly errors; the checks guard memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu_features.h"
#include "pages.h"

namespace sparseplan {

namespace nb = nanobind;

template <typename T, typename... Rest>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu, Rest...>;

inline void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

inline size_t product(std::initializer_list<int64_t> sizes) {
    int64_t result = 1;
    for (int64_t size : sizes) result *= size;
    return static_cast<size_t>(result);
}

// The table of a family of kernels for an instruction set of this CPU.
template <typename Table>
const Table& table_for(const std::string& isa, std::initializer_list<const Table*> tables) {
    for (const Table* table : tables) {
        if (isa == table->name && cpu_has(isa)) return *table;
    }
    throw std::invalid_argument("this CPU has no instruction set '" + isa + "' for this kernel");
}

// A packed layer with the sizes in bytes that a run must have.
template <typename Packed>
struct Layer {
    Packed packed;
    size_t input_bytes, output_bytes;

    // Addresses, not arrays: the exchange of two tensors costs 5 us, as much as a small layer. `residual` is 0, or the
    // address of a tensor like y that is added before the rectifier.
    void run(uintptr_t x, size_t x_bytes, uintptr_t residual, uintptr_t y, size_t y_bytes, int threads) const {
        require(x_bytes == input_bytes && y_bytes == output_bytes, "x or y differs from the packed problem");
        require(threads >= 1, "threads must be at least 1");
        nb::gil_scoped_release release;
        expect_writes(reinterpret_cast<void*>(y), y_bytes);
        packed.run(reinterpret_cast<const void*>(x), reinterpret_cast<const void*>(residual), reinterpret_cast<void*>(y),
                   threads);
    }
};

void bind_ceilings(nb::module_& m);
void bind_expand(nb::module_& m);
void bind_channels(nb::module_& m);
void bind_flat(nb::module_& m);
void bind_reorder(nb::module_& m);
void bind_requantise(nb::module_& m);
void bind_sas(nb::module_& m);
void bind_sell(nb::module_& m);
void bind_tiles(nb::module_& m);
void bind_vector(nb::module_& m);

}  // namespace sparseplan
