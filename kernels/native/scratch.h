// Memory that a thread keeps between runs, shared by all layers: warm in cache, no page faults, safe across threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparseplan {

enum class Slot { input, work };

// At least `floats` floats on a 64-byte boundary, contents undefined; valid until this thread asks again.
float* thread_scratch(Slot slot, int64_t floats);

// Asks for huge pages in memory that nobody has touched yet: 2 MiB cost one page fault instead of 512 of 2.6 us.
void advise_huge_pages(uintptr_t address, size_t bytes);

// Overwrites what the threads of a team of this size keep; results must not depend on it.
void fill_scratch(float value, int threads);

}  // namespace sparseplan
