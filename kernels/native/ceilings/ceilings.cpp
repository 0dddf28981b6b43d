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

// Sum over the team of what `work()` reports per second, each thread working for `seconds`; once for each repeat.
template <typename MakeWork>
std::vector<double> team_rates(double seconds, int threads, int repeats, MakeWork make_work) {
    std::vector<double> rates(static_cast<size_t>(repeats), 0.0);
#pragma omp parallel num_threads(threads)
    {
        auto work = make_work();
        work();
        for (double& rate : rates) {
#pragma omp barrier
            const Clock::time_point start = Clock::now();
            double done = 0.0, elapsed = 0.0;
            do {
                done += work();
                elapsed = seconds_since(start);
            } while (elapsed < seconds);
#pragma omp atomic
            rate += done / elapsed;
        }
    }
    return rates;
}

template <typename MakeWork>
double team_rate(double seconds, int threads, MakeWork make_work) {
    return team_rates(seconds, threads, 1, make_work).front();
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

std::vector<double> bandwidth_byte_per_s(const std::string& access, int64_t bytes_per_thread, double seconds,
                                         int threads, int repeats) {
    if (access != "load" && access != "store" && access != "copy") {
        throw std::invalid_argument("access must be 'load', 'store' or 'copy', got '" + access + "'");
    }
    const CeilingsTable& best = best_table();
    constexpr int64_t kStep = 256;               // floats, see CeilingsTable::sum_floats
    constexpr int64_t kFloatsPerLook = 1 << 16;  // small buffers are gone over many times between looks at the clock
    const int64_t floats = std::max(bytes_per_thread / int64_t{sizeof(float)} / kStep, int64_t{1}) * kStep;
    const int64_t passes = std::max(kFloatsPerLook / floats, int64_t{1});
    return team_rates(seconds, threads, repeats, [&] {
        float* data = thread_scratch(Slot::input, floats);
        // Never touched, all pages would be the same page of zeros.
        for (int64_t i = 0; i < floats; ++i) data[i] = static_cast<float>(i & 7);
        return [&best, &access, data, floats, passes] {
            if (access == "load") {
                sink.store(best.sum_floats(data, floats, passes), std::memory_order_relaxed);
            } else if (access == "store") {
                best.store_floats(data, floats, passes);
            } else {
                best.copy_half(data, floats, passes);
            }
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

double timer_latency_s() {
    constexpr int kRounds = 15, kReadings = 1000;
    double best = std::numeric_limits<double>::infinity();
    for (int round = 0; round < kRounds; ++round) {
        const Clock::time_point start = Clock::now();
        for (int reading = 1; reading < kReadings; ++reading) (void)Clock::now();
        best = std::min(best, seconds_since(start) / kReadings);
    }
    return best;
}

std::vector<double> cycle_s(int threads, int repeats) {
    // Adding two registers takes one cycle on every core in use (Agner Fog, Instruction tables), and none can skip it as
    // some skip the addition of a constant.
    constexpr int kUnroll = 64;
    constexpr int64_t kLinks = int64_t{1} << 18;
    std::vector<double> found(static_cast<size_t>(repeats), 0.0);
#pragma omp parallel num_threads(threads)
    {
        uint64_t sum = 0, step = 1;
        __asm__ volatile("" : "+r"(step));
        for (double& seconds : found) {
            const Clock::time_point start = Clock::now();
            for (int64_t link = 0; link < kLinks; link += kUnroll) {
#pragma GCC unroll 64
                for (int i = 0; i < kUnroll; ++i) {
                    sum += step;
                    __asm__ volatile("" : "+r"(sum));
                }
            }
            const double taken = seconds_since(start) / static_cast<double>(kLinks);
#pragma omp master
            seconds = taken;
        }
        sink.store(static_cast<float>(sum), std::memory_order_relaxed);
    }
    return found;
}

}  // namespace sparseplan
