// What the kernels of four output channels at a time take, and their table.

namespace {

// Input that is asked for while other input is computed with, a few lines with each set of channels: its copy then finds it
// in level 2.
class Ahead {
  public:
    Ahead() = default;
    // Rows of so many activations, `stride` apart.
    Ahead(const Scalar* from, int64_t rows, int64_t stride, int64_t count)
        : from_(reinterpret_cast<const char*>(from)),
          rows_(rows),
          row_bytes_(count * static_cast<int64_t>(sizeof(Scalar))),
          stride_bytes_(stride * static_cast<int64_t>(sizeof(Scalar))) {}

    // Calls of `ask` that are to come.
    void spread(int64_t asks) { lines_ = rows_ == 0 ? 0 : (rows_ * ((row_bytes_ + 63) / 64) + asks - 1) / asks; }

    void ask() {
        for (int64_t line = 0; line < lines_ && rows_ > 0; ++line) {
            __builtin_prefetch(from_ + at_, 0, 2);
            at_ += 64;
            if (at_ >= row_bytes_) {
                at_ = 0;
                from_ += stride_bytes_;
                --rows_;
            }
        }
    }

  private:
    const char* from_ = nullptr;
    int64_t rows_ = 0, row_bytes_ = 0, stride_bytes_ = 0, lines_ = 0, at_ = 0;
};

struct QuadRun {
    const sparseplan::Quad* quads;
    const sparseplan::QuadRows* sets;
    int64_t count;  // of sets
    const float* bias;  // [c_out], or null: the sums of earlier blocks go on
    bool rectifies;
    Ahead* ahead;
};

// Where the sums of a tile lie: those of channel `first` at `at`.
struct QuadSums {
    float* at;
    int64_t first, channel_floats, row_floats;
};

using QuadTile = void (*)(const QuadRun& run, const Window& window, const QuadSums& sums);

struct QuadTiles {
    QuadTile plain[kMaxQuad + 1][kMaxQuad + 1];
    QuadTile guarded[kMaxQuad + 1];  // of one row
};

}  // namespace
