// Ceilings of the machine, measured: arithmetic, bandwidth, and the price of waking a team of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sparseplan {

// All threads together; nothing where the CPU has no such unit.
std::optional<double> peak_flop_per_s(const std::string& unit, double seconds, int threads);

// Each thread goes over a private buffer of this size again and again: it loads it, stores to it, or copies one half to
// the other ("load", "store", "copy"). Bytes that the program reads and writes, all threads together; what the caches
// move besides, as when they fetch a line before it is overwritten, does not count. One rate for each repeat.
std::vector<double> bandwidth_byte_per_s(const std::string& access, int64_t bytes_per_thread, double seconds,
                                         int threads, int repeats);

double parallel_region_latency_s(int threads);

// One reading of the clock.
double timer_latency_s();

// Seconds of one link of a long chain of additions, each of which waits for the one before: a cycle of the core. As the
// first thread sees it while all run such chains; one number for each repeat of about 0.1 ms.
std::vector<double> cycle_s(int threads, int repeats);

}  // namespace sparseplan
