// Memory that a thread keeps between runs, shared by all layers: warm in cache, no page faults, safe across threads.
#pragma once

#include <cstdint>

namespace sparseplan {

enum class Slot { input, work };

// At least `floats` floats on a 64-byte boundary, contents undefined; valid until this thread asks again.
float* thread_scratch(Slot slot, int64_t floats);

// Overwrites what the threads of a team of this size keep; results must not depend on it.
void fill_scratch(float value, int threads);

}  // namespace sparseplan
