// Memory of packed weights: on a 64-byte boundary, from 2 MiB on in huge pages. A stream of weights beyond the caches
// otherwise waits for an address translation every 4 KiB: dense weights in small pages arrive with 16 to 24 GB/s from
// the main memory of a Zen 4 where these do with 30.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sparseplan {

class Pages {
  public:
    // Vectors are read whole, and words of bits, beyond the last ones.
    static constexpr int64_t kOverread = 64;

    Pages() = default;
    explicit Pages(const std::vector<uint8_t>& content) {
        constexpr int64_t kHugePage = int64_t{1} << 21;
        const int64_t needed = static_cast<int64_t>(content.size()) + kOverread;
        const int64_t alignment = needed >= kHugePage ? kHugePage : 64;
        const int64_t bytes = (needed + alignment - 1) / alignment * alignment;
        data_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, bytes)));
        if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
        if (alignment == kHugePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
        std::fill(std::copy(content.begin(), content.end(), data_.get()), data_.get() + bytes, uint8_t{0});
    }

    const uint8_t* data() const { return data_.get(); }

  private:
    struct Free {
        void operator()(uint8_t* data) const { std::free(data); }
    };
    std::unique_ptr<uint8_t[], Free> data_;
};

}  // namespace sparseplan
