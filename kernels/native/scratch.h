// Memory that a thread keeps between runs, shared by all layers: warm in cache, no page faults, safe across threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparseplan {

enum class Slot { input, work };

// At least `floats` floats on a 64-byte boundary, contents undefined; valid until this thread asks again.
float* thread_scratch(Slot slot, int64_t floats);

// Overwrites what the threads of a team of this size keep; results must not depend on it.
void fill_scratch(float value, int threads);

// To be called before the first write to a large output: memory fresh from the system comes in huge pages where these are
// lent on request. One page fault of 4 KiB costs as long as writing 60 KiB.
void expect_writes(void* memory, int64_t bytes);

}  // namespace sparseplan
