#include "expand/pack.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace sparseplan {
namespace {

// Vectors are read whole, and bits in words, beyond the last ones.
constexpr int64_t kOverread = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int select_bits(int64_t group) { return group == 8 ? 3 : group == 4 ? 2 : 1; }

int format_of(int64_t group) { return group == 1 ? 0 : select_bits(group); }

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

// Writes the values and bits of the whole weight in the order of plan.h.
class Writer {
  public:
    Writer(uint8_t* bits, uint8_t* values, int lanes, int value_bytes)
        : bits_(bits), values_(values), vector_bits_(ceil_div(lanes, 8)), value_bytes_(value_bytes) {}

    void value(int64_t at, uint32_t encoded) { std::memcpy(values_ + at * value_bytes_, &encoded, value_bytes_); }
    // Bit `lane` of a vector of bits.
    void bit(int64_t vector, int64_t lane) {
        bits_[vector * vector_bits_ + lane / 8] |= static_cast<uint8_t>(1u << lane % 8);
    }

  private:
    uint8_t *bits_, *values_;
    int64_t vector_bits_;
    int value_bytes_;
};

}  // namespace

ExpandSparse::ExpandSparse(const ExpandTable& isa, int64_t group, int64_t n, int64_t c_out, int64_t c_in,
                           const float* weight, const float* bias, bool relu) {
    if (group != 1 && group != 2 && group != 4 && group != 8) {
        throw std::invalid_argument("group must be 1, 2, 4 or 8");
    }
    run_ = isa.run[format_of(group)];
    if (run_ == nullptr) throw std::invalid_argument("this instruction set has no kernel for this group");
    const int64_t blocks = ceil_div(c_out, kExpandRows), steps = ceil_div(c_in, isa.lanes * group);
    const std::vector<uint32_t> encoded = encode(weight, c_out * c_in, isa.value_bytes);
    const auto nonzeros = [&](int64_t row, int64_t begin, int64_t end) {
        const auto start = encoded.begin() + row * c_in;
        return end - begin - std::count(start + begin, start + end, 0u);
    };

    std::vector<int64_t> slots(blocks, 1);
    bit_starts_.assign(blocks + 1, 0);
    value_starts_.assign(blocks + 1, 0);
    const int64_t vector_bits = ceil_div(isa.lanes, 8) * (group == 1 ? 1 : select_bits(group));
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t end = std::min((block + 1) * kExpandRows, c_out);
        int64_t values = 0;
        if (group == 1) {
            for (int64_t row = block * kExpandRows; row < end; ++row) values += nonzeros(row, 0, c_in);
        } else {
            slots[block] = 0;
            for (int64_t row = block * kExpandRows; row < end; ++row) {
                for (int64_t c = 0; c < c_in; c += group) {
                    slots[block] = std::max(slots[block], nonzeros(row, c, std::min(c + group, c_in)));
                }
            }
            values = slots[block] * steps * kExpandRows * isa.lanes;
        }
        value_starts_[block + 1] = value_starts_[block] + values;
        bit_starts_[block + 1] = bit_starts_[block] + slots[block] * steps * kExpandRows * vector_bits;
    }
    bits_ = std::make_unique<Pages<uint8_t>>(bit_starts_[blocks] + kOverread);
    values_ = std::make_unique<Pages<uint8_t>>(value_starts_[blocks] * isa.value_bytes + kOverread);

    Writer writer(bits_->data(), values_->data(), isa.lanes, isa.value_bytes);
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = block * kExpandRows, rows = std::min<int64_t>(kExpandRows, c_out - first);
        const int64_t first_bits = bit_starts_[block] / vector_bits * (group == 1 ? 1 : select_bits(group));
        int64_t at = value_starts_[block];
        for (int64_t step = 0; step < steps; ++step) {
            for (int64_t row = 0; row < rows; ++row) {
                const uint32_t* inputs = encoded.data() + (first + row) * c_in;
                for (int64_t lane = 0; lane < isa.lanes; ++lane) {
                    const int64_t begin = (step * isa.lanes + lane) * group, end = std::min(begin + group, c_in);
                    int64_t slot = 0;
                    for (int64_t c = begin; c < end; ++c) {
                        if (inputs[c] == 0) continue;
                        if (group == 1) {
                            writer.bit(first_bits + step * kExpandRows + row, lane);
                            writer.value(at++, inputs[c]);
                            continue;
                        }
                        const int64_t vector = (step * slots[block] + slot++) * kExpandRows + row;
                        writer.value(at + vector * isa.lanes + lane, inputs[c]);
                        for (int i = 0; i < select_bits(group); ++i) {
                            if ((c - begin) >> i & 1) writer.bit(first_bits + vector * select_bits(group) + i, lane);
                        }
                    }
                }
            }
        }
    }
    bias_.assign(blocks * kExpandRows, 0.0f);
    if (bias != nullptr) std::copy(bias, bias + c_out, bias_.begin());
    packed_bytes_ = bit_starts_[blocks] + value_starts_[blocks] * isa.value_bytes;
    plan_ = {n,    c_in, c_out, blocks, steps, relu, bits_->data(), values_->data(), bit_starts_.data(), value_starts_.data(),
             bias_.data()};
}

}  // namespace sparseplan
