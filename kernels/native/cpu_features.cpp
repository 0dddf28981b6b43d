#include "cpu_features.h"

#include <algorithm>

#ifdef SPARSEPLAN_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

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

// Linux lends the 8 KiB of tile registers on request only (Documentation/arch/x86/xstate.rst).
bool request_tiles() {
#ifdef __linux__
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

std::vector<std::string> detect() {
    std::vector<std::string> found{"baseline"};
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return found;
    const bool fma = bit(ecx, 12), os_saves = bit(ecx, 27), avx = bit(ecx, 28);
    if (!os_saves || !avx) return found;
    const uint64_t state = enabled_state();
    const bool os_avx = (state & 0x6) == 0x6;            // SSE, AVX
    const bool os_avx512 = (state & 0xe6) == 0xe6;       // and opmask, upper halves, upper registers
    const bool os_tiles = (state & 0x60000) == 0x60000;  // tile configuration and data

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
    const uint32_t highest_subleaf = eax;
    const bool f = bit(ebx, 16), dq = bit(ebx, 17), bw = bit(ebx, 30), vl = bit(ebx, 31);
    const bool vbmi = bit(ecx, 1), vbmi2 = bit(ecx, 6), vnni = bit(ecx, 11), fp16 = bit(edx, 23);
    const bool tiles = bit(edx, 24) && bit(edx, 22) && bit(edx, 25);  // and bfloat16, int8
    if (!os_avx || !fma || !bit(ebx, 5)) return found;
    found.push_back("avx2");
    if (!os_avx512 || !f || !dq || !bw || !vl) return found;
    found.push_back("avx512");
    if (vnni) found.push_back("avx512vnni");
    const bool bf16 =
        highest_subleaf >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && bit(eax, 5);
    if (bf16 && vbmi && vbmi2) found.push_back("avx512bf16");
    if (fp16) found.push_back("avx512fp16");
    if (tiles && bf16 && os_tiles && request_tiles()) found.push_back("amx");
    return found;
}

#else

std::vector<std::string> detect() { return {"baseline"}; }

#endif

}  // namespace

const std::vector<std::string>& isa_list() {
    static const std::vector<std::string> list = detect();
    return list;
}

bool cpu_has(const std::string& isa) { return std::find(isa_list().begin(), isa_list().end(), isa) != isa_list().end(); }

}  // namespace sparseplan
