// Which instruction sets the CPU has *and* the operating system saves the registers of.
#pragma once

#include <string>
#include <vector>

namespace sparseplan {

// Weakest first: baseline, avx2, avx512, avx512vnni, avx512bf16, avx512fp16, amx. The later four each stand for what
// the kernels of that name use: avx512bf16 includes VBMI2, amx its tiles, bfloat16 and int8.
const std::vector<std::string>& isa_list();

bool cpu_has(const std::string& isa);

}  // namespace sparseplan
