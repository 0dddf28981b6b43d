// Memory on a 64-byte boundary, large pieces of it in huge pages where the system lends these on request: small pages
// miss the first-level TLB, and stop the hardware's prefetch every 4 KiB. Dense weights in small pages arrive with 16 to
// 24 GB/s from the main memory of a Zen 4 where these do with 30.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <vector>

namespace sparseplan {

constexpr size_t kHugePageBytes = size_t{1} << 21;

// At least `bytes` bytes, in huge pages from `huge_from` bytes on; to be freed with std::free.
void* allocate_pages(size_t bytes, size_t huge_from);

// To be called before the first write to a large output: memory fresh from the system comes in huge pages where these are
// lent on request. One page fault of 4 KiB costs as long as writing 60 KiB.
void expect_writes(void* memory, size_t bytes);

// Packed weights, which are read from end to end at every run.
template <typename T>
struct PackedAllocator {
    using value_type = T;

    PackedAllocator() = default;
    template <typename U>
    PackedAllocator(const PackedAllocator<U>&) {}

    T* allocate(size_t count) { return static_cast<T*>(allocate_pages(count * sizeof(T), kHugePageBytes / 2)); }
    void deallocate(T* data, size_t) { std::free(data); }

    bool operator==(const PackedAllocator&) const { return true; }
    bool operator!=(const PackedAllocator&) const { return false; }
};

template <typename T>
using PackedVector = std::vector<T, PackedAllocator<T>>;

}  // namespace sparseplan
