// Input: NCHW or blocked -> padded phases; the split of strided input into phases makes every stride a unit stride.

namespace {

// One input row of `Lanes` images at a time, its pixels dealt out to the phases in turn. `to` is the row in the first
// phase, already advanced to the lanes.
void deal_row(const sparseplan::FlatPlan& plan, const Scalar* from, int images, Scalar* to) {
    const int64_t image_stride = plan.c_in * plan.h_in * plan.w_in;
    int64_t position = plan.pad_w / plan.stride_w, phase = plan.pad_w % plan.stride_w;
    for (int64_t column = 0; column < plan.w_in; column += kLanes) {
        const int count = static_cast<int>(smaller(plan.w_in - column, kLanes));
        Vec v[kLanes];
        load_images(from + column, image_stride, images, count, v);
        for (int i = 0; i < count; ++i) {
            for (int64_t b = 0; b < plan.phases_w_count; ++b) {
                if (plan.phases_w[b] == phase && position < plan.pitch) {
                    store(to + b * plan.phase_floats + position * plan.images, v[i]);
                }
            }
            if (++phase == plan.stride_w) {
                phase = 0;
                ++position;
            }
        }
    }
}

// One input row of a block of images into all column phases; `to` is the row in the first of them.
void copy_phases(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t images, Scalar* to) {
    const int64_t image_stride = plan.c_in * plan.h_in * plan.w_in, pixel = pixel_floats(plan);
    const bool interleaves = pixel < plan.images;
    for (int64_t b = 0; b < plan.phases_w_count; ++b) {
        const Span valid = valid_columns(plan, plan.phases_w[b]);
        const int64_t x = valid.begin * plan.stride_w + plan.phases_w[b] - plan.pad_w, count = valid.end - valid.begin;
        Scalar* row = to + b * plan.phase_floats;
        zero_row(row, valid.begin * plan.images);
        zero_row(row + valid.end * plan.images, (plan.pitch - valid.end) * plan.images);
        Scalar* inside = row + valid.begin * plan.images;
        if (!interleaves && plan.stride_w == 1) {
            copy_row(from + x * pixel, inside, count * pixel);
        } else if (!interleaves && pixel == 1) {
            for (int64_t i = 0; i < count; ++i) inside[i] = from[x + i * plan.stride_w];
        } else if (!interleaves) {
            for (int64_t i = 0; i < count; ++i) store(inside + i * pixel, load(from + (x + i * plan.stride_w) * pixel));
        } else if (plan.stride_w == 1) {
            for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
                interleave(from + lane * image_stride + x, image_stride, present_lanes(images, lane), count,
                           inside + lane, plan.images);
            }
        }
    }
    if (!interleaves || plan.stride_w == 1) return;
    for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
        deal_row(plan, from + lane * image_stride, present_lanes(images, lane), to + lane);
    }
}

// Rows [rows.begin, rows.end) of every phase, and what lies beyond: padding right of a row is that left of the next one.
void copy_channel(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t images, Span rows, Scalar* to) {
    Scalar* const end = to + plan.channel_floats;
    const bool fills = rows.end == plan.rows;
    for (int64_t a = 0; a < plan.phases_h_count; ++a) {
        Scalar* row = to + rows.begin * plan.pitch * plan.images;
        for (int64_t y = rows.begin; y < rows.end; ++y, row += plan.pitch * plan.images) {
            const int64_t y_in = y * plan.stride_h + plan.phases_h[a] - plan.pad_h;
            if (y_in >= 0 && y_in < plan.h_in) {
                copy_phases(plan, from + y_in * plan.w_in * pixel_floats(plan), images, row);
                continue;
            }
            for (int64_t b = 0; b < plan.phases_w_count; ++b) {
                zero_row(row + b * plan.phase_floats, plan.pitch * plan.images);
            }
        }
        const int64_t rest = plan.phase_floats - plan.rows * plan.pitch * plan.images;
        for (int64_t b = 0; b < plan.phases_w_count; ++b) {
            zero_row(row + b * plan.phase_floats, fills ? rest : left_padding(plan, plan.phases_w[b]));
        }
        to += plan.phases_w_count * plan.phase_floats;
    }
    if (fills) zero_row(to, end - to);
}

// Rows of all channels of a block of images; `x` is the block's first image.
void copy_channels(const sparseplan::FlatPlan& plan, const Scalar* x, int64_t images, Span rows, Scalar* to) {
    const bool blocked = plan.layout == sparseplan::FlatLayout::blocked;
    if (plan.layout == sparseplan::FlatLayout::nhwc) {
        copy_nhwc(plan, x, images, rows, to);
        return;
    }
    if (plan.images > 1 && !blocked && plan.h_in * plan.w_in * plan.rows * plan.pitch == 1) {
        // One pixel an image: the channels are what lies side by side.
        for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
            interleave(x + lane * plan.c_in, plan.c_in, present_lanes(images, lane), plan.c_in, to + lane,
                       plan.channel_floats);
        }
        return;
    }
    for (int64_t c = 0; c < plan.c_in; ++c) {
        copy_channel(plan, x + c * plan.h_in * plan.w_in * pixel_floats(plan), images, rows,
                     to + c * plan.channel_floats);
    }
}

}  // namespace
