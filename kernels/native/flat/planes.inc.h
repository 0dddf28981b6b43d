// Input of unit stride: whole planes, with what is the same for all rows computed once. See input.inc.h for the rest.

namespace {

// At least `count` zeros; up to a vector more, which whoever writes on from there overwrites.
inline void zero_ahead(Scalar* to, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) store(to + i, zero());
}

// `count` values, and zeros up to the next whole vector.
inline void copy_ahead(const Scalar* from, Scalar* to, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
    if (i < count) store(to + i, load_first(from + i, static_cast<int>(count - i)));
}

// Rows [rows.begin, rows.end) of all channels of a block of images, in order; writes up to a vector beyond the last.
void copy_planes(const sparseplan::FlatPlan& plan, const Scalar* x, int64_t images, Span rows, Scalar* to) {
    const int64_t image_stride = plan.c_in * plan.h_in * plan.w_in, row_floats = plan.pitch * plan.images;
    const Span valid = valid_columns(plan, 0);
    const int64_t count = valid.end - valid.begin, lead = valid.begin * plan.images;
    const int64_t filled = plan.images == 1 ? (count + kLanes - 1) / kLanes * kLanes : count * plan.images;
    const Span present{larger(rows.begin, smaller(plan.pad_h, plan.rows)),
                       smaller(rows.end, smaller(plan.pad_h + plan.h_in, plan.rows))};
    const int64_t end = rows.end == plan.rows ? plan.channel_floats : rows.end * row_floats + lead;
    for (int64_t c = 0; c < plan.c_in; ++c, x += plan.h_in * plan.w_in, to += plan.channel_floats) {
        zero_ahead(to + rows.begin * row_floats, (present.begin - rows.begin) * row_floats + lead);
        const Scalar* from = x + (present.begin - plan.pad_h) * plan.w_in + valid.begin - plan.pad_w;
        Scalar* row = to + present.begin * row_floats + lead;
        for (int64_t y = present.begin; y < present.end; ++y, from += plan.w_in, row += row_floats) {
            if (plan.images == 1) {
                __builtin_prefetch(row + 256, 1);
                copy_ahead(from, row, count);
            } else {
                for (int64_t lane = 0; lane < plan.images; lane += kLanes) {
                    interleave(from + lane * image_stride, image_stride, present_lanes(images, lane), count, row + lane,
                               plan.images);
                }
            }
            zero_ahead(row + filled, row_floats - filled);
        }
        zero_ahead(row, to + end - row);
    }
}

}  // namespace
