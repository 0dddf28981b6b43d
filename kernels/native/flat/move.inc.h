// Short copies and transpositions that input and output share.

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// `count` floats; short rows are the rule, so no call of memcpy.
inline void copy_row(const Scalar* from, Scalar* to, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
    if (i < count) {
        const int rest = static_cast<int>(count - i);
        store_first(to + i, load_first(from + i, rest), rest);
    }
}

inline void zero_row(Scalar* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = Scalar{};
}

// How many of the lanes from `lane` on hold images.
inline int present_lanes(int64_t images, int64_t lane) {
    return static_cast<int>(larger(0, smaller(images - lane, kLanes)));
}

// from[image][i] -> v[i][lane] for i < count <= kLanes; lanes beyond `images` become zero.
inline void load_images(const Scalar* from, int64_t image_stride, int images, int count, Vec (&v)[kLanes]) {
    for (int lane = 0; lane < kLanes; ++lane) {
        v[lane] = lane < images ? load_first(from + lane * image_stride, count) : zero();
    }
    transpose(v);
}

// from[image][column] -> to[column][lane].
void interleave(const Scalar* from, int64_t image_stride, int images, int64_t columns, Scalar* to, int64_t to_stride) {
    for (int64_t column = 0; column < columns; column += kLanes) {
        const int count = static_cast<int>(smaller(columns - column, kLanes));
        Vec v[kLanes];
        load_images(from + column, image_stride, images, count, v);
        for (int i = 0; i < count; ++i) store(to + (column + i) * to_stride, v[i]);
    }
}

// Pixels or images with their channels side by side. Each line is read once, and too many run side by side for the
// hardware to foresee: those `ahead` floats further are asked for by hand.
struct Lines {
    const Scalar* from;
    int64_t stride;
    int count;  // at most kLanes
    int64_t ahead;
};
constexpr int64_t kPixelsAhead = 4;  // about as many lines of 16 images as a memory access takes to arrive

// line i, channel c -> to[c * stride + i]; lines that a vector lacks are zero, and written where `whole`.
inline void move_channels(const Lines& lines, int channels, Scalar* to, int64_t stride, bool whole) {
    Vec v[kLanes];
    for (int i = 0; i < kLanes; ++i) {
        const Scalar* line = lines.from + i * lines.stride;
        if (i < lines.count) __builtin_prefetch(line + lines.ahead);
        v[i] = i >= lines.count ? zero() : channels == kLanes ? load(line) : load_first(line, channels);
    }
    transpose(v);
    for (int c = 0; c < channels; ++c) {
        if (whole || lines.count == kLanes) {
            store(to + c * stride, v[c]);
        } else {
            store_first(to + c * stride, v[c], lines.count);
        }
    }
}

// Where sums go, and what is added on the way: a residual of the same memory order, then the rectifier.
struct Target {
    Scalar* y;
    const Scalar* residual;  // or null: then the sums are final
    bool relu;
    bool streams = false;  // more output than the last cache keeps: past it, as a line is not read before it is written

    Target at(int64_t offset) const {
        return {y + offset, residual == nullptr ? nullptr : residual + offset, relu, streams};
    }

    Vec finish(int64_t offset, Vec v, int count) const {
        v = add(v, load_first(residual + offset, count));
        return relu ? positive(v) : v;
    }
};

// Reads whole vectors of sums.
inline void put_row(const float* sums, const Target& to, int64_t count) {
    Scalar* const y = to.y;
    const bool adds = to.residual != nullptr;
    for (int64_t i = 0; i < count; i += kLanes) {
        const int some = present_lanes(count, i);
        const Vec v = adds ? to.finish(i, load_sums(sums + i), some) : load_sums(sums + i);
        if (some == kLanes) {
            store(y + i, v);
        } else {
            store_first(y + i, v, some);
        }
    }
}

// Whole vectors of sums to aligned memory.
inline void put_vectors(const float* sums, const Target& to, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const Vec v = load_sums(sums + i);
        const Vec final = to.residual != nullptr ? to.finish(i, v, kLanes) : v;
        if (to.streams) {
            stream(to.y + i, final);
        } else {
            store(to.y + i, final);
        }
    }
}

// sums[i][lane], `count` <= kLanes rows anywhere in memory -> to[lane * stride + i] of the first `lanes` lanes.
inline void deinterleave(const float* const* sums, int count, const Target& to, int64_t stride, int lanes) {
    Vec v[kLanes];
    for (int i = 0; i < kLanes; ++i) v[i] = load_sums(sums[i < count ? i : 0]);
    transpose(v);
    if (to.residual != nullptr) {
        for (int lane = 0; lane < lanes; ++lane) v[lane] = to.finish(lane * stride, v[lane], count);
    }
    Scalar* const y = to.y;
    for (int lane = 0; lane < lanes; ++lane) store_first(y + lane * stride, v[lane], count);
}

}  // namespace
