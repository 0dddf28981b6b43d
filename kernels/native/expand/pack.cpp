#include "expand/pack.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace sparseplan {
namespace {

constexpr int64_t kLineBytes = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Consecutive inputs that one value chooses from, and the bits that takes.
int group_of(ExpandFormat format) {
    switch (format) {
        case ExpandFormat::select2: return 2;
        case ExpandFormat::select4: return 4;
        case ExpandFormat::select8: return 8;
        default: return 1;
    }
}
int bits_of(int group) { return group == 8 ? 3 : group == 4 ? 2 : 1; }

// The bits of each weight as a float or as the nearest bfloat16; of zeros, -0 among them, 0.
std::vector<uint32_t> encode(const float* weight, int64_t count, int value_bytes) {
    std::vector<uint32_t> encoded(count);
    for (int64_t i = 0; i < count; ++i) {
        uint32_t word;
        std::memcpy(&word, weight + i, sizeof word);
        if (value_bytes == 2) {
            const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
            word = nan ? word >> 16 | 0x40u : (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
        }
        encoded[i] = (word & (value_bytes == 2 ? 0x7fffu : 0x7fffffffu)) == 0 ? 0 : word;
    }
    return encoded;
}

class Packer {
  public:
    Packer(ExpandFormat format, const ExpandTable& isa, int64_t c_in)
        : lanes_(isa.lanes), value_bytes_(isa.value_bytes), group_(group_of(format)), format_(format), c_in_(c_in) {}

    // What comes next begins here: a block, or the end of the last one.
    void mark() {
        ExpandBlock start;
        start.bits = size(bits);
        start.places = size(places);
        start.windows = size(windows);
        start.values = size(values) / value_bytes_;
        starts.push_back(start);
    }

    // Appends the rows of a block; those that are null hold nothing.
    void append(const std::vector<const uint32_t*>& rows) {
        mark();
        if (format_ == ExpandFormat::expand) expand(rows);
        else if (format_ == ExpandFormat::look_up) look_up(rows);
        else select(rows);
    }

    // Inputs that a step covers.
    int64_t span() const { return format_ == ExpandFormat::look_up ? 2 * lanes_ : lanes_ * group_; }

    std::vector<ExpandBlock> starts;
    std::vector<uint8_t> bits, places, values;
    std::vector<int32_t> windows;

  private:
    template <typename T>
    static int64_t size(const std::vector<T>& stream) { return static_cast<int64_t>(stream.size()); }

    int64_t steps() const { return ceil_div(c_in_, span()); }

    void append_value(uint32_t encoded) {
        for (int byte = 0; byte < value_bytes_; ++byte) values.push_back(static_cast<uint8_t>(encoded >> 8 * byte));
    }
    void append_bits(uint64_t word) {
        for (int64_t byte = 0; byte < lanes_ / 8; ++byte) bits.push_back(static_cast<uint8_t>(word >> 8 * byte));
    }

    void expand(const std::vector<const uint32_t*>& rows) {
        starts.back().few_values = halves_pay(rows);
        const int64_t most = starts.back().few_values ? lanes_ / 2 : lanes_;
        for (int64_t begin = 0; begin < c_in_; begin += lanes_) {
            const int64_t end = std::min(begin + lanes_, c_in_);
            std::vector<int64_t> next(rows.size(), begin);
            for (int64_t left = steps_for(rows, begin, most); left > 0; --left) {
                for (size_t r = 0; r < rows.size(); ++r) {
                    uint64_t stored = 0;
                    int64_t count = 0;
                    for (int64_t& c = next[r]; rows[r] != nullptr && c < end && count < most; ++c) {
                        if (rows[r][c] == 0) continue;
                        stored |= uint64_t{1} << (c - begin);
                        append_value(rows[r][c]);
                        ++count;
                    }
                    append_bits(stored);
                }
                windows.push_back(static_cast<int32_t>(begin / lanes_));
                ++starts.back().steps;
            }
        }
    }

    // Steps for one vector of inputs, when a row of a step has at most `most` values.
    int64_t steps_for(const std::vector<const uint32_t*>& rows, int64_t begin, int64_t most) const {
        const int64_t end = std::min(begin + lanes_, c_in_);
        int64_t fullest = 0;
        for (const uint32_t* row : rows) {
            if (row != nullptr) fullest = std::max<int64_t>(fullest, end - begin - std::count(row + begin, row + end, 0u));
        }
        return (fullest + most - 1) / most;
    }

    // Whether half vectors of values take less time, though some steps come twice: four fifths of the time a step.
    bool halves_pay(const std::vector<const uint32_t*>& rows) const {
        if (lanes_ * value_bytes_ < kLineBytes) return false;
        int64_t halves = 0, wholes = 0;
        for (int64_t begin = 0; begin < c_in_; begin += lanes_) {
            halves += steps_for(rows, begin, lanes_ / 2);
            wholes += steps_for(rows, begin, lanes_);
        }
        return 4 * halves < 5 * wholes;
    }

    void select(const std::vector<const uint32_t*>& rows) {
        const int64_t slots = fullest_group(rows), vectors = slots * size(rows);
        starts.back().steps = steps();
        starts.back().slots = slots;
        const int bit_count = bits_of(group_);
        for (int64_t begin = 0; begin < c_in_; begin += span()) {
            std::vector<uint32_t> chosen(vectors * lanes_, 0);
            std::vector<uint64_t> which(vectors * bit_count, 0);
            for (int64_t r = 0; r < size(rows); ++r) {
                for (int64_t lane = 0; rows[r] != nullptr && lane < lanes_; ++lane) {
                    const int64_t first = begin + lane * group_;
                    int64_t vector = r;
                    for (int64_t c = first; c < std::min(first + group_, c_in_); ++c) {
                        if (rows[r][c] == 0) continue;
                        chosen[vector * lanes_ + lane] = rows[r][c];
                        for (int bit = 0; bit < bit_count; ++bit) {
                            which[vector * bit_count + bit] |= static_cast<uint64_t>((c - first) >> bit & 1) << lane;
                        }
                        vector += size(rows);
                    }
                }
            }
            for (const uint32_t encoded : chosen) append_value(encoded);
            for (const uint64_t word : which) append_bits(word);
        }
    }

    void look_up(const std::vector<const uint32_t*>& rows) {
        for (int64_t begin = 0; begin < c_in_; begin += span()) {
            const int64_t end = std::min(begin + span(), c_in_);
            std::vector<int64_t> next(rows.size(), begin);
            for (;;) {
                uint8_t counts[kManyRows] = {};
                for (size_t r = 0; r < rows.size(); ++r) {
                    for (int64_t& c = next[r]; rows[r] != nullptr && c < end && counts[r] < lanes_; ++c) {
                        if (rows[r][c] == 0) continue;
                        append_value(rows[r][c]);
                        places.push_back(static_cast<uint8_t>(c - begin));
                        ++counts[r];
                    }
                }
                if (std::all_of(counts, counts + rows.size(), [](uint8_t count) { return count == 0; })) break;
                bits.insert(bits.end(), counts, counts + rows.size());
                windows.push_back(static_cast<int32_t>(begin / span()));
                ++starts.back().steps;
            }
        }
    }

    int64_t fullest_group(const std::vector<const uint32_t*>& rows) const {
        int64_t most = 0;
        for (const uint32_t* row : rows) {
            for (int64_t c = 0; row != nullptr && c < c_in_; c += group_) {
                const int64_t end = std::min(c + group_, c_in_);
                most = std::max<int64_t>(most, end - c - std::count(row + c, row + end, 0u));
            }
        }
        return most;
    }

    int64_t lanes_, value_bytes_, group_;
    ExpandFormat format_;
    int64_t c_in_;
};

// Sums of four samples leave no registers for many rows, but save a second expansion. The other formats do their work
// for each sample anyway: there many rows win at any batch.
int64_t rows_of(ExpandFormat format, int64_t n) { return format == ExpandFormat::expand && n > 2 ? kFewRows : kManyRows; }

// A copy in large pages. Vectors are read whole, and words of bits, beyond the last ones.
PackedVector<uint8_t> with_room(const std::vector<uint8_t>& content) {
    constexpr size_t kOverread = 64;
    PackedVector<uint8_t> room(content.size() + kOverread, uint8_t{0});
    std::copy(content.begin(), content.end(), room.begin());
    return room;
}

}  // namespace

ExpandSparse::ExpandSparse(const ExpandTable& isa, ExpandFormat format, int64_t n, int64_t c_out, int64_t c_in,
                           const float* weight, const float* bias, bool relu)
    : run_(isa.run[static_cast<int>(format)]) {
    if (run_ == nullptr) throw std::invalid_argument("this instruction set has no kernel for this format");
    const std::vector<uint32_t> encoded = encode(weight, c_out * c_in, isa.value_bytes);
    const int64_t row_count = rows_of(format, n), blocks = ceil_div(c_out, row_count);
    Packer packer(format, isa, c_in);
    for (int64_t block = 0; block < blocks; ++block) {
        std::vector<const uint32_t*> rows(row_count, nullptr);
        for (int64_t r = 0; r < std::min(row_count, c_out - block * row_count); ++r) {
            rows[r] = encoded.data() + (block * row_count + r) * c_in;
        }
        packer.append(rows);
    }
    packer.mark();
    starts_ = std::move(packer.starts);
    windows_ = std::move(packer.windows);
    bits_ = with_room(packer.bits);
    places_ = with_room(packer.places);
    values_ = with_room(packer.values);
    bias_.assign(blocks * row_count, 0.0f);
    if (bias != nullptr) std::copy(bias, bias + c_out, bias_.begin());
    packed_bytes_ = static_cast<int64_t>(packer.bits.size() + packer.places.size() + packer.values.size() +
                                         windows_.size() * sizeof(int32_t));
    plan_.n = n;
    plan_.c_in = c_in;
    plan_.c_out = c_out;
    plan_.rows = row_count;
    plan_.pitch = ceil_div(c_in, packer.span()) * packer.span();
    plan_.blocks = blocks;
    plan_.relu = relu;
    plan_.starts = starts_.data();
    plan_.bits = bits_.data();
    plan_.places = places_.data();
    plan_.windows = windows_.data();
    plan_.values = values_.data();
    plan_.bias = bias_.data();
}

}  // namespace sparseplan
