// What the inner kernels of all precisions share: their arguments, and one non-zero of their loops.

namespace {

// The non-zeros of consecutive output channels in one block of input channels.
struct Rows {
    const sparseplan::Entry* entries;
    const int64_t* starts;  // [channels + 1], into entries
    int64_t channels;
    const float* bias;      // [channels], or null: the sums of earlier blocks go on
    bool rectifies;
};

// The input under a tile for offset 0.
struct Window {
    const Scalar* in;
    int64_t row_floats;  // from one row of the tile to the next
    int last;            // activations of the last vector that may be read (guarded tiles)
};

// Left alone, GCC gives every vector of the later rows of a tile an address computation of its own.
inline void keep_pointer(const Scalar*& pointer) { __asm__("" : "+r"(pointer)); }

// Adds one non-zero to the sums of a tile.
template <int R, int W, bool Guarded>
inline void axpy(const sparseplan::Entry* entry, const Window& window, int64_t row_floats, Vec (&acc)[R * W]) {
    // One load, from where the value goes on as an integer: loads are what binds.
    uint64_t both;
    std::memcpy(&both, entry, sizeof both);
    const Vec value = broadcast_bits(static_cast<uint32_t>(both));
    const Scalar* row = window.in + (both >> 32);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, row += row_floats) {
        keep_pointer(row);
#pragma GCC unroll 32
        for (int w = 0; w < W; ++w) {
            const Scalar* from = row + w * kLanes;
            const bool is_last = Guarded && w == W - 1;
            Vec& sum = acc[r * W + w];
            sum = multiply_add(value, is_last ? load_first(from, window.last) : load(from), sum);
        }
    }
}

}  // namespace
