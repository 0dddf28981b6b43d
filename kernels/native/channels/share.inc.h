// Pixels are shared among threads in runs. Included after parallel.h.

namespace {

constexpr int64_t kPixelsPerTask = 64;

// body(pixel) for all pixels, each thread a run of them.
template <typename Body>
void for_pixels(int64_t pixels, int threads, Body body) {
    run_team(threads, [&] {
        share_static((pixels + kPixelsPerTask - 1) / kPixelsPerTask, [&](int64_t task) {
            const int64_t begin = task * kPixelsPerTask, rest = pixels - begin;
            const int64_t end = begin + (rest < kPixelsPerTask ? rest : kPixelsPerTask);
            for (int64_t pixel = begin; pixel < end; ++pixel) body(pixel);
        });
    });
}

}  // namespace
