// Packed weights in memory that the kernel may back with huge pages: they are read from end to end at every run, and small
// pages would stop the hardware's prefetch every 4 KiB.
#pragma once

#include <cstdlib>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sparseplan {

template <typename T>
struct PackedAllocator {
    using value_type = T;

    PackedAllocator() = default;
    template <typename U>
    PackedAllocator(const PackedAllocator<U>&) {}

    T* allocate(size_t count) {
        constexpr size_t kHugePage = size_t{1} << 21, kLine = 64;
        const size_t alignment = count * sizeof(T) >= kHugePage / 2 ? kHugePage : kLine;
        const size_t bytes = (count * sizeof(T) + alignment - 1) / alignment * alignment;
        void* data = std::aligned_alloc(alignment, bytes);
        if (data == nullptr) throw std::bad_alloc();
#ifdef __linux__
        if (alignment == kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
#endif
        return static_cast<T*>(data);
    }

    void deallocate(T* data, size_t) { std::free(data); }

    bool operator==(const PackedAllocator&) const { return true; }
    bool operator!=(const PackedAllocator&) const { return false; }
};

template <typename T>
using PackedVector = std::vector<T, PackedAllocator<T>>;

}  // namespace sparseplan
