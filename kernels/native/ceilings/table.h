// Work that keeps one execution unit busy, for each instruction set.
#pragma once

#include <cstdint>

namespace sparseplan {

struct CeilingsTable {
    const char* name;
    double (*fma_work)(int64_t rounds);  // runs multiply-adds, returns their flop
    // Sum over `passes` reads of `count` floats, a multiple of 256.
    float (*sum_floats)(const float* data, int64_t count, int64_t passes);
    void (*store_floats)(float* data, int64_t count, int64_t passes);
    void (*copy_half)(float* data, int64_t count, int64_t passes);  // the first half to the second
};

extern const CeilingsTable kCeilingsBaseline;
extern const CeilingsTable kCeilingsAvx2;
extern const CeilingsTable kCeilingsAvx512;

double avx512bf16_dot_work(int64_t rounds);
double avx512fp16_fma_work(int64_t rounds);
double avx512vnni_dot_work(int64_t rounds);
double amx_bf16_work(int64_t rounds);
double amx_int8_work(int64_t rounds);

}  // namespace sparseplan
