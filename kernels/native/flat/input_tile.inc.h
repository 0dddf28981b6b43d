// Input of a pointwise convolution of stride 1, a tile at a time: what the tile reads stays in level 2.

namespace {

// All channels of `count` pixels from `begin` on -> to[channel * channel_floats + pixel * images + image], out of
// channels_last memory, or of NCHW one image at a time. `x` is the block's first image. Pixels that a last vector lacks
// hold anything: their sums are not written.
void copy_tile(const sparseplan::FlatPlan& plan, const Scalar* x, int64_t images, int64_t begin, int64_t count,
               Scalar* to) {
    const int64_t pixels = plan.h_in * plan.w_in, stride = plan.channel_floats;
    if (plan.layout == sparseplan::FlatLayout::nchw) {
        for (int64_t c = 0; c < plan.c_in; ++c) copy_row(x + c * pixels + begin, to + c * stride, count);
        return;
    }
    const bool one = plan.images == 1;
    const int64_t chunk = one ? kLanes : 1, step = one ? plan.c_in : plan.c_in * pixels;
    for (int64_t i = 0; i < count; i += chunk) {
        const int lines = one ? present_lanes(count, i) : static_cast<int>(images);
        for (int64_t c = 0; c < plan.c_in; c += kLanes) {
            const Lines from{x + (begin + i) * plan.c_in + c, step, lines, chunk * plan.c_in};
            move_channels(from, present_lanes(plan.c_in, c), to + c * stride + i * plan.images, stride, true);
        }
    }
}

}  // namespace
