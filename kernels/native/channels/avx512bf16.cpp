// Each vector of the target is put together by permutations of the source's (AVX-512 VBMI for single bytes): several pixels
// share the indices. Compress and expand do more in one instruction, but write to odd addresses or read from there, which
// takes a Zen 5 two to three times as long.
#include <immintrin.h>

#include "parallel.h"
#include "channels/table.h"

#include "channels/share.inc.h"

namespace {

using sparseplan::ChannelsPiece;
using sparseplan::ChannelsRoutes;
using Vec = __m512i;

struct Words {
    using Value = uint32_t;
    static Vec load(const void* from, uint64_t mask) { return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), from); }
    static void store(void* to, uint64_t mask, Vec v) { _mm512_mask_storeu_epi32(to, static_cast<__mmask16>(mask), v); }
    static Vec merge(Vec other, uint64_t mask, Vec lanes, Vec v) {
        return _mm512_mask_permutexvar_epi32(other, static_cast<__mmask16>(mask), lanes, v);
    }
};

struct Halves {
    using Value = uint16_t;
    static Vec load(const void* from, uint64_t mask) { return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), from); }
    static void store(void* to, uint64_t mask, Vec v) { _mm512_mask_storeu_epi16(to, static_cast<__mmask32>(mask), v); }
    static Vec merge(Vec other, uint64_t mask, Vec lanes, Vec v) {
        return _mm512_mask_permutexvar_epi16(other, static_cast<__mmask32>(mask), lanes, v);
    }
};

struct Bytes {
    using Value = uint8_t;
    static Vec load(const void* from, uint64_t mask) { return _mm512_maskz_loadu_epi8(mask, from); }
    static void store(void* to, uint64_t mask, Vec v) { _mm512_mask_storeu_epi8(to, mask, v); }
    static Vec merge(Vec other, uint64_t mask, Vec lanes, Vec v) {
        return _mm512_mask_permutexvar_epi8(other, mask, lanes, v);
    }
};

// Pixels of `size` values one after the other, up to `end`.
template <typename T>
struct Pixels {
    T* first;
    int64_t size;
    T* end;
};

template <typename V>
constexpr int64_t kLanes = int64_t{sizeof(Vec) / sizeof(typename V::Value)};

// The vector at `from`, of which at most `count` values may be read.
template <typename V>
Vec load_first(const typename V::Value* from, int64_t count) {
    if (count >= kLanes<V>) return _mm512_loadu_si512(from);
    return V::load(from, (uint64_t{1} << count) - 1u);
}

// `P` pixels; Inside: all vectors, whole, lie before the ends of source and target. The target's last vectors come first,
// so that what they write beyond their pixel is overwritten.
template <typename V, int P, bool Inside, typename T = typename V::Value>
void move_pixels(const ChannelsRoutes& routes, const Pixels<const T>& from, const T* constant, const Pixels<T>& to) {
    for (int64_t vector = routes.vectors - 1; vector >= 0; --vector) {
        const int64_t at = vector * kLanes<V>;
        const Vec start = constant == nullptr ? _mm512_setzero_si512() : load_first<V>(constant + at, to.size - at);
        Vec sums[P];
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) sums[p] = start;
        for (int64_t i = routes.starts[vector]; i < routes.starts[vector + 1]; ++i) {
            const ChannelsPiece& piece = routes.pieces[i];
            const Vec lanes = _mm512_loadu_si512(piece.lanes);
            const T* source = from.first + piece.source;
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p, source += from.size) {
                const Vec values = Inside ? _mm512_loadu_si512(source) : load_first<V>(source, from.end - source);
                sums[p] = V::merge(sums[p], piece.mask, lanes, values);
            }
        }
        T* target = to.first + at;
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p, target += to.size) {
            if (Inside || to.end - target >= kLanes<V>) {
                _mm512_storeu_si512(target, sums[p]);
            } else {
                // Masked stores cost tens of cycles.
                V::store(target, (uint64_t{1} << (to.end - target)) - 1u, sums[p]);
            }
        }
    }
}

template <typename V, typename T>
void move(const ChannelsRoutes& routes, Pixels<const T> from, const T* constant, Pixels<T> to, int64_t pixels, int threads) {
    constexpr int kTogether = 8;
    for_runs(pixels, threads, [&](int64_t begin, int64_t end) {
        const T* const last = from.end - kLanes<V>;
        T* const stop = to.first + end * to.size;
        while (begin < end) {
            const Pixels<const T> source{from.first + begin * from.size, from.size, from.end};
            const Pixels<T> target{to.first + begin * to.size, to.size, stop};
            const bool inside = source.first + kTogether * from.size <= last &&
                                target.first + kTogether * to.size <= stop - kLanes<V>;
            if (inside) {
                move_pixels<V, kTogether, true>(routes, source, constant, target);
            } else {
                move_pixels<V, 1, false>(routes, source, constant, target);
            }
            begin += inside ? kTogether : 1;
        }
    });
}

template <typename V, typename T = typename V::Value>
void gather(const sparseplan::ChannelsPlan& plan, const T* from, T* to, int64_t pixels, int threads) {
    const T* const no_constant = nullptr;
    move<V, T>(plan.gather, {from, plan.total, from + pixels * plan.total}, no_constant,
               {to, plan.kept, to + pixels * plan.kept}, pixels, threads);
}

template <typename V, typename T = typename V::Value>
void scatter(const sparseplan::ChannelsPlan& plan, const T* from, const T* constant, T* to, int64_t pixels,
             int threads) {
    move<V, T>(plan.scatter, {from, plan.kept, from + pixels * plan.kept}, constant,
               {to, plan.total, to + pixels * plan.total}, pixels, threads);
}

}  // namespace

namespace sparseplan {

const ChannelsTable kChannelsAvx512bf16{"avx512bf16",
                                        {gather<Words>, scatter<Words>},
                                        {gather<Halves>, scatter<Halves>},
                                        {gather<Bytes>, scatter<Bytes>}};

}  // namespace sparseplan
