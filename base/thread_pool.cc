#include "base/thread_pool.h"

#include <sched.h>

#include <string>
#include <system_error>

#include "base/error.h"

namespace winnow {

namespace {

constexpr uint64_t kTaskBits = 32;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;

// Looks at a condition for about 20 microseconds before a thread goes to sleep: operations follow one another closely.
constexpr int kSpins = 4000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

ThreadPool::ThreadPool(int n_threads) {
  try {
    for (int thread = 1; thread < n_threads; ++thread) workers_.emplace_back([this, thread] { worker_loop(thread); });
  } catch (const std::system_error& error) {
    const std::size_t n_started = workers_.size() + 1;
    stop();
    fail(ExitCode::kOutOfMemory, "only " + std::to_string(n_started) + " of " + std::to_string(n_threads) +
                                     " threads could be started: " + error.what() + "; give fewer --threads");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_ = true;
  ++job_;
  job_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::worker_loop(int thread) {
  uint32_t last_job = 0;
  while (true) {
    for (int i = 0; i < kSpins && job_.load(std::memory_order_acquire) == last_job; ++i) pause();
    job_.wait(last_job, std::memory_order_acquire);
    if (stop_) return;
    last_job = job_.load(std::memory_order_acquire);
    work(last_job, thread);
  }
}

void ThreadPool::work(uint64_t job, int thread) {
  uint64_t next = next_.load(std::memory_order_acquire);
  while (true) {
    const auto task = static_cast<int64_t>(next & kTaskMask);
    if ((next >> kTaskBits) != (job & kTaskMask) || task >= n_tasks_.load(std::memory_order_acquire)) return;
    if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    // The task is ours, so the job cannot end, and its function not change, before it is done.
    function_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), task, thread);
    if (n_done_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_tasks_.load(std::memory_order_relaxed)) {
      n_done_.notify_one();
    }
    next = next_.load(std::memory_order_acquire);
  }
}

void ThreadPool::run_erased(int64_t n_tasks, Function function, void* context) {
  if (workers_.empty() || n_tasks <= 1) {
    for (int64_t task = 0; task < n_tasks; ++task) function(context, task, 0);
    return;
  }
  const uint32_t job = job_.load(std::memory_order_relaxed) + 1;
  // First shut the old job: a thread that is late with it must not take the new number of tasks for its own. Whoever
  // sees that number sees this too.
  next_.store(kTaskMask, std::memory_order_relaxed);
  n_tasks_.store(n_tasks, std::memory_order_release);
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  n_done_.store(0, std::memory_order_relaxed);
  next_.store(static_cast<uint64_t>(job) << kTaskBits, std::memory_order_release);
  job_.store(job, std::memory_order_release);
  job_.notify_all();
  work(job, 0);
  for (int i = 0; i < kSpins && n_done_.load(std::memory_order_acquire) != n_tasks; ++i) pause();
  for (int64_t n = n_done_.load(std::memory_order_acquire); n != n_tasks; n = n_done_.load(std::memory_order_acquire)) {
    n_done_.wait(n, std::memory_order_acquire);
  }
}

}  // namespace winnow
