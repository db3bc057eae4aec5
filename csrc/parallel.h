// The engine's own threads: work is handed out task by task, so any number of workers finishes it.
// A second caller while the pool is busy works alone; a forked child starts a pool of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace cfsae {

// How many of `threads` workers are worth waking for this many multiply-adds: 1 below a threshold.
int workers_for(int64_t operations, int threads);

// Calls body(task, worker) once per task of [0, n_tasks), worker in [0, workers). Tasks start in
// rising order; each worker sees rising tasks. The first exception of a body is rethrown here.
// wake: kIfBusy leaves a pool that sleeps asleep, unless the last job ended a moment ago: for work
// that is shorter than what it costs to wake a thread, and comes in streams.
enum class Wake { kAlways, kIfBusy };
void parallel_for(int64_t n_tasks, int workers,
                  const std::function<void(int64_t task, int worker)>& body,
                  Wake wake = Wake::kAlways);

// Whether the calling thread's loops run on the threads of GNU's OpenMP, where the process has
// loaded it, instead of the pool: beside a library that uses OpenMP (torch), whose threads look for
// work for milliseconds after each of its loops, on the processors that the pool's threads want.
// Returns how it was before.
bool use_openmp(bool wanted);

// How to share a request's reading of so many bytes from memory: a second thread pays long before
// arithmetic alone would need one, but only if it is awake, or the reading is long.
struct Crew {
  int workers;
  Wake wake;
};
inline Crew crew_for_reading(int64_t bytes, int threads) {
  constexpr int64_t kPerWorker = 128 << 10;  // about 10 us
  constexpr int64_t kToWake = 4 << 20;       // about 0.3 ms of one thread
  const int64_t useful = std::min<int64_t>(threads, 1 + bytes / kPerWorker);
  return {static_cast<int>(useful), bytes < kToWake ? Wake::kIfBusy : Wake::kAlways};
}

}  // namespace cfsae
