// One value at a time.
#include <cstring>

#include "parallel.h"
#include "channels/table.h"

#include "channels/share.inc.h"

namespace {

template <typename T>
void gather(const sparseplan::ChannelsPlan& plan, const T* from, T* to, int64_t pixels, int threads) {
    for_runs(pixels, threads, [&](int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
            const T* all = from + pixel * plan.total;
            T* some = to + pixel * plan.kept;
            for (int64_t i = 0; i < plan.kept; ++i) some[i] = all[plan.index[i]];
        }
    });
}

template <typename T>
void scatter(const sparseplan::ChannelsPlan& plan, const T* from, const T* constant, T* to, int64_t pixels,
             int threads) {
    for_runs(pixels, threads, [&](int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
            const T* some = from + pixel * plan.kept;
            T* all = to + pixel * plan.total;
            std::memcpy(all, constant, static_cast<size_t>(plan.total) * sizeof(T));
            for (int64_t i = 0; i < plan.kept; ++i) all[plan.index[i]] = some[i];
        }
    });
}

}  // namespace

namespace sparseplan {

const ChannelsTable kChannelsBaseline{"baseline", {gather<uint32_t>, scatter<uint32_t>},
                                      {gather<uint16_t>, scatter<uint16_t>}, {gather<uint8_t>, scatter<uint8_t>}};

}  // namespace sparseplan
