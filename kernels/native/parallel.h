// The one place that knows how threads are made: OpenMP, shared with torch, so that both use one pool.
//
// A race checker cannot see the barriers inside an OpenMP library: with SPARSEPLAN_STD_THREADS the same three functions
// run on std::thread. Included by sources of every instruction set, hence the anonymous namespace.
#pragma once

#include <cstdint>

#ifdef SPARSEPLAN_STD_THREADS
#include "std_threads.h"
#else

namespace {

// Runs body() on every thread of a team.
template <typename Body>
void run_team(int threads, Body body) {
#pragma omp parallel num_threads(threads)
    body();
}

// Inside run_team: deals f(0) .. f(count - 1) out in chunks to whoever is free; all wait at the end.
template <typename F>
void share_dynamic(int64_t count, int64_t chunk, F f) {
#pragma omp for schedule(dynamic, chunk)
    for (int64_t i = 0; i < count; ++i) f(i);
}

// Inside run_team: every thread gets the same consecutive share each time; all wait at the end.
template <typename F>
void share_static(int64_t count, F f) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; ++i) f(i);
}

}  // namespace

#endif
