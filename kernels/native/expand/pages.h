// Memory of packed weights: on a 64-byte boundary, from 2 MiB on in huge pages. A stream of weights beyond the caches
// otherwise waits for an address translation every 4 KiB (18-24 GB/s instead of 32 from the main memory of a Zen 4).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sparseplan {

template <typename T>
class Pages {
  public:
    // All zero bytes.
    explicit Pages(int64_t count) : count_(count) {
        constexpr int64_t kHugePage = int64_t{1} << 21;
        int64_t bytes = std::max<int64_t>(count * int64_t{sizeof(T)}, 64);
        const int64_t alignment = bytes >= kHugePage ? kHugePage : 64;
        bytes = (bytes + alignment - 1) / alignment * alignment;
        data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
        if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
        std::fill_n(reinterpret_cast<char*>(data_), bytes, char{0});
    }
    ~Pages() { std::free(data_); }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    T* data() { return data_; }
    const T* data() const { return data_; }
    int64_t count() const { return count_; }

  private:
    T* data_;
    int64_t count_;
};

}  // namespace sparseplan
