// Input of a pointwise convolution of stride 1, a tile at a time: what the tile reads stays in level 2.

namespace {

// All channels of `count` pixels from `begin` on -> to[channel * channel_floats + pixel * images + image]. `x` is the
// block's first image. Pixels that a last vector lacks hold anything: their sums are not written.
void copy_tile(const sparseplan::FlatPlan& plan, const float* x, int64_t images, int64_t begin, int64_t count,
               float* to) {
    const int64_t pixels = plan.h_in * plan.w_in, image_stride = plan.c_in * pixels, stride = plan.channel_floats;
    if (plan.layout == sparseplan::FlatLayout::nhwc) {
        const int64_t chunk = plan.images == 1 ? kLanes : 1, step = plan.images == 1 ? plan.c_in : image_stride;
        for (int64_t i = 0; i < count; i += chunk) {
            const int some = plan.images == 1 ? present_lanes(count, i) : static_cast<int>(images);
            for (int64_t c = 0; c < plan.c_in; c += kLanes) {
                move_channels(x + (begin + i) * plan.c_in + c, step, some, present_lanes(plan.c_in, c),
                              to + c * stride + i * plan.images, stride, true);
            }
        }
        return;
    }
    const int64_t pixel = pixel_floats(plan);
    for (int64_t c = 0; c < plan.c_in; ++c) {
        const float* from = x + (c * pixels + begin) * pixel;
        if (pixel < plan.images) {
            interleave(from, image_stride, static_cast<int>(images), count, to + c * stride, kLanes);
        } else {
            copy_row(from, to + c * stride, count * pixel);
        }
    }
}

}  // namespace
