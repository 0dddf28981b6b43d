#include "scratch.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sparseplan {
namespace {

constexpr int64_t kHugePage = int64_t{1} << 21;
constexpr int64_t kManyPages = int64_t{1} << 16;  // a share of the first-level TLB (72 pages on Zen 4) that is felt

class Buffer {
  public:
    ~Buffer() { std::free(data_); }

    float* reserve(int64_t floats) {
        if (floats > floats_) grow(floats);
        return data_;
    }

    void fill(float value) { std::fill(data_, data_ + floats_, value); }

  private:
    void grow(int64_t floats) {
        std::free(data_);
        data_ = nullptr;
        floats_ = 0;
        int64_t bytes = std::max<int64_t>(floats * int64_t{sizeof(float)}, 64);
        const int64_t alignment = bytes >= kManyPages ? kHugePage : 64;
        bytes = (bytes + alignment - 1) / alignment * alignment;
        data_ = static_cast<float*>(std::aligned_alloc(alignment, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
        // A non-zero touches another page each time: small pages miss the first-level TLB at every step.
        if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
        floats_ = bytes / int64_t{sizeof(float)};
    }

    float* data_ = nullptr;
    int64_t floats_ = 0;
};

thread_local Buffer buffers[2];

}  // namespace

float* thread_scratch(Slot slot, int64_t floats) { return buffers[static_cast<int>(slot)].reserve(floats); }

void expect_writes([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#ifdef __linux__
    constexpr int64_t kLarge = 2 * kHugePage;
    if (bytes < kLarge) return;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kHugePage * kHugePage;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void fill_scratch(float value, int threads) {
#pragma omp parallel num_threads(threads)
    for (Buffer& buffer : buffers) buffer.fill(value);
}

}  // namespace sparseplan
