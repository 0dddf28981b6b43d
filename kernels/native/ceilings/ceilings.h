// Ceilings of the machine, measured: arithmetic, bandwidth, and the price of waking a team of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace sparseplan {

// All threads together; nothing where the CPU has no such unit.
std::optional<double> peak_flop_per_s(const std::string& unit, double seconds, int threads);

// Reads of a private buffer of this size, over and over; all threads together.
double bandwidth_byte_per_s(int64_t bytes_per_thread, double seconds, int threads);

double parallel_region_latency_s(int threads);

}  // namespace sparseplan
