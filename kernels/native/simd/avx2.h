// Vectors of 8 floats: AVX2 with FMA, or AVX-512VL, which has twice the registers and cheap masks.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

using Vec = __m256;
using Scalar = float;
using Columns = const uint16_t*;
constexpr int kLanes = 8;
#ifdef __AVX512VL__
constexpr int kMaxTile = 28;  // of 32 registers, one holds the broadcast value
constexpr int kMaxQuad = 6;   // of a quarter of the registers, with a quad of values and one of them in every lane
#else
constexpr int kMaxTile = 13;  // of 16 registers, three hold the broadcast value, a mask and a masked load
constexpr int kMaxQuad = 3;   // of a quarter of the registers, with a quad of values and one of them in every lane
#endif
constexpr bool kGuardedLoads = true;  // load_first touches no memory beyond its count, and is fast

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec broadcast(float value) { return _mm256_set1_ps(value); }
inline Vec broadcast_bits(uint32_t bits) { return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(bits))); }
// Four floats, repeated in every 128 bits, and one of them in every lane: cheaper than four loads where loads bind.
inline Vec load_quad(const float* from) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(from)); }
template <int Lane>
inline Vec of_quad(Vec quad) {
    return _mm256_permute_ps(quad, Lane * 0x55);
}
inline Vec load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
// Past the caches, to aligned memory; then the thread's later stores wait for it behind the fence.
inline void stream(float* to, Vec v) { _mm256_stream_ps(to, v); }
inline void stream_fence() { _mm_sfence(); }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec load_sums(const float* from) { return load(from); }
// A NaN stays one, as in torch.
inline Vec positive(Vec v) { return _mm256_max_ps(zero(), v); }
inline Vec at_least(Vec floor, Vec v) { return _mm256_max_ps(floor, v); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }

#ifdef __AVX512VL__
inline __mmask8 first(int count) { return static_cast<__mmask8>((1u << count) - 1u); }
inline Vec load_first(const float* from, int count) { return _mm256_maskz_loadu_ps(first(count), from); }
inline void store_first(float* to, Vec v, int count) { _mm256_mask_storeu_ps(to, first(count), v); }
#else
inline __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load_first(const float* from, int count) { return _mm256_maskload_ps(from, first(count)); }
// No masked store: it takes a dozen cycles on AMD.
inline void store_first(float* to, Vec v, int count) {
    if (count == kLanes) {
        store(to, v);
        return;
    }
    __m128 part = _mm256_castps256_ps128(v);
    if (count & 4) {
        _mm_storeu_ps(to, part);
        part = _mm256_extractf128_ps(v, 1);
        to += 4;
    }
    if (count & 2) {
        _mm_storel_pi(reinterpret_cast<__m64*>(to), part);
        part = _mm_movehl_ps(part, part);
        to += 2;
    }
    if (count & 1) _mm_store_ss(to, part);
}
#endif

// lanes[source], or `otherwise` where the source is negative.
using LaneOrder = __m256i;
inline LaneOrder lane_order(const int32_t* source) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
}
inline Vec pick(Vec lanes, LaneOrder order, Vec otherwise) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lanes, order), otherwise, _mm256_castsi256_ps(order));
}

// Single loads: the gather instruction of AVX2 is slower on AMD, and on Intel since the mitigation of CVE-2022-40982.
// Columns come in pairs, which balances loads against instructions.
inline Columns load_columns(const uint16_t* from) { return from; }
inline __m128 gather_quad(const float* from, const uint16_t* columns) {
    uint32_t low, high;
    std::memcpy(&low, columns, sizeof low);
    std::memcpy(&high, columns + 2, sizeof high);
    return _mm_setr_ps(from[low & 0xffff], from[low >> 16], from[high & 0xffff], from[high >> 16]);
}
inline Vec gather(const float* from, Columns columns) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(gather_quad(from, columns)), gather_quad(from, columns + 4), 1);
}

inline void transpose(Vec (&v)[8]) {
    Vec a[8], b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        for (int half = 0; half < 2; ++half) {
            const Vec low = a[4 * i + half], high = a[4 * i + 2 + half];
            b[4 * i + 2 * half] = _mm256_shuffle_ps(low, high, 0x44);
            b[4 * i + 2 * half + 1] = _mm256_shuffle_ps(low, high, 0xee);
        }
    }
    for (int j = 0; j < 4; ++j) {
        v[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        v[j + 4] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}

}  // namespace
