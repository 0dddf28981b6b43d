#include "pages.h"

#include <algorithm>
#include <cstdint>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sparseplan {

void* allocate_pages(size_t bytes, size_t huge_from) {
    constexpr size_t kLine = 64;
    const size_t alignment = bytes >= huge_from ? kHugePageBytes : kLine;
    bytes = (std::max(bytes, size_t{1}) + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, bytes);
    if (memory == nullptr) throw std::bad_alloc();
#ifdef __linux__
    if (alignment == kHugePageBytes) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}

void expect_writes([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
    if (bytes < 2 * kHugePageBytes) return;
    constexpr uintptr_t kPage = kHugePageBytes;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace sparseplan
