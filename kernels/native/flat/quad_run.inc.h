// What the kernels of four output channels at a time take, and their table.

namespace {

struct QuadRun {
    const sparseplan::Quad* quads;
    const sparseplan::QuadRows* sets;
    int64_t count;  // of sets
    const float* bias;  // [c_out], or null: the sums of earlier blocks go on
    bool rectifies;
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
