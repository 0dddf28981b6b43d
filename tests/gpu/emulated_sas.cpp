// kernels/gpu/cuda/sas_product.cu as a function that a test calls, in each of its forms; see emulated_units.h.
#include "emulated_units.h"

#define WARPGROUPS 0
#define ROWS 256
#define BUFFERS 4
namespace warps_256 {
#include "sas_product.cu"
}
#undef ROWS
#undef BUFFERS
#define ROWS 128
#define BUFFERS 3
namespace warps_128 {
#include "sas_product.cu"
}
#undef ROWS
#define ROWS 64
namespace warps_64 {
#include "sas_product.cu"
}
#undef WARPGROUPS
#undef ROWS
#undef BUFFERS
#define WARPGROUPS 1
#define ROWS 256
#define BUFFERS 6
namespace groups_256 {
#include "sas_product.cu"
}
#undef ROWS
#undef BUFFERS
#define ROWS 128
#define BUFFERS 4
namespace groups_128 {
#include "sas_product.cu"
}

template <class Kernel, class Layer>
static int run_all(Kernel kernel, const Layer* layer, int blocks, void* const* tensors, unsigned seed) {
  for (int block = 0; block < blocks; ++block) {
    auto body = [&] {
      kernel(static_cast<const unsigned short*>(tensors[0]), static_cast<const unsigned short*>(tensors[1]),
             static_cast<const float*>(tensors[2]), static_cast<const unsigned short*>(tensors[3]),
             static_cast<unsigned short*>(tensors[4]), *layer);
    };
    if (!emulated::run_block(block, 256, body, seed + block)) return 1;
  }
  return 0;
}

extern "C" int sas_product(int uses_warpgroups, int rows, int is_bfloat16, int late, int blocks, const void* layer,
                           void* const* tensors, unsigned seed) {
  emulated::is_bfloat16 = is_bfloat16;
  emulated::late = late;
#define RUN(form) return run_all(form::sas_product, static_cast<const form::Layer*>(layer), blocks, tensors, seed)
  if (uses_warpgroups && rows == 256) RUN(groups_256);
  if (uses_warpgroups && rows == 128) RUN(groups_128);
  if (!uses_warpgroups && rows == 256) RUN(warps_256);
  if (!uses_warpgroups && rows == 128) RUN(warps_128);
  if (!uses_warpgroups && rows == 64) RUN(warps_64);
  return 2;
}

// The places that each lane of a warp makes of 16 rows of 32 channels: `values` is row-major.
extern "C" void sas_places(const unsigned short* values, Word* places) {
  emulated::run_block(
      0, 32,
      [&] {
        const int lane = threadIdx.x;
        Word rows[2][4];
        for (int half = 0; half < 2; ++half)
          for (int i = 0; i < 4; ++i)
            std::memcpy(&rows[half][i], values + (lane / 4 + i % 2 * 8) * 32 + half * 16 + i / 2 * 8 + lane % 4 * 2, 4);
        places[lane] = warps_64::places_of(rows[0], rows[1], lane);
      },
      0);
}
