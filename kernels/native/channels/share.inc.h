// Pixels are shared among threads in runs. Included after parallel.h.

namespace {

// body(begin, end) for a run of pixels on each thread.
template <typename Body>
void for_runs(int64_t pixels, int threads, Body body) {
    run_team(threads, [&] {
        share_static(threads, [&](int64_t part) { body(pixels * part / threads, pixels * (part + 1) / threads); });
    });
}

}  // namespace
