// Output: sums of a tile -> NCHW.

namespace {

struct Tile {
    int64_t begin;    // first float
    int64_t vectors;
};

// One image: rows of the output without the columns between w_out and the pitch.
void write_flat(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, const Target& plane) {
    const int64_t total = (plan.h_out - 1) * plan.pitch + plan.w_out;
    const int64_t end = smaller(tile.begin + tile.vectors * kLanes, total);
    int64_t row = tile.begin / plan.pitch, column = tile.begin % plan.pitch;
    for (int64_t position = tile.begin; position < end; ++row, column = 0) {
        const int64_t row_end = (row + 1) * plan.pitch;
        const int64_t count = smaller(row * plan.pitch + plan.w_out, end) - position;
        if (count > 0) put_row(sums + (position - tile.begin), plane.at(row * plan.w_out + column), count);
        position = row_end;
    }
}

// Interleaved images, one vector a position: the valid positions of a tile are consecutive pixels of the output.
void write_interleaved(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, const Target& plane,
                       int images) {
    const int64_t begin = tile.begin / kLanes;
    const float* from[kMaxTile];
    int count = 0;
    int64_t pixel = -1;
    for (int64_t t = 0; t < tile.vectors; ++t) {
        const int64_t row = (begin + t) / plan.pitch, column = (begin + t) % plan.pitch;
        if (column >= plan.w_out) continue;
        if (pixel < 0) pixel = row * plan.w_out + column;
        from[count++] = sums + t * kLanes;
    }
    const int64_t image_stride = plan.c_out * plan.h_out * plan.w_out;
    for (int i = 0; i < count; i += kLanes) {
        const int some = static_cast<int>(smaller(count - i, kLanes));
        deinterleave(from + i, some, plane.at(pixel + i), image_stride, images);
    }
}

// One pixel an image: consecutive output channels are consecutive in memory.
void write_pixels(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, int64_t channels, const Target& to,
                  int64_t images) {
    const int64_t sums_stride = plan.tile * kLanes;
    for (int64_t t = 0; t < tile.vectors; ++t) {
        const int64_t image = tile.begin + t * kLanes;
        const int present = present_lanes(images, image);
        for (int64_t k = 0; k < channels; k += kLanes) {
            const int some = static_cast<int>(smaller(channels - k, kLanes));
            const float* from[kLanes];
            for (int i = 0; i < some; ++i) from[i] = sums + (k + i) * sums_stride + t * kLanes;
            deinterleave(from, some, to.at(image * plan.c_out + k), plan.c_out, present);
        }
    }
}

}  // namespace
