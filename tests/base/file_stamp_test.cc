// What tells whether a file is still the one that was read.

#include "base/file_stamp.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <thread>

#include "tests/model/model_files.h"

namespace winnow {
namespace {

using testing::TempDir;

// Until a further change is sure to show in the time of the last one.
FileStamp settled(const std::filesystem::path& path) {
  auto stamp = FileStamp::of(path);
  while (stamp && !stamp->is_settled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    stamp = FileStamp::of(path);
  }
  EXPECT_TRUE(stamp);
  return stamp.value_or(FileStamp{});
}

TEST(FileStamp, StaysWhileNobodyWrites) {
  const TempDir dir;
  const auto path = dir.write("f", "abc");
  const auto stamp = FileStamp::of(path);
  ASSERT_TRUE(stamp);
  EXPECT_EQ(stamp->size_bytes, 3);
  EXPECT_EQ(FileStamp::of(path), stamp);
  std::filesystem::create_symlink("f", dir.path() / "link");
  EXPECT_EQ(FileStamp::of(dir.path() / "link"), stamp);
}

TEST(FileStamp, ShowsAWriteBehindATimeThatIsSetBack) {
  const TempDir dir;
  const auto path = dir.write("f", "abc");
  const FileStamp before = settled(path);
  const auto time = std::filesystem::last_write_time(path);
  dir.write("f", "abd");
  std::filesystem::last_write_time(path, time);
  const auto after = FileStamp::of(path);
  ASSERT_TRUE(after);
  EXPECT_NE(*after, before);
  EXPECT_EQ(after->inode, before.inode);
  EXPECT_EQ(after->size_bytes, before.size_bytes);
}

TEST(FileStamp, ShowsAnotherFileOfTheSameName) {
  const TempDir dir;
  const auto path = dir.write("f", "abc");
  const auto before = FileStamp::of(path);
  std::filesystem::rename(dir.write("g", "abc"), path);
  EXPECT_NE(FileStamp::of(path), before);
}

TEST(FileStamp, IsNotThereForWhatCannotBeReached) {
  const TempDir dir;
  EXPECT_FALSE(FileStamp::of(dir.path() / "absent"));
  EXPECT_FALSE(FileStamp::of(std::string(10'000, 'a')));
  EXPECT_FALSE(FileStamp::of_descriptor(-1));
}

TEST(FileStamp, IsNotSettledJustAfterAChange) {
  FileStamp stamp{.changed_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                                    std::chrono::system_clock::now().time_since_epoch())
                                    .count()};
  EXPECT_FALSE(stamp.is_settled());
  stamp.changed_ns -= 1'000'000'000;
  EXPECT_TRUE(stamp.is_settled());
  stamp.changed_ns += 3'600'000'000'000;  // of a server whose clock is ahead
  EXPECT_FALSE(stamp.is_settled());
}

}  // namespace
}  // namespace winnow
