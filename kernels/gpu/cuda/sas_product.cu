// SAS 1:2 as a product whose left operand, the activations, is 2:4 sparse, without a packing pass.
//
// Channel c of x owns the wide channels 2 c and 2 c + 1, of which its sign chooses one. Of every four wide channels two
// are kept, one of each pair, so x itself, as it lies in memory, is the compressed operand, and two bits for each value,
// its sign and which of the pair it is, are the places ("metadata"). They are made in registers, from the values that
// the product has loaded anyway. |x| w = x (-w) where x is not positive: weights of odd slots come negated.
//
// A tile is ROWS pixels x 128 output channels, of 256 threads. A step is 32 channels of one tap: 64 bytes of each pixel,
// and 128 bytes of each output channel, which come packed in the order in which they lie in shared memory. Convolutions
// are implicit products over channels-last activations.
//
// Without WARPGROUPS (sm_80 and newer) a warp multiplies ROWS / 4 pixels by 64 output channels; with them (sm_90a) four
// warps multiply ROWS / 2 pixels by all 128, which the units read from shared memory themselves.

struct Layer {
  int pixels, c_in, h_in, w_in, h_out, w_out, k_out;
  int taps_h, taps_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int relu;
};

struct alignas(16) Words {
  Word at[4];
};

constexpr int THREADS = 256;
constexpr int OUTPUTS = 128;      // of a tile
constexpr int DEPTH = 32;         // channels of a step
constexpr int CHUNK = 8;          // elements of 16 bytes
constexpr int ROW_BYTES = 64;     // of a pixel in a step
constexpr int COLUMN_BYTES = 128; // of an output channel in a step
constexpr int ROWS_BYTES = ROWS * ROW_BYTES;
constexpr int STEP_BYTES = ROWS_BYTES + OUTPUTS * COLUMN_BYTES;
constexpr int COPIES = ROWS / 64;                     // of rows, by each thread in a step
constexpr int TILES = WARPGROUPS ? ROWS / 128 : ROWS / 64; // of 16 rows, of a warp
constexpr int GROUPS = WARPGROUPS ? 2 : 1;            // of 64 output channels, of a warp
constexpr int TOGETHER = 8;       // tiles of pixels that share the weights that the caches hold

// The first row of a warp's tile of 16.
__device__ __forceinline__ int first_row(int warp, int tile) {
  return WARPGROUPS ? warp / 4 * (ROWS / 2) + tile * 64 + warp % 4 * 16 : warp % 4 * (ROWS / 4) + tile * 16;
}

// Signs of two values of row g and two of row g + 8 (a thread's words of them), at their bits of the places.
__device__ __forceinline__ Word signs_of(Word row, Word row_8, int lane) {
  const Word signs = bytes_of(row, row_8, 0x7531);
  return (((signs >> 7) & 0x00010001u) | ((signs >> 13) & 0x00040004u)) << (lane % 4 * 4);
}

// The places of two products of depth 32: lanes 0 and 1 of each four end up with the first one's, 2 and 3 with the
// second one's; the even lane with those of the first 16 wide channels.
__device__ __forceinline__ Word places_of(const Word (&first)[4], const Word (&second)[4], int lane) {
  const Word first_low = signs_of(first[0], first[1], lane), first_high = signs_of(first[2], first[3], lane);
  const Word second_low = signs_of(second[0], second[1], lane), second_high = signs_of(second[2], second[3], lane);
  const bool is_second = lane & 2, is_high = lane & 1;
  Word low = is_second ? second_low : first_low, high = is_second ? second_high : first_high;
  low |= from_lane_across(is_second ? first_low : second_low, 2);
  high |= from_lane_across(is_second ? first_high : second_high, 2);
  // Of each four the second value kept lies in the upper two: 2 or 3.
  return (is_high ? high : low) | from_lane_across(is_high ? low : high, 1) | 0x88888888u;
}

KERNEL(THREADS)
sas_product(const unsigned short* x, const unsigned short* weights, const float* bias, const unsigned short* residual,
            unsigned short* y, const Layer layer) {
  SHARED_MEMORY;
  const Word shared = shared_address(shared_memory);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;

  // Neighbouring tiles share pixels or weights.
  const int tiles_k = (layer.k_out + OUTPUTS - 1) / OUTPUTS, tiles_p = (layer.pixels + ROWS - 1) / ROWS;
  const int band = blockIdx.x / (TOGETHER * tiles_k), in_band = blockIdx.x % (TOGETHER * tiles_k);
  const int height = min(tiles_p - band * TOGETHER, TOGETHER);
  const int first_pixel = (band * TOGETHER + in_band % height) * ROWS, tile_k = in_band / height;

  const int chunk = thread % 4;
  int start[COPIES], top[COPIES], left[COPIES];
  for (int i = 0; i < COPIES; ++i) {
    // Rows beyond the last pixel repeat it, and are not stored.
    const int pixel = min(first_pixel + thread / 4 + 64 * i, layer.pixels - 1);
    const int row = pixel / layer.w_out;
    const int image = row / layer.h_out;
    top[i] = row % layer.h_out * layer.stride_h - layer.pad_h;
    left[i] = pixel % layer.w_out * layer.stride_w - layer.pad_w;
    start[i] = ((image * layer.h_in + top[i]) * layer.w_in + left[i]) * layer.c_in + chunk * CHUNK;
  }
  const int steps_c = (layer.c_in + DEPTH - 1) / DEPTH;
  const int steps = layer.taps_h * layer.taps_w * steps_c;
  const unsigned short* columns = weights + (static_cast<long long>(tile_k) * steps * THREADS * 4 + thread) * CHUNK;

  int r = 0, s = 0, c = 0;
  // Copies the next step into a buffer; called once for each step, in order.
  auto copy_step = [&](int buffer) {
    const Word rows = shared + buffer * STEP_BYTES;
    const int down = r * layer.dilation_h, right = s * layer.dilation_w;
    const int offset = (down * layer.w_in + right) * layer.c_in + c;
    for (int i = 0; i < COPIES; ++i) {
      const bool is_inside = static_cast<Word>(top[i] + down) < static_cast<Word>(layer.h_in) &&
                             static_cast<Word>(left[i] + right) < static_cast<Word>(layer.w_in) &&
                             c + chunk * CHUNK < layer.c_in;
      // Two rows share 128 bytes; what lies where in them changes with the rows, for loads without conflicts.
      copy_ahead(rows + (thread / 4 + 64 * i) * ROW_BYTES + ((chunk ^ (thread / 8 % 4)) << 4),
                 x + (is_inside ? start[i] + offset : 0), is_inside);
    }
    for (int i = 0; i < 4; ++i) copy_ahead(rows + ROWS_BYTES + (thread + THREADS * i) * 16, columns + THREADS * i * CHUNK, true);
    columns += THREADS * 4 * CHUNK;
    c += DEPTH;
    if (c >= layer.c_in) {
      c = 0;
      if (++s == layer.taps_w) {
        s = 0;
        ++r;
      }
    }
  };

  // Of a step: its rows, for the products of both its halves, and where they go among the wide channels.
  Word rows[TILES][2][4], places[TILES];
  auto load_rows = [&](int buffer, Word (&to)[TILES][2][4], Word (&where)[TILES]) {
    for (int i = 0; i < TILES; ++i) {
      const Word at = shared + buffer * STEP_BYTES + (first_row(warp, i) + lane % 16) * ROW_BYTES;
      for (int half = 0; half < 2; ++half) load_matrices(to[i][half], at + (((2 * half + lane / 16) ^ (lane / 2 % 4)) << 4));
      where[i] = places_of(to[i][0], to[i][1], lane);
    }
  };

  float sums[TILES][GROUPS * 8][4] = {};
  auto multiply = [&](int buffer) {
    const Word at = shared + buffer * STEP_BYTES + ROWS_BYTES;
#if WARPGROUPS
    // Rows of 128 bytes, eight to a stretch of 1024, in the swizzle of 128 bytes (PTX, matrix descriptors).
    const unsigned long long described = (at >> 4 & 0x3fff) | 1ull << 16 | 1024ull >> 4 << 32 | 1ull << 62;
    begin_products();
    for (int i = 0; i < TILES; ++i) multiply_sparse<0>(sums[i], rows[i][0], described, places[i]);
    for (int i = 0; i < TILES; ++i) multiply_sparse<1>(sums[i], rows[i][1], described + (64 >> 4), places[i]);
    end_of_products();
#else
    for (int j = 0; j < 8; ++j) {
      const Word column = at + (warp / 4 * 64 + j * 8 + lane % 8) * COLUMN_BYTES;
      Word taken[2][4];
      for (int half = 0; half < 2; ++half) load_matrices(taken[half], column + (((4 * half + lane / 8) ^ (lane % 8)) << 4));
      for (int i = 0; i < TILES; ++i) multiply_sparse<0>(sums[i][j], rows[i][0], taken[0], places[i]);
      for (int i = 0; i < TILES; ++i) multiply_sparse<1>(sums[i][j], rows[i][1], taken[1], places[i]);
    }
#endif
  };

  auto arrive = [&] {
#if WARPGROUPS
    show_copies_to_products();
#endif
    __syncthreads();
  };

  for (int step = 0; step < BUFFERS - 1; ++step) {
    if (step < steps) copy_step(step);
    end_of_copies();
  }
  wait_for_copies<BUFFERS - 2>();
  arrive();
  load_rows(0, rows, places);
  int buffer = 0, behind = BUFFERS - 1; // `behind` held the step before
  for (int step = 0; step < steps; ++step) {
    multiply(buffer);
    wait_for_copies<BUFFERS - 3>();
    // All threads have also waited for the products of the step before: its buffer is free.
    arrive();
    if (step + BUFFERS - 1 < steps) copy_step(behind);
    end_of_copies();
    behind = buffer;
    buffer = buffer + 1 == BUFFERS ? 0 : buffer + 1;
    Word next[TILES][2][4], next_places[TILES];
    if (step + 1 < steps) load_rows(buffer, next, next_places);
#if WARPGROUPS
    wait_for_products();
    for (int i = 0; i < TILES; ++i) {
      held_until_here(places[i]);
      for (int j = 0; j < 4; ++j) {
        held_until_here(rows[i][0][j]);
        held_until_here(rows[i][1][j]);
      }
      for (auto& column : sums[i])
        for (float& sum : column) held_until_here(sum);
    }
#endif
    for (int i = 0; i < TILES; ++i) {
      for (int j = 0; j < 4; ++j) {
        rows[i][0][j] = next[i][0][j];
        rows[i][1][j] = next[i][1][j];
      }
      places[i] = next_places[i];
    }
  }

  // Weights are packed so that a thread's sums are 16 neighbouring channels of each 64.
#pragma unroll
  for (int i = 0; i < TILES; ++i) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int pixel = first_pixel + first_row(warp, i) + lane / 4 + 8 * below;
      if (pixel >= layer.pixels) continue;
#pragma unroll
      for (int group = 0; group < GROUPS; ++group) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const int channel =
              tile_k * OUTPUTS + (WARPGROUPS ? group : warp / 4) * 64 + lane % 4 * 16 + part * CHUNK;
          if (channel >= layer.k_out) continue;
          const long long place = static_cast<long long>(pixel) * layer.k_out + channel;
          Words added = {}, out;
          if (residual) added = *reinterpret_cast<const Words*>(residual + place);
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            float pair[2];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float sum = sums[i][group * 8 + part * 4 + j][2 * below + e];
              if (bias) sum += bias[channel + 2 * j + e];
              if (residual) sum += to_float(added.at[j] >> 16 * e);
              // NaN stays NaN, as in torch.
              pair[e] = layer.relu && sum < 0.0f ? 0.0f : sum;
            }
            out.at[j] = to_elements(pair[0], pair[1]);
          }
          *reinterpret_cast<Words*>(y + place) = out;
        }
      }
    }
  }
}
