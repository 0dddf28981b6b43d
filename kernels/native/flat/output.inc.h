// Output: sums of a tile -> NCHW, channels_last or blocked.

namespace {

struct Tile {
    int64_t begin;    // first float
    int64_t vectors;
};

// Calls f(position, row, column, count) for each run of positions of a tile that belong to one row of the output; the
// columns between w_out and the pitch are left out. A position is `width` floats.
template <typename F>
inline void for_each_run(const sparseplan::FlatPlan& plan, Tile tile, int64_t width, F f) {
    const int64_t begin = tile.begin / width, vectors_end = (tile.begin + tile.vectors * kLanes) / width;
    const int64_t end = smaller(vectors_end, (plan.h_out - 1) * plan.pitch + plan.w_out);
    int64_t row = begin / plan.pitch, column = begin % plan.pitch;
    for (int64_t position = begin; position < end; ++row, column = 0) {
        const int64_t count = smaller(row * plan.pitch + plan.w_out, end) - position;
        if (count > 0) f(position - begin, row, column, count);
        position = (row + 1) * plan.pitch;
    }
}

// One channel of one image, or of one block where y is blocked.
void write_rows(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, const Target& plane) {
    const int64_t width = plan.images;
    for_each_run(plan, tile, width, [&](int64_t position, int64_t row, int64_t column, int64_t count) {
        put_row(sums + position * width, plane.at((row * plan.w_out + column) * width), count * width);
    });
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

// Sums of consecutive channels, `stride` apart, of up to kLanes pixels or images -> to[lane * to_stride + channel].
inline void write_channels(const float* sums, int64_t stride, int64_t channels, const Target& to, int64_t to_stride,
                           int lanes) {
    for (int64_t k = 0; k < channels; k += kLanes) {
        const int some = static_cast<int>(smaller(channels - k, kLanes));
        const float* from[kLanes];
        for (int i = 0; i < some; ++i) from[i] = sums + (k + i) * stride;
        deinterleave(from, some, to.at(k), to_stride, lanes);
    }
}

// Consecutive output channels are consecutive in memory: channels_last, or one pixel an image.
void write_nhwc(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, int64_t channels, const Target& to,
                int64_t images) {
    const int64_t stride = plan.tile * kLanes, image_stride = plan.c_out * plan.h_out * plan.w_out;
    if (plan.images == 1) {
        for_each_run(plan, tile, 1, [&](int64_t position, int64_t row, int64_t column, int64_t count) {
            const Target pixels = to.at((row * plan.w_out + column) * plan.c_out);
            for (int64_t i = 0; i < count; i += kLanes) {
                const int lanes = static_cast<int>(smaller(count - i, kLanes));
                write_channels(sums + position + i, stride, channels, pixels.at(i * plan.c_out), plan.c_out, lanes);
            }
        });
        return;
    }
    const int64_t groups = plan.images / kLanes;
    for (int64_t t = 0; t < tile.vectors; ++t) {
        const int64_t vector = tile.begin / kLanes + t, position = vector / groups, image = vector % groups * kLanes;
        const int64_t row = position / plan.pitch, column = position % plan.pitch;
        if (column >= plan.w_out) continue;
        const Target pixel = to.at(image * image_stride + (row * plan.w_out + column) * plan.c_out);
        write_channels(sums + t * kLanes, stride, channels, pixel, image_stride, present_lanes(images, image));
    }
}

// Sums of `channels` output channels from k on.
void write_tile(const sparseplan::FlatPlan& plan, Tile tile, const float* sums, int64_t k, int64_t channels,
                const Target& to, int64_t images) {
    const int64_t pixels = plan.h_out * plan.w_out, stride = plan.tile * kLanes, pixel = pixel_floats(plan);
    const bool interleaves = pixel < plan.images;
    if (plan.layout == sparseplan::FlatLayout::nhwc || (interleaves && pixels == 1)) {
        write_nhwc(plan, tile, sums, channels, to.at(k), images);
        return;
    }
    for (int64_t i = 0; i < channels; ++i) {
        const Target plane = to.at((k + i) * pixels * pixel);
        if (interleaves) {
            write_interleaved(plan, tile, sums + i * stride, plane, static_cast<int>(images));
        } else {
            write_rows(plan, tile, sums + i * stride, plane);
        }
    }
}

}  // namespace
