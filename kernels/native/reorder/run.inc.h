// Transpositions of kLanes images with as many pixels (NCHW) or channels (channels_last). Included after simd/*.h.

#include "flat/move.inc.h"

namespace {

struct BlockSpan {
    int64_t first;  // image
    int images;     // of the block's lanes
};

inline BlockSpan block_span(const sparseplan::ReorderPlan& plan, int64_t block) {
    return {block * kLanes, present_lanes(plan.n, block * kLanes)};
}

// Channel `c` of a block.
void reorder_plane(const sparseplan::ReorderPlan& plan, int64_t block, int64_t c, const float* x, float* y) {
    const BlockSpan span = block_span(plan, block);
    const int64_t image = plan.channels * plan.pixels, blocked = (block * plan.channels + c) * plan.pixels * kLanes;
    const int64_t plane = span.first * image + c * plan.pixels;
    if (plan.direction == sparseplan::Reorder::nchw_to_blocked) {
        interleave(x + plane, image, span.images, plan.pixels, y + blocked, kLanes);
        return;
    }
    for (int64_t p = 0; p < plan.pixels; p += kLanes) {
        const int count = static_cast<int>(smaller(plan.pixels - p, kLanes));
        const float* from[kLanes];
        for (int i = 0; i < count; ++i) from[i] = x + blocked + (p + i) * kLanes;
        deinterleave(from, count, Target{y + plane + p, nullptr, false}, image, span.images);
    }
}

// Channels [c, c + kLanes) of a block.
void reorder_channels(const sparseplan::ReorderPlan& plan, int64_t block, int64_t c, const float* x, float* y) {
    const BlockSpan span = block_span(plan, block);
    const int64_t image = plan.channels * plan.pixels, stride = plan.pixels * kLanes;
    const int count = static_cast<int>(smaller(plan.channels - c, kLanes));
    for (int64_t p = 0; p < plan.pixels; ++p) {
        const int64_t nhwc = span.first * image + p * plan.channels + c;
        const int64_t blocked = (block * plan.channels + c) * stride + p * kLanes;
        if (plan.direction == sparseplan::Reorder::nhwc_to_blocked) {
            const Lines from{x + nhwc, image, span.images, plan.channels * kPixelsAhead};
            move_channels(from, count, y + blocked, stride, true);
            continue;
        }
        const float* from[kLanes];
        for (int i = 0; i < count; ++i) from[i] = x + blocked + i * stride;
        deinterleave(from, count, Target{y + nhwc, nullptr, false}, image, span.images);
    }
}

void run_reorder(const sparseplan::ReorderPlan& plan, const float* x, float* y, int threads) {
    const bool planes = plan.direction == sparseplan::Reorder::nchw_to_blocked ||
                        plan.direction == sparseplan::Reorder::blocked_to_nchw;
    const int64_t blocks = (plan.n + kLanes - 1) / kLanes, step = planes ? 1 : kLanes;
    const int64_t parts = (plan.channels + step - 1) / step;
    run_team(threads, [&] {
        share_static(blocks * parts, [&](int64_t task) {
            const int64_t block = task / parts, c = task % parts * step;
            if (planes) {
                reorder_plane(plan, block, c, x, y);
            } else {
                reorder_channels(plan, block, c, x, y);
            }
        });
    });
}

}  // namespace
