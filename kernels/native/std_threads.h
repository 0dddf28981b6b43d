// parallel.h on std::thread, for race checkers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace {

struct Team {
    explicit Team(int threads) : size(threads) {}

    void wait() {
        std::unique_lock<std::mutex> lock(mutex);
        const int64_t now = generation;
        if (++arrived == size) {
            arrived = 0;
            next.store(0);
            ++generation;
            all_here.notify_all();
            return;
        }
        all_here.wait(lock, [&] { return generation != now; });
    }

    const int size;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable all_here;
    int arrived = 0;
    int64_t generation = 0;
};

thread_local Team* current_team = nullptr;
thread_local int current_thread = 0;

template <typename Body>
void run_team(int threads, Body body) {
    Team team(threads);
    const auto member = [&](int index) {
        current_team = &team;
        current_thread = index;
        body();
        current_team = nullptr;
    };
    std::vector<std::thread> others;
    for (int index = 1; index < threads; ++index) others.emplace_back(member, index);
    member(0);
    for (std::thread& other : others) other.join();
}

template <typename F>
void share_dynamic(int64_t count, int64_t chunk, F f) {
    for (;;) {
        const int64_t begin = current_team->next.fetch_add(chunk);
        if (begin >= count) break;
        for (int64_t i = begin; i < begin + chunk && i < count; ++i) f(i);
    }
    current_team->wait();
}

template <typename F>
void share_static(int64_t count, F f) {
    const int64_t size = current_team->size, index = current_thread;
    for (int64_t i = count * index / size; i < count * (index + 1) / size; ++i) f(i);
    current_team->wait();
}

}  // namespace
