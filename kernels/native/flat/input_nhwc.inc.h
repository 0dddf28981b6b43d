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

// Channels [begin, end) of one input row into one column phase: `from` is the row's first pixel, `to` channel 0's row.
inline void copy_nhwc_channels(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t images, int64_t begin,
                               int64_t end, int64_t phase, Scalar* to) {
    for (int64_t c = begin; c < end; c += kLanes) {
        copy_nhwc_row(plan, from + c, images, static_cast<int>(smaller(end - c, kLanes)), phase,
                      to + c * plan.channel_floats);
    }
}

// Channels [begin, end) of a block of images, `from` its first. A row at a time: its pixels hold all channels.
void copy_nhwc(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t images, int64_t begin, int64_t end,
               Scalar* to) {
    const int64_t row_floats = plan.pitch * plan.images, stride = plan.channel_floats;
    const int channels = static_cast<int>(end - begin);
    int64_t at = 0;
    for (int64_t a = 0; a < plan.phases_h_count; ++a) {
        for (int64_t b = 0; b < plan.phases_w_count; ++b, at += plan.phase_floats) {
            for (int64_t y = 0; y < plan.rows; ++y) {
                const int64_t y_in = y * plan.stride_h + plan.phases_h[a] - plan.pad_h;
                Scalar* row = to + at + y * row_floats;
                if (y_in >= 0 && y_in < plan.h_in) {
                    copy_nhwc_channels(plan, from + y_in * plan.w_in * plan.c_in, images, begin, end, plan.phases_w[b],
                                       row);
                } else {
                    zero_rows(row + begin * stride, row_floats, stride, channels);
                }
            }
            const int64_t filled = plan.rows * row_floats;
            zero_rows(to + begin * stride + at + filled, plan.phase_floats - filled, stride, channels);
        }
    }
    zero_rows(to + begin * stride + at, stride - at, stride, channels);
}

}  // namespace
