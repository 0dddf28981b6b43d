// Input: channels_last -> padded phases, as many channels at a time as a vector has lanes.

namespace {

// What a position of x or y has beside each other in memory.
inline int64_t pixel_floats(const sparseplan::FlatPlan& plan) {
    return plan.layout == sparseplan::FlatLayout::blocked ? plan.images : 1;
}

struct Span {
    int64_t begin, end;  // positions of a phase that hold input; the rest of the pitch is padding
};

inline Span valid_columns(const sparseplan::FlatPlan& plan, int64_t phase) {
    const int64_t lead = plan.pad_w - phase, last = plan.w_in - 1 + plan.pad_w - phase;
    const int64_t begin = smaller(lead > 0 ? (lead + plan.stride_w - 1) / plan.stride_w : 0, plan.pitch);
    const int64_t end = last < 0 ? 0 : last / plan.stride_w + 1;
    return {begin, larger(begin, smaller(end, plan.pitch))};
}

inline int64_t left_padding(const sparseplan::FlatPlan& plan, int64_t phase) {
    return valid_columns(plan, phase).begin * plan.images;
}

inline void zero_rows(Scalar* to, int64_t count, int64_t stride, int rows) {
    for (int i = 0; i < rows; ++i) zero_row(to + i * stride, count);
}

// One input row into one column phase; `from` is the row's first pixel, `to` the first channel's row.
void copy_nhwc_row(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t images, int channels, int64_t phase,
                   Scalar* to) {
    const int64_t image_stride = plan.c_in * plan.h_in * plan.w_in, step = plan.c_in * plan.stride_w;
    const Span valid = valid_columns(plan, phase);
    const int64_t count = valid.end - valid.begin;
    zero_rows(to, valid.begin * plan.images, plan.channel_floats, channels);
    zero_rows(to + valid.end * plan.images, (plan.pitch - valid.end) * plan.images, plan.channel_floats, channels);
    from += (valid.begin * plan.stride_w + phase - plan.pad_w) * plan.c_in;
    to += valid.begin * plan.images;
    if (plan.images == 1) {
        for (int64_t i = 0; i < count; i += kLanes) {
            const Lines pixels{from + i * step, step, present_lanes(count, i), step * kLanes};
            move_channels(pixels, channels, to + i, plan.channel_floats, false);
        }
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
            const Lines block{from + i * step + lane * image_stride, image_stride, present_lanes(images, lane),
                              step * kPixelsAhead};
            move_channels(block, channels, to + i * plan.images + lane, plan.channel_floats, true);
        }
    }
}

// Rows [rows.begin, rows.end) of all phases of a block of images, `from` its first, and what lies beyond: padding right of
// a row is that left of the next one. A row at a time: its pixels hold all channels.
void copy_nhwc(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t images, Span rows, Scalar* to) {
    const int64_t row_floats = plan.pitch * plan.images, stride = plan.channel_floats;
    const int channels = static_cast<int>(plan.c_in);
    const bool fills = rows.end == plan.rows;
    int64_t at = 0;
    for (int64_t a = 0; a < plan.phases_h_count; ++a) {
        for (int64_t b = 0; b < plan.phases_w_count; ++b, at += plan.phase_floats) {
            for (int64_t y = rows.begin; y < rows.end; ++y) {
                const int64_t y_in = y * plan.stride_h + plan.phases_h[a] - plan.pad_h;
                Scalar* row = to + at + y * row_floats;
                if (y_in < 0 || y_in >= plan.h_in) {
                    zero_rows(row, row_floats, stride, channels);
                    continue;
                }
                const Scalar* pixels = from + y_in * plan.w_in * plan.c_in;
                for (int64_t c = 0; c < plan.c_in; c += kLanes) {
                    copy_nhwc_row(plan, pixels + c, images, static_cast<int>(smaller(plan.c_in - c, kLanes)),
                                  plan.phases_w[b], row + c * stride);
                }
            }
            const int64_t rest = fills ? plan.phase_floats - plan.rows * row_floats : left_padding(plan, plan.phases_w[b]);
            zero_rows(to + at + rows.end * row_floats, rest, stride, channels);
        }
    }
    if (fills) zero_rows(to + at, stride - at, stride, channels);
}

}  // namespace
