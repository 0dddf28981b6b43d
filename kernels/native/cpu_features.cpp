#include "cpu_features.h"

#ifdef SPARSEPLAN_X86
#include <cpuid.h>

#include <cstdint>
#endif

namespace sparseplan {
namespace {

#ifdef SPARSEPLAN_X86

// Bit numbers: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID; volume 1, section 13.1.
bool bit(uint32_t word, int number) { return (word >> number & 1u) != 0; }

uint64_t enabled_state() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

CpuFeatures detect() {
    CpuFeatures features{};
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return features;
    const bool fma = bit(ecx, 12), os_saves = bit(ecx, 27), avx = bit(ecx, 28);
    if (!os_saves || !avx) return features;
    const uint64_t state = enabled_state();
    const bool os_avx = (state & 0x6) == 0x6;       // SSE, AVX
    const bool os_avx512 = (state & 0xe6) == 0xe6;  // and opmask, upper halves, upper registers

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return features;
    features.avx2 = os_avx && fma && bit(ebx, 5);
    const bool f = bit(ebx, 16), dq = bit(ebx, 17), bw = bit(ebx, 30), vl = bit(ebx, 31);
    features.avx512 = features.avx2 && os_avx512 && f && dq && bw && vl;
    const uint32_t highest_subleaf = eax;
    if (highest_subleaf >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) {
        features.avx512bf16 = features.avx512 && bit(eax, 5);
    }
    return features;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = detect();
    return features;
}

}  // namespace sparseplan
