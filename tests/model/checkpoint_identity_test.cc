// Which checkpoint it is: its hash, the cache of it, and what a run notices when files change under it.

#include "model/checkpoint_identity.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/model/model_files.h"

namespace winnow::model {
namespace {

using Json = nlohmann::ordered_json;
using testing::expect_error;
using testing::safetensors_image;
using testing::TempDir;

std::string sha256(const std::string& bytes) {
  std::string digest(32, '\0');
  EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()), nullptr, EVP_sha256(),
             nullptr);
  return digest;
}

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(c));
    text += digits;
  }
  return text;
}

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class HashTest : public ::testing::Test {
 protected:
  HashTest() {
    dir_.write("config.json", "{}");
    dir_.write("model.safetensors", safetensors_image({{"x", "F32", {3}}}));
    std::filesystem::create_directories(cache_);
  }
  // Waits until the files are old enough for their hash to be kept.
  void settle() const {
    for (const char* name : {"config.json", "model.safetensors"}) {
      for (auto stamp = FileStamp::of(dir_.path() / name); stamp && !stamp->is_settled();) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
  }
  std::string hash(bool cached = true) const {
    if (cached) settle();
    return checkpoint_sha256(Checkpoint(dir_.path()), cached ? cache_ : std::filesystem::path());
  }
  // The one file in the cache.
  std::filesystem::path cache_file() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(cache_)) files.push_back(entry.path());
    EXPECT_EQ(files.size(), 1U);
    return files.at(0);
  }
  // Puts another hash, or other text, into the cache.
  void rewrite_cache(const std::function<std::string(Json)>& change) const {
    const auto path = cache_file();
    const std::string text = change(Json::parse(content(path)));
    std::ofstream(path) << text;
  }

  TempDir dir_;
  std::filesystem::path cache_ = dir_.path() / "cache" / "deeper";
};

TEST_F(HashTest, IsWhatTheHeaderDefines) {
  const std::string file = content(dir_.path() / "model.safetensors");
  EXPECT_EQ(hash(false), hex(sha256(sha256(sha256(file)) + sha256("{}"))));
}

TEST_F(HashTest, FilesOfManyChunks) {
  // 68 MiB of zeros, sparse on disk, are 64 MiB and the rest.
  constexpr int64_t kCount = 17 << 20;
  const std::string header = R"({"x":{"dtype":"F32","shape":[17825792],"data_offsets":[0,71303168]}})";
  const auto path = dir_.write("model.safetensors", safetensors_image(header, ""));
  std::filesystem::resize_file(path, 8 + header.size() + 4 * kCount);
  const std::string bytes = content(path);
  constexpr std::size_t kChunk = 64U << 20;
  const std::string digests = sha256(bytes.substr(0, kChunk)) + sha256(bytes.substr(kChunk));
  EXPECT_EQ(hash(false), hex(sha256(sha256(digests) + sha256("{}"))));
}

TEST_F(HashTest, ChangesWithEveryByteOfWeightsAndConfig) {
  const std::string original = hash(false);
  dir_.write("config.json", "{ }");
  const std::string other_config = hash(false);
  EXPECT_NE(original, other_config);
  std::string image = content(dir_.path() / "model.safetensors");
  image.back() = 1;
  dir_.write("model.safetensors", image);
  EXPECT_NE(hash(false), other_config);
}

TEST_F(HashTest, IsCachedUntilAFileChanges) {
  const std::string original = hash();
  const std::string other(64, 'a');
  rewrite_cache([&](Json cache) {
    cache["sha256"] = other;
    return cache.dump();
  });
  EXPECT_EQ(hash(), other);
  EXPECT_EQ(hash(false), original);
  const auto path = dir_.path() / "model.safetensors";
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
  EXPECT_EQ(hash(), original);
  rewrite_cache([&](Json cache) {
    cache["sha256"] = other;
    return cache.dump();
  });
  dir_.write("config.json", "{\n\n}");
  EXPECT_NE(hash(), other);
}

TEST_F(HashTest, TheCacheSeesAChangeBehindATimeThatIsSetBack) {
  const std::string original = hash();
  const auto path = dir_.path() / "model.safetensors";
  const auto time = std::filesystem::last_write_time(path);
  std::string image = content(path);
  image.back() = 1;
  dir_.write("model.safetensors", image);
  std::filesystem::last_write_time(path, time);
  EXPECT_NE(hash(), original);
}

TEST_F(HashTest, WhatWasJustWrittenIsNotKept) {
  dir_.write("config.json", "{ }");
  EXPECT_EQ(checkpoint_sha256(Checkpoint(dir_.path()), cache_), hash(false));
  const bool is_fast = !FileStamp::of(dir_.path() / "config.json")->is_settled();  // else this machine was too slow
  EXPECT_TRUE(!is_fast || std::filesystem::is_empty(cache_));
}

TEST_F(HashTest, ABrokenCacheIsWrittenAnew) {
  const std::string original = hash();
  const std::string good = content(cache_file());
  const std::vector<std::function<std::string(Json)>> breaks = {
      [](const Json&) { return std::string(); },
      [](const Json&) { return std::string("{\"version\":"); },
      [](const Json&) { return std::string("[1,2]"); },
      [](Json cache) { return cache["version"] = 99, cache.dump(); },
      [](Json cache) { return cache["sha256"] = "abc", cache.dump(); },
      [](Json cache) { return cache["sha256"] = std::string(64, 'Z'), cache.dump(); },
      [](Json cache) { return cache["sha256"] = 3, cache.dump(); },
      [](Json cache) { return cache.erase("files"), cache.dump(); },
      [](Json cache) { return cache["files"][0]["inode"] = 1, cache.dump(); },
      [](Json cache) { return cache["files"].erase(1), cache.dump(); },
  };
  for (std::size_t i = 0; i < breaks.size(); ++i) {
    rewrite_cache(breaks[i]);
    EXPECT_EQ(hash(), original) << i;
    EXPECT_EQ(content(cache_file()), good) << i;
  }
}

TEST_F(HashTest, ACacheThatCannotBeWrittenIsNoError) {
  const std::filesystem::path below_a_file = dir_.write("file", "") / "cache";
  EXPECT_EQ(checkpoint_sha256(Checkpoint(dir_.path()), below_a_file), hash(false));
}

TEST_F(HashTest, NeedsAConfig) {
  std::filesystem::remove(dir_.path() / "config.json");
  expect_error(ExitCode::kNoInput, {"config.json", "cannot be read"}, [&] { hash(); });
}

// ---- changes --------------------------------------------------------------------------------------------------------

class WatchTest : public HashTest {
 protected:
  void begin() {
    settle();
    checkpoint_ = std::make_unique<Checkpoint>(dir_.path());
    config_.text = "{}";
    watch_ = std::make_unique<CheckpointWatch>(config_, *checkpoint_, checkpoint_sha256(*checkpoint_, {}));
  }
  // Writes into the file that is there, and gives it its old time again.
  void write_in_place(std::size_t at, char byte) const {
    const auto time = std::filesystem::last_write_time(weights());
    std::fstream file(weights(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
    file.close();
    std::filesystem::last_write_time(weights(), time);
  }
  std::filesystem::path weights() const { return dir_.path() / "model.safetensors"; }

  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<CheckpointWatch> watch_;
};

TEST_F(WatchTest, NoticesBytesThatChangeBehindTheirTime) {
  begin();
  watch_->require_unchanged();
  const std::size_t last = std::filesystem::file_size(weights()) - 1;
  write_in_place(last, 1);
  for (int again = 0; again < 2; ++again) {
    expect_error(ExitCode::kBadData, {"model.safetensors: was changed while this run used it", "--out"},
                 [&] { watch_->require_unchanged(); });
  }
  write_in_place(last, 0);
  watch_->require_unchanged();
}

TEST_F(WatchTest, BytesDecideWhereOnlyTheStampChanges) {
  begin();
  ASSERT_EQ(chmod(weights().c_str(), 0600), 0);
  std::filesystem::create_hard_link(weights(), dir_.path() / "other-name");
  watch_->require_unchanged();
  // What is in the map stays there under a file that takes its name, and when the name is gone.
  std::filesystem::rename(dir_.write("new", safetensors_image({{"y", "F32", {7}}})), weights());
  watch_->require_unchanged();
  std::filesystem::remove(weights());
  watch_->require_unchanged();
}

TEST_F(WatchTest, NeedsTheConfigThatWasRead) {
  begin();
  config_.text = "{ }";
  expect_error(ExitCode::kBadData, {"config.json: was changed while winnow read it"},
               [&] { CheckpointWatch(config_, *checkpoint_, ""); });
}

TEST(MappedFile, MovesItsMap) {
  const TempDir dir;
  MappedFile first(dir.write("f", "abc"));
  const MappedFile second(std::move(first));
  EXPECT_EQ(second.bytes().size(), 3U);
  EXPECT_EQ(std::to_integer<char>(second.bytes()[2]), 'c');
}

void read_what_is_gone(const std::filesystem::path& path) {
  const MappedFile mapped(path);
  std::filesystem::resize_file(path, 0);
  const volatile std::byte* bytes = mapped.bytes().data();
  static_cast<void>(bytes[mapped.bytes().size() - 1]);
}

TEST(MappedFileDeathTest, AFileThatIsCutShortEndsTheProcessWithALine) {
  const TempDir dir;
  const auto path = dir.write("cut", std::string(20'000, 'x'));
  const MappedFile another(dir.write("f", "abc"));
  EXPECT_EXIT(read_what_is_gone(path), ::testing::ExitedWithCode(65),
              "^winnow: .*/cut: was cut short while winnow read");
}

TEST(MappedFileDeathTest, ABusErrorOfOthersIsLeftToThem) {
  const TempDir dir;
  const MappedFile mapped(dir.write("f", "abc"));
  EXPECT_EXIT(raise(SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace winnow::model
