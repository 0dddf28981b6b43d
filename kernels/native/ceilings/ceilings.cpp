#include "ceilings/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <stdexcept>

#include "ceilings/table.h"
#include "cpu_features.h"
#include "parallel.h"
#include "scratch.h"

namespace sparseplan {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Sum over the team of what `work()` reports per second, each thread working for `seconds`.
template <typename MakeWork>
double team_rate(double seconds, int threads, MakeWork make_work) {
    double rate = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : rate)
    {
        auto work = make_work();
        work();
#pragma omp barrier
        const Clock::time_point start = Clock::now();
        double done = 0.0, elapsed = 0.0;
        do {
            done += work();
            elapsed = seconds_since(start);
        } while (elapsed < seconds);
        rate += done / elapsed;
    }
    return rate;
}

std::atomic<float> sink;

const CeilingsTable& best_table() {
#ifdef SPARSEPLAN_X86
    if (cpu_has("avx512")) return kCeilingsAvx512;
    if (cpu_has("avx2")) return kCeilingsAvx2;
#endif
    return kCeilingsBaseline;
}

}  // namespace

std::optional<double> peak_flop_per_s(const std::string& unit, double seconds, int threads) {
    constexpr int64_t kRounds = 20000;  // tens of microseconds between looks at the clock
    if (unit == "fma_f32") {
        return team_rate(seconds, threads, [] { return [] { return best_table().fma_work(kRounds); }; });
    }
    const bool half = unit == "fma_f16";
    if (!half && unit != "dot_bf16") {
        throw std::invalid_argument("unit must be 'fma_f32', 'fma_f16' or 'dot_bf16', got '" + unit + "'");
    }
#ifdef SPARSEPLAN_X86
    if (half && cpu_has("avx512fp16")) {
        return team_rate(seconds, threads, [] { return [] { return avx512fp16_fma_work(kRounds); }; });
    }
    if (!half && cpu_has("avx512bf16")) {
        return team_rate(seconds, threads, [] { return [] { return avx512bf16_dot_work(kRounds); }; });
    }
#endif
    return std::nullopt;
}

double bandwidth_byte_per_s(int64_t bytes_per_thread, double seconds, int threads) {
    const CeilingsTable& best = best_table();
    constexpr int64_t kStep = 256;                 // floats, see CeilingsTable::sum_floats
    constexpr int64_t kFloatsPerLook = 1 << 16;    // small buffers are read many times between looks at the clock
    const int64_t floats = std::max(bytes_per_thread / int64_t{sizeof(float)} / kStep, int64_t{1}) * kStep;
    const int64_t passes = std::max(kFloatsPerLook / floats, int64_t{1});
    return team_rate(seconds, threads, [&] {
        float* data = thread_scratch(Slot::input, floats);
        for (int64_t i = 0; i < floats; ++i) data[i] = static_cast<float>(i % 7);
        return [&best, data, floats, passes] {
            sink.store(best.sum_floats(data, floats, passes), std::memory_order_relaxed);
            return static_cast<double>(passes * floats * int64_t{sizeof(float)});
        };
    });
}

double parallel_region_latency_s(int threads) {
    constexpr int kRounds = 15, kRegions = 100;
    double best = std::numeric_limits<double>::infinity();
    for (int round = 0; round < kRounds; ++round) {
        const Clock::time_point start = Clock::now();
        for (int region = 0; region < kRegions; ++region) {
#pragma omp parallel num_threads(threads)
            sink.store(0.0f, std::memory_order_relaxed);
        }
        best = std::min(best, seconds_since(start) / kRegions);
    }
    return best;
}

}  // namespace sparseplan
