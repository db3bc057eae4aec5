// The engine's own threads: work is handed out task by task, so any number of workers finishes it.
// A second caller while the pool is busy works alone; a forked child starts a pool of its own.
#pragma once

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

}  // namespace cfsae
