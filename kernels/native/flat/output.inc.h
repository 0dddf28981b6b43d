// Output: sums of a tile -> NCHW, channels_last or blocked.

namespace {

// Part of a plane of output that a tile covers; columns are vectors.
struct Area {
    struct Size {
        int64_t rows, columns;
    };

    Span rows, columns;

    int64_t row_count() const { return rows.end - rows.begin; }
    int64_t column_count() const { return columns.end - columns.begin; }
};

// Vectors of positions: calls f(sum, row, column, count) for each run of a tile's sums that belongs to one row of the
// output; the columns between w_out and the pitch are left out, and where there are none all rows are one.
template <typename F>
inline void for_each_run(const sparseplan::FlatPlan& plan, Span columns, F f) {
    const int64_t begin = columns.begin * kLanes;
    const int64_t end = smaller(columns.end * kLanes, (plan.h_out - 1) * plan.pitch + plan.w_out);
    int64_t row = begin / plan.pitch, column = begin % plan.pitch;
    if (plan.pitch == plan.w_out) {
        if (begin < end) f(0, row, column, end - begin);
        return;
    }
    for (int64_t position = begin; position < end; ++row, column = 0) {
        const int64_t count = smaller(row * plan.pitch + plan.w_out, end) - position;
        if (count > 0) f(position - begin, row, column, count);
        position = (row + 1) * plan.pitch;
    }
}

// One vector a pixel: calls f(sum, pixel, pixels) for each run of a tile's sums whose pixels follow each other in y.
template <typename F>
inline void for_each_pixel_run(const sparseplan::FlatPlan& plan, const Area& area, F f) {
    const bool whole = area.column_count() == plan.area_columns;
    const int64_t runs = whole ? 1 : area.row_count();
    const int64_t pixels = area.column_count() * (whole ? area.row_count() : 1);
    for (int64_t run = 0; run < runs; ++run) {
        f(run * pixels * kLanes, (area.rows.begin + run) * plan.area_columns + area.columns.begin, pixels);
    }
}

// One channel of one image.
void write_flat(const sparseplan::FlatPlan& plan, Span columns, const float* sums, const Target& plane) {
    for_each_run(plan, columns, [&](int64_t sum, int64_t row, int64_t column, int64_t count) {
        put_row(sums + sum, plane.at(row * plan.w_out + column), count);
    });
}

// One channel of a block of images, which stays interleaved.
void write_blocked(const sparseplan::FlatPlan& plan, const Area& area, const float* sums, const Target& plane) {
    for_each_pixel_run(plan, area, [&](int64_t sum, int64_t pixel, int64_t pixels) {
        put_vectors(sums + sum, plane.at(pixel * kLanes), pixels * kLanes);
    });
}

// One channel of interleaved images.
void write_interleaved(const sparseplan::FlatPlan& plan, const Area& area, const float* sums, const Target& plane,
                       int images) {
    const int64_t image_stride = plan.c_out * plan.h_out * plan.w_out;
    for_each_pixel_run(plan, area, [&](int64_t sum, int64_t pixel, int64_t pixels) {
        for (int64_t i = 0; i < pixels; i += kLanes) {
            const int some = static_cast<int>(smaller(pixels - i, kLanes));
            const float* from[kLanes];
            for (int j = 0; j < some; ++j) from[j] = sums + sum + (i + j) * kLanes;
            deinterleave(from, some, plane.at(pixel + i), image_stride, images);
        }
    });
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
void write_nhwc(const sparseplan::FlatPlan& plan, const Area& area, const float* sums, int64_t channels,
                const Target& to, int64_t images) {
    const int64_t stride = plan.tile * kLanes, image_stride = plan.c_out * plan.h_out * plan.w_out;
    if (plan.images == 1) {
        for_each_run(plan, area.columns, [&](int64_t sum, int64_t row, int64_t column, int64_t count) {
            const Target pixels = to.at((row * plan.w_out + column) * plan.c_out);
            for (int64_t i = 0; i < count; i += kLanes) {
                const int lanes = static_cast<int>(smaller(count - i, kLanes));
                write_channels(sums + sum + i, stride, channels, pixels.at(i * plan.c_out), plan.c_out, lanes);
            }
        });
        return;
    }
    const int64_t groups = plan.images / kLanes;  // more than one only where an image is one pixel
    for (int64_t row = area.rows.begin; row < area.rows.end; ++row) {
        for (int64_t column = area.columns.begin; column < area.columns.end; ++column, sums += kLanes) {
            const int64_t vector = row * plan.area_columns + column, image = vector % groups * kLanes;
            const Target pixel = to.at(image * image_stride + vector / groups * plan.c_out);
            write_channels(sums, stride, channels, pixel, image_stride, present_lanes(images, image));
        }
    }
}

// Sums of `channels` output channels from k on.
void write_tile(const sparseplan::FlatPlan& plan, const Area& area, const float* sums, int64_t k, int64_t channels,
                const Target& to, int64_t images) {
    const int64_t pixels = plan.h_out * plan.w_out, stride = plan.tile * kLanes, pixel = pixel_floats(plan);
    const bool interleaves = pixel < plan.images;
    if (plan.layout == sparseplan::FlatLayout::nhwc || (interleaves && pixels == 1)) {
        write_nhwc(plan, area, sums, channels, to.at(k), images);
        return;
    }
    for (int64_t i = 0; i < channels; ++i, sums += stride) {
        const Target plane = to.at((k + i) * pixels * pixel);
        if (interleaves) {
            write_interleaved(plan, area, sums, plane, static_cast<int>(images));
        } else if (plan.images > 1) {
            write_blocked(plan, area, sums, plane);
        } else {
            write_flat(plan, area.columns, sums, plane);
        }
    }
}

}  // namespace
