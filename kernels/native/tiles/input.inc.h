// Input: NHWC -> zero-padded phases in NHWC order, the channels of each group rounded up to tiles. The split of
// strided input into phases makes every stride a unit stride along the padded rows, end to end.

#include <cstring>

namespace {

// Pixels of an input row, `stride` apart, to consecutive positions.
inline void copy_pixels(const sparseplan::TilesPlan& plan, const char* from, int64_t stride, int64_t count, char* to) {
    const int64_t pixel_bytes = plan.c_in * plan.value_bytes, group_bytes = pixel_bytes / plan.groups;
    if (stride == 1 && pixel_bytes == plan.position_bytes) {
        std::memcpy(to, from, count * pixel_bytes);
        return;
    }
    const int64_t rest = plan.group_room - group_bytes;
    for (int64_t i = 0; i < count; ++i) {
        const char* pixel = from + i * stride * pixel_bytes;
        char* position = to + i * plan.position_bytes;
        if (rest == 0) {
            std::memcpy(position, pixel, pixel_bytes);
            continue;
        }
        for (int64_t g = 0; g < plan.groups; ++g) {
            std::memcpy(position + g * plan.group_room, pixel + g * group_bytes, group_bytes);
            // These meet zero weights, but what lies here may be NaN.
            std::memset(position + g * plan.group_room + group_bytes, 0, rest);
        }
    }
}

inline void fill_positions(const sparseplan::TilesPlan& plan, char* to, int64_t count) {
    if (count > 0) std::memset(to, plan.fill, count * plan.position_bytes);
}

// One row of the phase (a, b) of an image.
inline void copy_row(const sparseplan::TilesPlan& plan, const char* image, int64_t a, int64_t b, int64_t row, char* to) {
    const int64_t y = row * plan.stride_h + plan.phases_h[a] - plan.pad_h;
    if (y < 0 || y >= plan.h_in) return fill_positions(plan, to, plan.pitch);
    const int64_t lead = plan.pad_w - plan.phases_w[b], last = plan.w_in - 1 + lead;
    int64_t begin = lead > 0 ? (lead + plan.stride_w - 1) / plan.stride_w : 0;
    int64_t end = last < 0 ? 0 : last / plan.stride_w + 1;
    begin = begin < plan.pitch ? begin : plan.pitch;
    end = end < plan.pitch ? end : plan.pitch;
    if (end < begin) end = begin;
    fill_positions(plan, to, begin);
    const int64_t x = begin * plan.stride_w - lead;
    if (end > begin) {
        copy_pixels(plan, image + (y * plan.w_in + x) * plan.c_in * plan.value_bytes, plan.stride_w, end - begin,
                    to + begin * plan.position_bytes);
    }
    fill_positions(plan, to + end * plan.position_bytes, plan.pitch - end);
}

// Rows that copy_rows makes for an image: those of all phases, and one for what a phase has beyond its last row.
inline int64_t copied_rows(const sparseplan::TilesPlan& plan) {
    return plan.phases_h_count * plan.phases_w_count * (plan.rows + 1);
}

inline void copy_rows(const sparseplan::TilesPlan& plan, const char* image, int64_t index, char* to) {
    const int64_t phase = index / (plan.rows + 1), row = index % (plan.rows + 1);
    char* at = to + (phase * plan.phase_positions + row * plan.pitch) * plan.position_bytes;
    if (row < plan.rows) {
        copy_row(plan, image, phase / plan.phases_w_count, phase % plan.phases_w_count, row, at);
    } else {
        fill_positions(plan, at, plan.phase_positions - plan.rows * plan.pitch);
    }
}

}  // namespace
