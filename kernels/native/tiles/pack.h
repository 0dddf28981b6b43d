// Packed weights of the tile-sparse convolution: tiles of 16 output channels by 64 bytes of input channels that hold a
// non-zero weight, in the order in which the products take them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tiles/plan.h"
#include "tiles/table.h"

namespace sparseplan {

class TileSparse {
  public:
    // weight: [c_out, c_in / groups, taps], dense with zeros. taps: [taps], positions from an output position to the
    // one that the tap multiplies. The pointers inside `shape` are set here; bias: [c_out] or null.
    TileSparse(const TilesTable& isa, const TilesPlan& shape, std::vector<int64_t> phases_h,
               std::vector<int64_t> phases_w, const float* weight, const std::vector<int64_t>& taps, const float* bias);
    TileSparse(const TilesTable& isa, const TilesPlan& shape, std::vector<int64_t> phases_h,
               std::vector<int64_t> phases_w, const int8_t* weight, const std::vector<int64_t>& taps,
               const int32_t* bias, const int32_t* multiplier, const int32_t* shift, int zero_point, int low);
    TileSparse(const TileSparse&) = delete;
    TileSparse& operator=(const TileSparse&) = delete;

    void run(const void* x, const void* residual, void* y, int threads) const {
        run_(plan_, x, residual, y, threads);
    }
    int64_t tiles() const { return static_cast<int64_t>(offsets_.size()); }

  private:
    struct FreeLines {
        void operator()(char* bytes) const;
    };

    template <typename Weight>
    void pack(const Weight* weight, const std::vector<int64_t>& taps, int64_t strip_rows);
    void lay_out(int64_t strip_rows);

    void (*run_)(const TilesPlan& plan, const void* x, const void* residual, void* y, int threads);
    TilesPlan plan_;
    std::vector<int64_t> phases_h_, phases_w_;
    std::vector<int32_t> pixels_;
    std::vector<Strip> strips_;
    std::vector<int64_t> starts_;
    std::vector<uint32_t> offsets_;
    std::unique_ptr<char, FreeLines> weights_;  // on a cache line, so that a row of a tile is one
    std::vector<float> bias_;
    std::unique_ptr<RequantisationTable> requantisation_;
};

}  // namespace sparseplan
