// What kernels/gpu/cuda/matrix_units.cuh does on a device, on a CPU: each thread of a block is a fiber, and what threads do
// together (barriers, shuffles, loads and products of matrices) happens when the last of them has come to it. Fragments,
// places and descriptors are read as the PTX manual lays them out ("Matrix fragments for sparse mma.m16n8k32",
// "Asynchronous warpgroup level matrix shared memory layout"). `late` delays copies, and the products of warpgroups, until
// they are waited for, and otherwise makes them at once: code that is right must be so in both.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

using Word = unsigned int;

#define __device__
#define __forceinline__ inline
#define KERNEL(threads) void
#define SHARED_MEMORY unsigned char* const shared_memory = emulated::shared

namespace emulated {

struct Index {
  int x;
};
inline bool late = false;
inline bool is_bfloat16 = true;
alignas(1024) inline unsigned char shared[1 << 18];

struct Copy {
  Word to;
  const void* from;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  const void* given = nullptr;
  std::deque<std::vector<Copy>> groups; // of copies that end_of_copies closed
  std::vector<Copy> open;
  std::vector<std::function<void()>> products; // of its warpgroup, kept by its first thread
};

inline std::vector<Fiber> fibers;
inline std::vector<int> ready;
inline std::map<std::pair<int, int>, std::vector<int>> arrived; // by first thread and number of a group
inline int running = 0;
inline ucontext_t scheduler;
inline Index threadIdx, blockIdx;

// `count` threads from a multiple of it on, together; the last to come does `what`.
template <class What>
void together(int count, const void* given, What what) {
  const int first = running / count * count;
  fibers[running].given = given;
  auto& here = arrived[{first, count}];
  here.push_back(running);
  if (static_cast<int>(here.size()) < count) {
    swapcontext(&fibers[running].context, &scheduler);
    return;
  }
  what(first);
  for (int thread : here)
    if (thread != running) ready.push_back(thread);
  here.clear();
}

template <class Given>
const Given& given_by(int thread) {
  return *static_cast<const Given*>(fibers[thread].given);
}

// Runs one block; false where threads were left waiting for others that had ended.
inline bool run_block(int block, int threads, const std::function<void()>& kernel, unsigned seed) {
  static const std::function<void()>* body;
  body = &kernel;
  std::memset(shared, 0xff, sizeof shared); // NaN
  fibers.clear();
  fibers.resize(threads);
  arrived.clear();
  ready.clear();
  blockIdx.x = block;
  int left = threads;
  static int* unfinished;
  unfinished = &left;
  for (int thread = 0; thread < threads; ++thread) {
    Fiber& fiber = fibers[thread];
    constexpr int STACK = 1 << 16;
    fiber.stack.reset(new char[STACK]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, static_cast<void (*)()>([] {
                  (*body)();
                  --*unfinished;
                }),
                0);
    ready.push_back(thread);
  }
  std::mt19937 random(seed);
  while (!ready.empty()) {
    const int chosen = random() % ready.size();
    running = ready[chosen];
    ready[chosen] = ready.back();
    ready.pop_back();
    threadIdx.x = running;
    swapcontext(&scheduler, &fibers[running].context);
  }
  return left == 0;
}

inline float to_float(unsigned element) {
  element &= 0xffff;
  if (is_bfloat16) {
    const uint32_t bits = element << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  const uint16_t half = element;
  _Float16 value;
  std::memcpy(&value, &half, 2);
  return value;
}

inline Word from_float(float value) {
  if (is_bfloat16) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
  const _Float16 half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

// Sixteen rows of 32 wide channels, from the fragments of a warp and the places that its selected lanes hold.
struct SparseRows {
  const Word* rows;
  const Word* places;
};
template <class Of>
void spread(float (&wide)[16][32], int selector, Of of) {
  for (auto& row : wide)
    for (float& value : row) value = 0.0f;
  for (int row = 0; row < 16; ++row) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      const int four = row % 8 * 4, half = chunk / 4, is_below = row / 8;
      const Word kept = of(four + chunk % 4).rows[2 * half + is_below];
      const Word places = *of(four + 2 * selector + half).places >> (16 * is_below + chunk % 4 * 4);
      wide[row][4 * chunk + (places & 3)] = to_float(kept);
      wide[row][4 * chunk + (places >> 2 & 3)] = to_float(kept >> 16);
    }
  }
}

} // namespace emulated

using emulated::blockIdx;
using emulated::threadIdx;

inline int min(int a, int b) { return a < b ? a : b; }

inline Word shared_address(const void* place) {
  return static_cast<Word>(static_cast<const unsigned char*>(place) - emulated::shared);
}

inline void __syncthreads() {
  emulated::together(static_cast<int>(emulated::fibers.size()), nullptr, [](int) {});
}

inline void make_copies(const std::vector<emulated::Copy>& copies) {
  for (const auto& copy : copies) {
    if (copy.from)
      std::memcpy(emulated::shared + copy.to, copy.from, 16);
    else
      std::memset(emulated::shared + copy.to, 0, 16);
  }
}

inline void copy_ahead(Word to, const void* from, bool is_inside) {
  const emulated::Copy copy{to, is_inside ? from : nullptr};
  if (emulated::late)
    emulated::fibers[emulated::running].open.push_back(copy);
  else
    make_copies({copy});
}

inline void end_of_copies() {
  auto& fiber = emulated::fibers[emulated::running];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

template <int LATER>
void wait_for_copies() {
  auto& groups = emulated::fibers[emulated::running].groups;
  for (; groups.size() > LATER; groups.pop_front()) make_copies(groups.front());
}

struct MatricesWanted {
  Word* to;
  Word from;
};
inline void load_matrices(Word (&to)[4], Word from) {
  const MatricesWanted wanted{to, from};
  emulated::together(32, &wanted, [](int first) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        const Word row = emulated::given_by<MatricesWanted>(first + matrix * 8 + lane / 4).from;
        std::memcpy(&emulated::given_by<MatricesWanted>(first + lane).to[matrix],
                    emulated::shared + row + lane % 4 * 4, 4);
      }
    }
  });
}

struct WordGiven {
  Word value;
  Word* to;
  int distance;
};
inline Word from_lane_across(Word value, int distance) {
  Word taken = 0;
  const WordGiven given{value, &taken, distance};
  emulated::together(32, &given, [](int first) {
    for (int lane = 0; lane < 32; ++lane) {
      const auto& mine = emulated::given_by<WordGiven>(first + lane);
      *mine.to = emulated::given_by<WordGiven>(first + (lane ^ mine.distance)).value;
    }
  });
  return taken;
}

inline Word bytes_of(Word low, Word high, Word selector) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  Word bytes = 0;
  for (int i = 0; i < 4; ++i) bytes |= static_cast<Word>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return bytes;
}

inline Word to_elements(float first, float second) {
  return emulated::from_float(first) | emulated::from_float(second) << 16;
}

inline float to_float(Word element) { return emulated::to_float(element); }

struct ProductGiven {
  float* sums;
  emulated::SparseRows sparse;
  const Word* columns;
};
template <int SELECTOR>
void multiply_sparse(float (&sums)[4], const Word (&rows)[4], const Word (&columns)[4], const Word& places) {
  const ProductGiven given{sums, {rows, &places}, columns};
  emulated::together(32, &given, [](int first) {
    float wide[16][32], taken[32][8];
    emulated::spread(wide, SELECTOR, [&](int lane) { return emulated::given_by<ProductGiven>(first + lane).sparse; });
    for (int lane = 0; lane < 32; ++lane)
      for (int k = 0; k < 8; ++k)
        taken[k / 2 * 8 + lane % 4 * 2 + k % 2][lane / 4] =
            to_float(emulated::given_by<ProductGiven>(first + lane).columns[k / 2] >> 16 * (k % 2));
    for (int row = 0; row < 16; ++row) {
      float added[8] = {};
      for (int k = 0; k < 32; ++k)
        for (int column = 0; column < 8; ++column) added[column] += wide[row][k] * taken[k][column];
      for (int column = 0; column < 8; ++column)
        emulated::given_by<ProductGiven>(first + row % 8 * 4 + column / 2).sums[row / 8 * 2 + column % 2] += added[column];
    }
  });
}

inline void held_until_here(Word&) {}
inline void held_until_here(float&) {}
inline void show_copies_to_products() {}
inline void begin_products() {}
inline void end_of_products() {}

struct GroupProductGiven {
  float (*sums)[4];
  emulated::SparseRows sparse;
  unsigned long long columns;
};
template <int SELECTOR>
void multiply_sparse(float (&sums)[16][4], const Word (&rows)[4], unsigned long long columns, const Word& places) {
  const GroupProductGiven given{sums, {rows, &places}, columns};
  emulated::together(128, &given, [](int first) {
    std::vector<GroupProductGiven> all;
    for (int thread = 0; thread < 128; ++thread) all.push_back(emulated::given_by<GroupProductGiven>(first + thread));
    auto product = [all] {
      const unsigned long long described = all[0].columns;
      const Word start = (described & 0x3fff) << 4, stretch = (described >> 32 & 0x3fff) << 4;
      for (int warp = 0; warp < 4; ++warp) {
        float wide[16][32];
        emulated::spread(wide, SELECTOR, [&](int lane) { return all[warp * 32 + lane].sparse; });
        for (int column = 0; column < 128; ++column) {
          float taken[32];
          for (int k = 0; k < 32; ++k) {
            Word at = start + column / 8 * stretch + column % 8 * 128 + k * 2;
            if (described >> 62 == 1) at ^= (at >> 7 & 7) << 4;
            uint16_t element;
            std::memcpy(&element, emulated::shared + at, 2);
            taken[k] = to_float(element);
          }
          for (int row = 0; row < 16; ++row) {
            float added = 0.0f;
            for (int k = 0; k < 32; ++k) added += wide[row][k] * taken[k];
            all[warp * 32 + row % 8 * 4 + column % 8 / 2].sums[column / 8][row / 8 * 2 + column % 2] += added;
          }
        }
      }
    };
    if (emulated::late)
      emulated::fibers[first].products.push_back(product);
    else
      product();
  });
}

inline void wait_for_products() {
  emulated::together(128, nullptr, [](int first) {
    for (const auto& product : emulated::fibers[first].products) product();
    emulated::fibers[first].products.clear();
  });
}
