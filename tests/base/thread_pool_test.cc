#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "base/error.h"

namespace winnow::cpu {
namespace {

TEST(ThreadPool, DoesEveryTaskOnceInEveryOfManyRuns) {
  for (const int n_threads : {1, 2, 3, 9}) {
    ThreadPool pool(n_threads);
    ASSERT_EQ(pool.size(), n_threads);
    for (int run = 0; run < 3000; ++run) {
      const int64_t n = run % 17;
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(n));
      pool.run(n, [&](int64_t task, int) { ++done[static_cast<std::size_t>(task)]; });
      for (const std::atomic<int>& count : done) ASSERT_EQ(count, 1) << "run " << run << ", threads " << n_threads;
    }
  }
}

[[noreturn]] void start_more_threads_than_fit() {
  rlimit limit{};
  limit.rlim_cur = limit.rlim_max = rlim_t{1} << 30;  // the stacks of 4000 threads take more
  setrlimit(RLIMIT_AS, &limit);
  try {
    ThreadPool pool(4000);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s", error.what());
    std::exit(static_cast<int>(error.code()));
  }
  std::exit(0);
}

TEST(ThreadPool, SaysSoWhereThreadsCannotBeStarted) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer itself needs more memory than the limit";
#endif
  // In a child, so that nothing else feels the limit.
  EXPECT_EXIT(start_more_threads_than_fit(), testing::ExitedWithCode(static_cast<int>(ExitCode::kOutOfMemory)),
              "of 4000 threads could be started");
}

TEST(ThreadPool, NeverGivesOneThreadNumberToTwoTasksAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<int> clashes = 0;
  for (int run = 0; run < 200; ++run) {
    pool.run(64, [&](int64_t, int thread) {
      std::atomic<int>& mine = inside[static_cast<std::size_t>(thread)];
      if (++mine != 1) ++clashes;
      std::this_thread::yield();
      --mine;
    });
  }
  EXPECT_EQ(clashes, 0);
}

TEST(ThreadPool, ShowsEachRunWhatTheOneBeforeWrote) {
  ThreadPool pool(3);
  std::vector<int64_t> before(100, 0);
  std::vector<int64_t> after(100, 0);
  for (int64_t run = 1; run <= 2000; ++run) {
    pool.run(100, [&](int64_t task, int) {
      const auto i = static_cast<std::size_t>(task);
      after[i] = before[(i + 1) % 100] + 1;
    });
    std::swap(before, after);
    for (const int64_t value : before) ASSERT_EQ(value, run);
  }
}

}  // namespace
}  // namespace winnow::cpu
