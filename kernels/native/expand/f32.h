// Values that are floats.
#pragma once

#include <cstdint>

namespace {

using Value = float;
using Word = uint32_t;

constexpr Word kNotFinite = 0x7f800000;  // the exponent of an infinity and of a NaN

inline Word exponent_bits(Value value) {
    Word word;
    __builtin_memcpy(&word, &value, sizeof word);
    return word & kNotFinite;
}

inline float to_float(Value value) { return value; }
inline Value from_float(float value) { return value; }

}  // namespace
