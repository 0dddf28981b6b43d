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

// Units that only some CPUs have.
struct Probe {
    const char* unit;
    const char* isa;
    double (*work)(int64_t rounds);
};

#ifdef SPARSEPLAN_X86
constexpr Probe kProbes[] = {
    {"fma_f16", "avx512fp16", avx512fp16_fma_work},
    {"dot_bf16", "avx512bf16", avx512bf16_dot_work},
    {"dot_int8", "avx512vnni", avx512vnni_dot_work},
    {"tile_bf16", "amx", amx_bf16_work},
    {"tile_int8", "amx", amx_int8_work},
};
#else
constexpr Probe kProbes[] = {
    {"fma_f16", "", nullptr},   {"dot_bf16", "", nullptr},  {"dot_int8", "", nullptr},
    {"tile_bf16", "", nullptr}, {"tile_int8", "", nullptr},
};
#endif

}  // namespace

std::optional<double> peak_flop_per_s(const std::string& unit, double seconds, int threads) {
    constexpr int64_t kRounds = 20000;  // tens of microseconds between looks at the clock
    if (unit == "fma_f32") {
        return team_rate(seconds, threads, [] { return [] { return best_table().fma_work(kRounds); }; });
    }
    std::string known = "'fma_f32'";
    for (const Probe& probe : kProbes) {
        if (unit != probe.unit) {
            known += std::string(", '") + probe.unit + "'";
            continue;
        }
        if (!cpu_has(probe.isa)) return std::nullopt;
        return team_rate(seconds, threads, [&] { return [&] { return probe.work(kRounds); }; });
    }
    throw std::invalid_argument("unit must be one of " + known + ", got '" + unit + "'");
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
