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

// One load, from where the value goes on as an integer: loads are what binds.
inline uint64_t entry_bits(const sparseplan::Entry* entry) {
    uint64_t bits;
    std::memcpy(&bits, entry, sizeof bits);
    return bits;
}

// Non-zeros in their order, loaded two ahead: a core issues its oldest loads first, and those of a tile wait for its
// offset, which would come behind the loads of the tile before (an eighth of the time on Zen 5).
class Entries {
  public:
    explicit Entries(const sparseplan::Entry* first)
        : at_(first), next_(entry_bits(first)), after_(entry_bits(first + 1)) {}

    const sparseplan::Entry* at() const { return at_; }
    uint64_t take() {
        const uint64_t taken = next_;
        next_ = after_;
        after_ = entry_bits(at_ + 2);
        ++at_;
        __asm__("" : "+r"(next_), "+r"(after_));  // else GCC loads them where they are used
        return taken;
    }

  private:
    const sparseplan::Entry* at_;
    uint64_t next_, after_;
};

// Adds one non-zero to the sums of a tile.
template <int R, int W, bool Guarded>
inline void axpy(uint64_t entry, const Window& window, int64_t row_floats, Vec (&acc)[R * W]) {
    const Vec value = broadcast_bits(static_cast<uint32_t>(entry));
    const Scalar* row = window.in + (entry >> 32);
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
