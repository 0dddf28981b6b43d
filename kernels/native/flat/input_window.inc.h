// Input of a convolution with a rim, a tile and a block of input channels at a time: the padded phases under the tile, which
// stay near while all output channels read them. Interleaved images out of channels_last or blocked memory.

namespace {

// Positions [begin, end) of an axis of a window that hold input, the rest is padding, and where the first lies in the input.
struct Inside {
    int64_t begin, end, from;
};

// `count` positions of a phase from position `first` on.
inline Inside inside_of(int64_t first, int64_t count, int64_t stride, int64_t phase, int64_t pad, int64_t size) {
    const int64_t at = first * stride + phase - pad;
    const int64_t begin = smaller(count, at < 0 ? (-at + stride - 1) / stride : 0);
    const int64_t end = at < size ? smaller(count, (size - at + stride - 1) / stride) : 0;
    return {begin, larger(begin, end), at + begin * stride};
}

// Calls f(row, inside) for the rows of all phases under an area: `row` is where it lies in a channel of the window, `pixel`
// where its first input lies in the image, if any.
template <typename F>
inline void for_each_window_row(const sparseplan::FlatPlan& plan, const Area& area, F f) {
    const int64_t rows = area.row_count() + plan.rows - plan.tile_rows;
    const int64_t columns = area.column_count() + plan.pitch - plan.tile_columns;
    int64_t at = 0;
    for (int64_t a = 0; a < plan.phases_h_count; ++a) {
        const Inside down = inside_of(area.rows.begin, rows, plan.stride_h, plan.phases_h[a], plan.pad_h, plan.h_in);
        for (int64_t b = 0; b < plan.phases_w_count; ++b, at += plan.phase_floats) {
            Inside across =
                inside_of(area.columns.begin, columns, plan.stride_w, plan.phases_w[b], plan.pad_w, plan.w_in);
            for (int64_t y = 0; y < rows; ++y) {
                const bool is_padding = y < down.begin || y >= down.end;
                const int64_t y_in = down.from + (y - down.begin) * plan.stride_h;
                f(at + y * plan.pitch * plan.images, columns, is_padding ? Inside{columns, columns, 0} : across,
                  y_in * plan.w_in + across.from);
            }
        }
    }
}

// Channels [channels.begin, channels.end) -> to[(channel - channels.begin) * channel_floats + position * images + image].
// `x` is the block's first image.
void copy_window(const sparseplan::FlatPlan& plan, const Scalar* x, int64_t images, const Area& area, Span channels,
                 Scalar* to) {
    const int64_t pixels = plan.h_in * plan.w_in, stride = plan.channel_floats;
    if (plan.layout == sparseplan::FlatLayout::nhwc) {
        const int64_t image_stride = plan.c_in * pixels, step = plan.stride_w * plan.c_in;
        for_each_window_row(plan, area, [&](int64_t row, int64_t columns, const Inside& inside, int64_t pixel) {
            const int64_t count = channels.end - channels.begin;
            for (int64_t i = 0; i < columns; ++i) {
                Scalar* const at = to + row + i * kLanes;
                if (i < inside.begin || i >= inside.end) {
                    for (int64_t c = 0; c < count; ++c) store(at + c * stride, zero());
                    continue;
                }
                const Scalar* const from = x + pixel * plan.c_in + (i - inside.begin) * step + channels.begin;
                for (int64_t c = 0; c < count; c += kLanes) {
                    move_channels({from + c, image_stride, static_cast<int>(images), step * kPixelsAhead},
                                  present_lanes(count, c), at + c * stride, stride, true);
                }
            }
        });
        return;
    }
    const int64_t plane = pixels * kLanes, step = plan.stride_w * kLanes;
    const Scalar* from = x + channels.begin * plane;
    for (int64_t c = channels.begin; c < channels.end; ++c, from += plane, to += stride) {
        const int64_t ahead = c + kChannelsAhead < plan.c_in ? kChannelsAhead * plane : 0;
        for_each_window_row(plan, area, [&](int64_t row, int64_t columns, const Inside& inside, int64_t pixel) {
            Scalar* const at = to + row;
            int64_t i = 0;
            for (; i < inside.begin; ++i) store(at + i * kLanes, zero());
            const Scalar* line = from + pixel * kLanes;
            for (; i < inside.end; ++i, line += step) {
                __builtin_prefetch(line + ahead);
                store(at + i * kLanes, load(line));
            }
            for (; i < columns; ++i) store(at + i * kLanes, zero());
        });
    }
}

}  // namespace
