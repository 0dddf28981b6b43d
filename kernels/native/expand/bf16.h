// Values that are bfloat16 numbers, the upper halves of floats.
#pragma once

#include <cstdint>

namespace {

using Value = uint16_t;
using Word = uint16_t;

constexpr Word kNotFinite = 0x7f80;  // the exponent of an infinity and of a NaN

inline Word exponent_bits(Value value) { return value & kNotFinite; }

inline float to_float(Value value) {
    const uint32_t word = uint32_t{value} << 16;
    float result;
    __builtin_memcpy(&result, &word, sizeof result);
    return result;
}

// To the nearest, ties to even; a NaN stays one.
inline Value from_float(float value) {
    uint32_t word;
    __builtin_memcpy(&word, &value, sizeof word);
    if (value != value) return static_cast<Value>(word >> 16 | 0x40u);
    return static_cast<Value>((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

}  // namespace
