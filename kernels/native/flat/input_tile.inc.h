// Input of a pointwise convolution, a tile at a time: what the tile reads stays in level 2.

namespace {

constexpr int64_t kChannelsAhead = 2;  // each lies in pages of its own, where no hardware prefetch begins in time

// Output pixels that follow each other in a row of the image, or all where no stride is between them.
struct PixelRun {
    int64_t at, from, count;  // among those of the tile, the first one's input pixel, and how many
};

// Calls f(run) for the runs of `count` output pixels from `begin` on.
template <typename F>
inline void for_each_input_run(const sparseplan::FlatPlan& plan, int64_t begin, int64_t count, F f) {
    if (plan.stride_h == 1 && plan.stride_w == 1) {
        f(PixelRun{0, begin, count});
        return;
    }
    for (int64_t i = 0; i < count;) {
        const int64_t row = (begin + i) / plan.w_out, column = (begin + i) % plan.w_out;
        const int64_t some = smaller(plan.w_out - column, count - i);
        f(PixelRun{i, row * plan.stride_h * plan.w_in + column * plan.stride_w, some});
        i += some;
    }
}

// One channel of a run out of NCHW or blocked memory.
inline void copy_run(const sparseplan::FlatPlan& plan, const Scalar* from, int64_t count, Scalar* to) {
    const int64_t pixel = pixel_floats(plan);
    if (plan.stride_w == 1) {
        copy_row(from, to, count * pixel);
    } else if (pixel == 1) {
        for (int64_t i = 0; i < count; ++i) to[i] = from[i * plan.stride_w];
    } else {
        for (int64_t i = 0; i < count; ++i) store(to + i * pixel, load(from + i * plan.stride_w * pixel));
    }
}

// All channels of a run out of channels_last memory.
inline void copy_nhwc_run(const sparseplan::FlatPlan& plan, const Scalar* x, int64_t images, const PixelRun& run,
                          Scalar* to) {
    const int64_t pixels = plan.h_in * plan.w_in, stride = plan.channel_floats, step = plan.c_in * plan.stride_w;
    const bool one = plan.images == 1;
    const int64_t chunk = one ? kLanes : 1;
    for (int64_t i = 0; i < run.count; i += chunk) {
        const int lines = one ? present_lanes(run.count, i) : static_cast<int>(images);
        const Scalar* from = x + run.from * plan.c_in + i * step;
        for (int64_t c = 0; c < plan.c_in; c += kLanes) {
            const Lines channels{from + c, one ? step : plan.c_in * pixels, lines, chunk * step};
            move_channels(channels, present_lanes(plan.c_in, c), to + c * stride + (run.at + i) * plan.images, stride,
                          !one);
        }
    }
}

// All channels of `count` output pixels from `begin` on -> to[channel * channel_floats + pixel * images + image], out of
// channels_last or blocked memory, or of NCHW one image at a time. `x` is the block's first image. Pixels that a last
// vector lacks hold anything: their sums are not written.
void copy_tile(const sparseplan::FlatPlan& plan, const Scalar* x, int64_t images, int64_t begin, int64_t count,
               Scalar* to) {
    if (plan.layout == sparseplan::FlatLayout::nhwc) {
        for_each_input_run(plan, begin, count,
                           [&](const PixelRun& run) { copy_nhwc_run(plan, x, images, run, to); });
        return;
    }
    const int64_t pixel = pixel_floats(plan), plane = plan.h_in * plan.w_in * pixel;
    for (int64_t c = 0; c < plan.c_in; ++c) {
        const Scalar* from = x + c * plane;
        Scalar* const channel = to + c * plan.channel_floats;
        for_each_input_run(plan, begin, count, [&](const PixelRun& run) {
            const Scalar* const first = from + run.from * pixel;
            if (c + kChannelsAhead < plan.c_in) {
                for (int64_t i = 0; i < run.count * plan.stride_w * pixel; i += kLanes) {
                    __builtin_prefetch(first + kChannelsAhead * plane + i);
                }
            }
            copy_run(plan, first, run.count, channel + run.at * pixel);
        });
    }
}

}  // namespace
