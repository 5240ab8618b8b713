// Threads that share out numbered tasks.
//
// Not OpenMP: a parallel region of libgomp ends only when every thread of the team has come to its barrier, so a thread
// that the scheduler holds back, because something else runs on the machine, stalls each of the thousands of small
// regions of a sweep (measured with one busy process beside two threads: 5 times slower). Here a thread that comes late
// finds nothing left to do, and nobody waits for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace winnow {

// Returns the number of cores that this process may run on.
int usable_cores();

class ThreadPool {
 public:
  // Starts n_threads - 1 threads: n_threads >= 1 counts the caller of run() too. Throws Error(kOutOfMemory) where so
  // many cannot be started.
  explicit ThreadPool(int n_threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, thread) once for every task in [0, n_tasks), in any order, and returns when all are done.
  // thread < size() is the same for two tasks only if they do not overlap. body must not throw; one run at a time.
  template <typename Body>
  void run(int64_t n_tasks, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_erased(
        n_tasks, [](void* context, int64_t task, int thread) { (*static_cast<Plain*>(context))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Function = void (*)(void* context, int64_t task, int thread);

  void run_erased(int64_t n_tasks, Function function, void* context);
  void work(uint64_t job, int thread);
  void worker_loop(int thread);
  void stop();

  // The number of the job in the upper half, of its next task in the lower: a thread that is late with an old job can
  // never take a task of a new one.
  std::atomic<uint64_t> next_ = 0;
  std::atomic<int64_t> n_done_ = 0;
  // Of the current job: written before `next_` names it, and not again before all its tasks are done.
  std::atomic<int64_t> n_tasks_ = 0;
  std::atomic<Function> function_ = nullptr;
  std::atomic<void*> context_ = nullptr;
  std::atomic<uint32_t> job_ = 0;  // what workers sleep on
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace winnow
