// Input: channels_last -> padded planes, one a word, [word][phase][image][row][column]: words of consecutive pixels are
// adjacent, and the split of strided input into phases makes every stride a unit stride.

#include <cstring>

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// A rectangle of output pixels: lines are rows of all images, counted through.
struct Band {
    int64_t line_begin, line_end, column_begin, columns;
};

inline Vec padding_vector(uint32_t word) {
    float value;
    std::memcpy(&value, &word, sizeof value);
    return broadcast(value);
}

// `count` <= kLanes pixels, `words` <= kLanes words of each; pixels lie pixel_bytes apart. Planes are written in whole
// vectors: what lies right of the pixels is written later, or beyond the band.
inline void transpose_words(const char* from, int64_t pixel_bytes, int count, int words, char* to, int64_t word_bytes) {
    Vec v[kLanes];
    for (int i = 0; i < kLanes; ++i) {
        const float* pixel = reinterpret_cast<const float*>(from + (i < count ? i : 0) * pixel_bytes);
        v[i] = words == kLanes ? load(pixel) : load_first(pixel, words);
    }
    transpose(v);
    if (words == kLanes) {
        for (int i = 0; i < kLanes; ++i) store(reinterpret_cast<float*>(to + i * word_bytes), v[i]);
    } else {
        for (int i = 0; i < words; ++i) store(reinterpret_cast<float*>(to + i * word_bytes), v[i]);
    }
}

// The last channels of a group that do not fill a word; the rest of the word meets zero weights.
void copy_part_word(const char* from, int64_t pixel_bytes, int64_t count, int64_t bytes, char* to) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t word = 0;
        std::memcpy(&word, from + i * pixel_bytes, static_cast<size_t>(bytes));
        std::memcpy(to + i * 4, &word, sizeof word);
    }
}

// Neighbouring channels of a pixel, and the words that they become.
struct Channels {
    int64_t offset, bytes, words;  // from the first channel of all, in bytes
};

// Their words of `count` pixels.
void copy_pixels(const sparseplan::VectorPlan& plan, const Channels& channels, const char* from, int64_t pixel_bytes,
                 int64_t count, char* to) {
    const int64_t whole = channels.bytes / 4;
    for (int64_t i = 0; i < count; i += kLanes) {
        const int some = static_cast<int>(smaller(count - i, kLanes));
        for (int64_t word = 0; word < whole; word += kLanes) {
            transpose_words(from + i * pixel_bytes + word * 4, pixel_bytes, some,
                            static_cast<int>(smaller(whole - word, kLanes)), to + word * plan.word_bytes + i * 4,
                            plan.word_bytes);
        }
    }
    if (whole < channels.words) {
        copy_part_word(from + whole * 4, pixel_bytes, count, channels.bytes - whole * 4, to + whole * plan.word_bytes);
    }
}

void pad_pixels(const sparseplan::VectorPlan& plan, int64_t words, int64_t count, char* to) {
    const Vec value = padding_vector(plan.padding_word);
    for (int64_t word = 0; word < words; ++word) {
        float* plane = reinterpret_cast<float*>(to + word * plan.word_bytes);
        for (int64_t i = 0; i < count; i += kLanes) store(plane + i, value);
    }
}

// Some channels of a band; `to` is the copy of their first word.
void copy_channels(const sparseplan::VectorPlan& plan, const Band& band, const char* x, const Channels& channels,
                   char* to) {
    const int64_t pixel_bytes = plan.groups * plan.group_bytes, step = plan.stride_w * pixel_bytes;
    const int64_t lines = smaller(band.line_end - band.line_begin, plan.h_out);
    const int64_t rows = plan.rows - plan.h_out + lines;  // that a band reads of one image
    const int64_t columns = plan.pitch - plan.band_columns + band.columns;
    int64_t position = 0;
    for (int64_t line = band.line_begin; line < band.line_end; line += lines) {
        const char* image = x + line / plan.h_out * plan.h_in * plan.w_in * pixel_bytes + channels.offset;
        const int64_t top = line % plan.h_out * plan.stride_h - plan.pad_h;
        for (int64_t row = 0; row < rows; ++row, position += plan.pitch) {
            for (int64_t phase = 0; phase < plan.phases_h_count * plan.phases_w_count; ++phase) {
                char* plane = to + phase * plan.phase_bytes + position * 4;
                const int64_t y = top + row * plan.stride_h + plan.phases_h[phase / plan.phases_w_count];
                const int64_t left = band.column_begin * plan.stride_w - plan.pad_w +
                                     plan.phases_w[phase % plan.phases_w_count];
                int64_t begin = 0, end = 0;
                if (y >= 0 && y < plan.h_in) {
                    begin = left < 0 ? smaller((plan.stride_w - 1 - left) / plan.stride_w, columns) : 0;
                    const int64_t last = plan.w_in - 1 - left;
                    end = larger(begin, last < 0 ? 0 : smaller(last / plan.stride_w + 1, columns));
                }
                pad_pixels(plan, channels.words, begin, plane);
                copy_pixels(plan, channels, image + (y * plan.w_in + left + begin * plan.stride_w) * pixel_bytes, step,
                            end - begin, plane + begin * 4);
                pad_pixels(plan, channels.words, columns - end, plane + end * 4);
            }
        }
    }
}

// All channels of a band: at once where groups fill whole words, as these then follow each other like those of a group.
void copy_band(const sparseplan::VectorPlan& plan, const Band& band, const char* x, char* to) {
    const bool at_once = plan.group_bytes % 4 == 0;
    const int64_t pieces = at_once ? 1 : plan.groups, groups = plan.groups / pieces;
    const int64_t bytes = groups * plan.group_bytes, words = groups * plan.group_words;
    for (int64_t i = 0; i < pieces; ++i) {
        copy_channels(plan, band, x, {i * bytes, bytes, words}, to + i * words * plan.word_bytes);
    }
}

}  // namespace
