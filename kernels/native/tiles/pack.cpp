#include "tiles/pack.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace sparseplan {
namespace {

constexpr int64_t kTileOutputs = 16, kRowBytes = 64, kTileBytes = 16 * kRowBytes;

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

// Nearest, ties to even; a NaN stays one.
uint16_t stored(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
int8_t stored(int8_t value) { return value; }

}  // namespace

void TileSparse::FreeLines::operator()(char* bytes) const { std::free(bytes); }

TileSparse::TileSparse(const TilesTable& isa, const TilesPlan& shape, std::vector<int64_t> phases_h,
                       std::vector<int64_t> phases_w, const float* weight, const std::vector<int64_t>& taps,
                       const float* bias)
    : run_(isa.run_bf16), plan_(shape), phases_h_(std::move(phases_h)), phases_w_(std::move(phases_w)) {
    plan_.value_bytes = 2;
    pack(weight, taps, 2);
    bias_.assign((starts_.size() + 1) * kTileOutputs, 0.0f);
    for (const Strip& strip : strips_) {
        if (bias != nullptr) std::copy_n(bias + strip.channel, strip.channels, bias_.data() + strip.block * kTileOutputs);
    }
    plan_.bias = bias_.data();
}

TileSparse::TileSparse(const TilesTable& isa, const TilesPlan& shape, std::vector<int64_t> phases_h,
                       std::vector<int64_t> phases_w, const int8_t* weight, const std::vector<int64_t>& taps,
                       const int32_t* bias, const int32_t* multiplier, const int32_t* shift, int zero_point, int low)
    : run_(isa.run_int8), plan_(shape), phases_h_(std::move(phases_h)), phases_w_(std::move(phases_w)) {
    plan_.value_bytes = 1;
    pack(weight, taps, 1);
    // The table goes by whole blocks, and the last block of a group may be a short one.
    const int64_t channels = static_cast<int64_t>(starts_.size()) * kTileOutputs;
    std::vector<int32_t> spread[3];
    const int32_t* given[3] = {bias, multiplier, shift};
    for (int i = 0; i < 3; ++i) {
        spread[i].assign(channels, i == 2 ? 1 : 0);
        for (const Strip& strip : strips_) {
            std::copy_n(given[i] + strip.channel, strip.channels, spread[i].data() + strip.block * kTileOutputs);
        }
    }
    requantisation_ = std::make_unique<RequantisationTable>(spread[0].data(), spread[1].data(), spread[2].data(),
                                                            channels, zero_point, low);
    plan_.requantisation = requantisation_->view();
}

void TileSparse::lay_out(int64_t strip_rows) {
    plan_.phases_h = phases_h_.data();
    plan_.phases_w = phases_w_.data();
    plan_.phases_h_count = static_cast<int64_t>(phases_h_.size());
    plan_.phases_w_count = static_cast<int64_t>(phases_w_.size());
    const int64_t pixels = plan_.h_out * plan_.w_out;
    if (plan_.pitch != plan_.w_out) {
        pixels_.assign(plan_.positions, -1);
        for (int64_t p = 0; p < plan_.positions; ++p) {
            const int64_t column = p % plan_.pitch;
            if (column < plan_.w_out) pixels_[p] = static_cast<int32_t>(p / plan_.pitch * plan_.w_out + column);
        }
        plan_.pixels = pixels_.data();
    } else {
        require(plan_.positions == pixels, "positions do not cover the output");
        plan_.pixels = nullptr;
    }
    const int64_t k_group = plan_.c_out / plan_.groups, step = strip_rows * kTileOutputs;
    int64_t block = 0;
    for (int64_t group = 0; group < plan_.groups; ++group) {
        for (int64_t k = 0; k < k_group; k += step) {
            const int64_t channels = std::min(step, k_group - k);
            strips_.push_back({static_cast<int32_t>(group * k_group + k), static_cast<int32_t>(channels),
                               static_cast<int32_t>(block)});
            block += (channels + kTileOutputs - 1) / kTileOutputs;
        }
    }
    plan_.strips = strips_.data();
    plan_.strips_count = static_cast<int64_t>(strips_.size());
}

template <typename Weight>
void TileSparse::pack(const Weight* weight, const std::vector<int64_t>& taps, int64_t strip_rows) {
    using Stored = decltype(stored(Weight{}));
    constexpr int64_t kDepth = kRowBytes / int64_t{sizeof(Stored)};  // input channels of a tile
    constexpr int64_t kSide = 4 / int64_t{sizeof(Stored)};           // of them side by side in a row, by output channel
    const int64_t c_group = plan_.c_in / plan_.groups, count = static_cast<int64_t>(taps.size());
    const int64_t phases = static_cast<int64_t>(phases_h_.size() * phases_w_.size());
    const int64_t reach = *std::max_element(taps.begin(), taps.end());
    const int64_t held = plan_.copies_input ? phases * plan_.phase_positions : plan_.h_in * plan_.w_in;
    const int64_t room = plan_.copies_input ? (c_group + kDepth - 1) / kDepth * kRowBytes
                                            : c_group * int64_t{sizeof(Stored)};
    require(plan_.tiles >= 1 && plan_.tiles <= 4, "tiles exceed the registers");
    require(plan_.group_room == room && room % kRowBytes == 0, "a group of channels must fill its tiles");
    require(plan_.copies_input ? plan_.position_bytes >= plan_.groups * room
                               : plan_.position_bytes == plan_.groups * room,
            "position_bytes differs from the channels");
    require(*std::min_element(taps.begin(), taps.end()) >= 0 && reach + plan_.positions <= held,
            "taps leave the padded input");
    require((reach + 1) * plan_.position_bytes < int64_t{1} << 32, "offsets exceed 32 bits");
    lay_out(strip_rows);

    std::vector<Stored> tile(kTileBytes / sizeof(Stored));
    std::vector<Stored> tiles;
    starts_.push_back(0);
    for (const Strip& strip : strips_) {
        const int64_t group = strip.channel / (plan_.c_out / plan_.groups);
        for (int64_t first = 0; first < strip.channels; first += kTileOutputs) {
            const int64_t outputs = std::min(kTileOutputs, strip.channels - first);
            for (int64_t c = 0; c < c_group; c += kDepth) {
                const int64_t inputs = std::min(kDepth, c_group - c);
                // Channels outside, taps inside: the taps of a block of channels read nearly the same memory.
                for (int64_t tap = 0; tap < count; ++tap) {
                    std::fill(tile.begin(), tile.end(), Stored{0});
                    bool is_zero = true;
                    for (int64_t k = 0; k < outputs; ++k) {
                        const Weight* row = weight + ((strip.channel + first + k) * c_group + c) * count + tap;
                        for (int64_t i = 0; i < inputs; ++i) {
                            const Weight value = row[i * count];
                            is_zero = is_zero && value == Weight{0};
                            tile[(i / kSide * kTileOutputs + k) * kSide + i % kSide] = stored(value);
                        }
                    }
                    if (is_zero) continue;
                    const int64_t offset = taps[tap] * plan_.position_bytes + group * room + c / kDepth * kRowBytes;
                    offsets_.push_back(static_cast<uint32_t>(offset));
                    tiles.insert(tiles.end(), tile.begin(), tile.end());
                }
            }
            starts_.push_back(static_cast<int64_t>(offsets_.size()));
        }
    }
    const size_t bytes = std::max<size_t>(tiles.size() * sizeof(Stored), kTileBytes);
    weights_.reset(static_cast<char*>(std::aligned_alloc(kRowBytes, bytes)));
    if (!weights_) throw std::bad_alloc();
    std::copy(tiles.begin(), tiles.end(), reinterpret_cast<Stored*>(weights_.get()));
    plan_.weights = weights_.get();
    plan_.starts = starts_.data();
    plan_.offsets = offsets_.data();
}

}  // namespace sparseplan
