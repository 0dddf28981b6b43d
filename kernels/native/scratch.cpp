#include "scratch.h"

#include <algorithm>
#include <cstdlib>

#include "pages.h"
#include "parallel.h"

namespace sparseplan {
namespace {

constexpr size_t kManyPages = size_t{1} << 16;  // a share of the first-level TLB (72 pages on Zen 4) that is felt

class Buffer {
  public:
    ~Buffer() { std::free(data_); }

    float* reserve(int64_t floats) {
        if (floats > floats_) grow(floats);
        return data_;
    }

    void fill(float value) { std::fill(data_, data_ + floats_, value); }

  private:
    void grow(int64_t floats) {
        std::free(data_);
        data_ = nullptr;
        floats_ = 0;
        data_ = static_cast<float*>(allocate_pages(floats * sizeof(float), kManyPages));
        floats_ = floats;
    }

    float* data_ = nullptr;
    int64_t floats_ = 0;
};

thread_local Buffer buffers[2];

}  // namespace

float* thread_scratch(Slot slot, int64_t floats) { return buffers[static_cast<int>(slot)].reserve(floats); }

void fill_scratch(float value, int threads) {
    run_team(threads, [value] {
        for (Buffer& buffer : buffers) buffer.fill(value);
    });
}

}  // namespace sparseplan
