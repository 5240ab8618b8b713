// The HDF5 layer: what is written comes back, what does not fit is refused by name, a failed write leaves nothing.
#include "results/storage/hdf5.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"

// Under the sanitizer preset: HDF5 itself leaks when it gives up on a damaged file.
extern "C" const char* __lsan_default_suppressions();   // NOLINT(bugprone-reserved-identifier): the sanitizer names it
extern "C" const char* __lsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "leak:libhdf5";
}

namespace winnow::storage {
namespace {

namespace fs = std::filesystem;

class Hdf5Test : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    directory_ = fs::temp_directory_path() / ("winnow_hdf5_" + name + "_" + std::to_string(::getpid()));
    fs::create_directory(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  fs::path at(const std::string& name) const { return directory_ / name; }
  int64_t n_files() const { return std::distance(fs::directory_iterator(directory_), fs::directory_iterator()); }

  fs::path directory_;
};

// Runs `action`, which must throw winnow::Error with that code and all of these words.
template <typename Action>
void expect_error(ExitCode code, const std::vector<std::string>& words, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << '"' << word << "\" in: " << error.what();
    }
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

template <typename T>
void write_vector(Group group, const std::string& name, const std::vector<T>& values,
                  const std::vector<int64_t>& shape) {
  group.write<T>(name, values, shape);
}

TEST_F(Hdf5Test, EveryTypeComesBack) {
  const std::vector<double> doubles = {1.5, -0.0, std::numeric_limits<double>::denorm_min(), 1e300, 2.0, 3.0};
  const std::vector<std::string> strings = {"", "plain", "ünï ‹→› 漢", "with space "};
  {
    File file = File::create(at("a.h5"));
    Group root = file.root();
    root.write<double>("doubles", doubles, {2, 3});
    root.write<float>("floats", std::vector<float>{1.F, std::numeric_limits<float>::quiet_NaN()}, {2, 1, 1});
    root.write<int64_t>("longs", std::vector<int64_t>{std::numeric_limits<int64_t>::min(), 7}, {2});
    root.write<int32_t>("ints", std::vector<int32_t>{-1}, {1});
    root.write<uint8_t>("bytes", std::vector<uint8_t>{0, 255}, {2});
    Group inner = root.create_group("inner").create_group("deep");
    inner.write<std::string>("strings", strings, {4});
    inner.write_scalar<std::string>("text", std::string(200000, 'x'));
    inner.write_scalar<double>("number", 0.1);
    inner.write<double>("none", std::vector<double>{}, {0, 5});
    file.commit();
  }
  const File file = File::open(at("a.h5"));
  const Group root = file.root();
  const Array<double> read = root.read<double>("doubles", 2);
  EXPECT_EQ(read.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(read.values.data(), doubles.data(), sizeof(double) * doubles.size()), 0);
  EXPECT_TRUE(std::isnan(root.read<float>("floats", 3).values[1]));
  EXPECT_EQ(root.read<int64_t>("longs", 1).values[0], std::numeric_limits<int64_t>::min());
  EXPECT_EQ(root.read<int32_t>("ints", 1).values, std::vector<int32_t>{-1});
  EXPECT_EQ(root.read<uint8_t>("bytes", 1).values, (std::vector<uint8_t>{0, 255}));
  EXPECT_EQ(root.read<std::string>("inner/deep/strings", 1).values, strings);
  const Group deep = root.group("inner").group("deep");
  EXPECT_EQ(deep.read_scalar<std::string>("text").size(), 200000U);
  EXPECT_EQ(deep.read_scalar<double>("number"), 0.1);
  EXPECT_EQ(deep.read<double>("none", 2).shape, (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(deep.type("text"), Type::kString);
  EXPECT_EQ(root.names(), (std::vector<std::string>{"doubles", "floats", "longs", "ints", "bytes", "inner"}));
  EXPECT_TRUE(root.contains_group("inner/deep"));
  EXPECT_FALSE(root.contains_group("doubles"));
  EXPECT_FALSE(root.contains("absent/deep"));
}

TEST_F(Hdf5Test, LargeArraysAreCompressedAndExact) {
  std::mt19937_64 random(7);
  std::vector<double> values(std::size_t{37} * 9001);
  for (double& value : values) value = static_cast<double>(random() % 5);
  File file = File::create(at("a.h5"));
  file.root().write<double>("values", values, {37, 9001});
  file.commit();
  EXPECT_LT(fs::file_size(at("a.h5")), values.size() * sizeof(double) / 4);
  EXPECT_EQ(File::open(at("a.h5")).root().read<double>("values", 2).values, values);
}

TEST_F(Hdf5Test, EqualContentIsAnEqualFile) {
  for (const char* name : {"a.h5", "b.h5"}) {
    File file = File::create(at(name));
    write_vector<double>(file.root(), "x", {1, 2, 3}, {3});
    file.root().make_scale("x");
    file.root().set_attribute<std::string>("x", "units", "nats");
    file.commit();
  }
  std::ifstream a(at("a.h5")), b(at("b.h5"));
  const std::string bytes_a{std::istreambuf_iterator<char>(a), {}}, bytes_b{std::istreambuf_iterator<char>(b), {}};
  EXPECT_GT(bytes_a.size(), 100U);
  EXPECT_EQ(bytes_a, bytes_b);
}

TEST_F(Hdf5Test, AttributesOfGroupsAndDatasets) {
  File created = File::create(at("a.h5"));
  created.root().set_attribute<std::string>(".", "format", "winnow-test");
  created.root().set_attribute<int32_t>(".", "format_version", 3);
  created.root().write_scalar<double>("x", 1.0);
  created.root().set_attribute<double>("x", "_FillValue", 1.5);
  created.commit();
  const File file = File::open(at("a.h5"));
  EXPECT_EQ(file.root().string_attribute(".", "format"), "winnow-test");
  EXPECT_EQ(file.root().integer_attribute(".", "format_version"), 3);
  EXPECT_EQ(file.root().string_attribute("x", "absent"), std::nullopt);
  expect_error(ExitCode::kBadData, {"a.h5: /x attribute _FillValue", "expected a string", "float64"},
               [&] { file.root().string_attribute("x", "_FillValue"); });
  expect_error(ExitCode::kBadData, {"attribute format", "expected an integer", "string"},
               [&] { file.root().integer_attribute(".", "format"); });
  EXPECT_NO_THROW(require_format(file, "winnow-test", 3));
  expect_error(ExitCode::kBadData, {"a.h5", "format_version: expected 4, found 3"},
               [&] { require_format(file, "winnow-test", 4); });
  expect_error(ExitCode::kBadData, {"a.h5", "expected \"other\", found \"winnow-test\""},
               [&] { require_format(file, "other", 3); });
}

TEST_F(Hdf5Test, WrongTypeOrRankIsRefusedByName) {
  File created = File::create(at("a.h5"));
  write_vector<int64_t>(created.root(), "tokens", {1, 2}, {2});
  write_vector<float>(created.root(), "weights", {1, 2}, {1, 2});
  created.root().create_group("group");
  created.commit();
  const File file = File::open(at("a.h5"));
  const Group root = file.root();
  expect_error(ExitCode::kBadData, {"a.h5: /tokens", "expected int32 of rank 1", "found int64 [2]"},
               [&] { root.read<int32_t>("tokens", 1); });
  expect_error(ExitCode::kBadData, {"/tokens", "expected int64 of rank 2"}, [&] { root.read<int64_t>("tokens", 2); });
  expect_error(ExitCode::kBadData, {"/tokens", "expected int64 of rank 0"},
               [&] { root.read_scalar<int64_t>("tokens"); });
  expect_error(ExitCode::kBadData, {"/weights", "expected float64", "found float32 [1, 2]"},
               [&] { root.read<double>("weights", 2); });
  expect_error(ExitCode::kBadData, {"/absent", "expected a dataset", "nothing"},
               [&] { root.read<double>("absent", 1); });
  expect_error(ExitCode::kBadData, {"/group", "expected a dataset", "group"}, [&] { root.read<double>("group", 1); });
  expect_error(ExitCode::kBadData, {"/tokens", "expected a group"}, [&] { root.group("tokens"); });
}

// Writes through the C API what the layer itself never writes.
void write_foreign(const fs::path& path, hid_t type, const std::vector<hsize_t>& dims, const void* data) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, "x", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  if (data != nullptr) {
    ASSERT_GE(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), 0);
  }
  H5Dclose(dataset);
  H5Sclose(space);
  H5Fclose(file);
}

TEST_F(Hdf5Test, ForeignTypes) {
  const std::vector<uint16_t> shorts = {1, 2};
  write_foreign(at("u16.h5"), H5T_NATIVE_UINT16, {2}, shorts.data());
  expect_error(ExitCode::kBadData, {"found uint16 [2]"},
               [&] { File::open(at("u16.h5")).root().read<uint8_t>("x", 1); });
  const std::vector<int32_t> swapped = {0x01000000, 0x02000000};
  write_foreign(at("be.h5"), H5T_STD_I32BE, {2}, swapped.data());
  EXPECT_EQ(File::open(at("be.h5")).root().read<int32_t>("x", 1).values, (std::vector<int32_t>{1, 2}));
  const hid_t fixed = H5Tcopy(H5T_C_S1);
  H5Tset_size(fixed, 4);
  write_foreign(at("fixed.h5"), fixed, {2}, "abcdx\0\0\0");
  EXPECT_EQ(File::open(at("fixed.h5")).root().read<std::string>("x", 1).values,
            (std::vector<std::string>{"abcd", "x"}));
  write_foreign(at("latin1.h5"), fixed, {1}, "\xE9\x74\xE9");
  H5Tclose(fixed);
  expect_error(ExitCode::kBadData, {"latin1.h5: /x[0]", "not UTF-8"},
               [&] { File::open(at("latin1.h5")).root().read<std::string>("x", 1); });
}

TEST_F(Hdf5Test, AClaimedSizeThatTheFileCannotHoldIsRefusedBeforeAllocating) {
  write_foreign(at("huge.h5"), H5T_NATIVE_DOUBLE, {hsize_t{1} << 40, 1 << 10}, nullptr);
  expect_error(ExitCode::kBadData, {"/x", "claims the shape [1099511627776, 1024]", "0 bytes"},
               [&] { File::open(at("huge.h5")).root().read<double>("x", 2); });
}

TEST_F(Hdf5Test, MissingForeignAndDamagedFiles) {
  expect_error(ExitCode::kNoInput, {"absent.h5", "No such file"}, [&] { File::open(at("absent.h5")); });
  expect_error(ExitCode::kNoInput, {"directory"}, [&] { File::open(directory_); });
  ASSERT_EQ(::mkfifo(at("pipe.h5").c_str(), 0600), 0);
  expect_error(ExitCode::kNoInput, {"pipe.h5", "is a pipe"}, [&] { File::open(at("pipe.h5")); });
  std::ofstream(at("text.h5")) << "just some text, longer than a signature would be";
  expect_error(ExitCode::kBadData, {"text.h5", "not an HDF5 file"}, [&] { File::open(at("text.h5")); });
  std::ofstream(at("empty.h5")).flush();
  expect_error(ExitCode::kBadData, {"empty.h5", "not an HDF5 file"}, [&] { File::open(at("empty.h5")); });

  File file = File::create(at("cut.h5"));
  write_vector<double>(file.root(), "x", std::vector<double>(1000, 0.25), {1000});
  file.commit();
  fs::resize_file(at("cut.h5"), fs::file_size(at("cut.h5")) / 2);
  expect_error(ExitCode::kBadData, {"cut.h5", "cut short"}, [&] { File::open(at("cut.h5")); });
}

// Damage anywhere gives the values, other values, or an Error: never a crash and never another exception.
TEST_F(Hdf5Test, FlippedBytesNeverCrash) {
  File file = File::create(at("good.h5"));
  write_vector<std::string>(file.root(), "names", {"a", "bcd"}, {2});
  write_vector<double>(file.root().create_group("g"), "x", std::vector<double>(40, 0.5), {40});
  file.commit();
  std::ifstream in(at("good.h5"), std::ios::binary);
  // Without its checksum, which would notice each of them.
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  const std::string good = whole.substr(0, whole.size() - kChecksumBytes);
  std::mt19937 random(1);
  int64_t n_refused = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::string bad = good;
    bad[random() % 2048] = static_cast<char>(random());
    std::ofstream(at("bad.h5"), std::ios::binary) << bad;
    try {
      const File damaged = File::open(at("bad.h5"));
      damaged.root().read<double>("g/x", 1);
      damaged.root().read<std::string>("names", 1);
    } catch (const Error& error) {
      ++n_refused;
      EXPECT_TRUE(error.code() == ExitCode::kBadData || error.code() == ExitCode::kIoError) << error.what();
    }
  }
  EXPECT_GT(n_refused, 10);
}

TEST_F(Hdf5Test, NothingIsOnTheDiskBeforeCommitAndNoPartAfter) {
  {
    File file = File::create(at("a.h5"));
    write_vector<double>(file.root(), "x", {1}, {1});
  }
  EXPECT_EQ(n_files(), 0);
  File file = File::create(at("a.h5"));
  write_vector<double>(file.root(), "x", {1}, {1});
  file.commit();
  EXPECT_EQ(n_files(), 1);
}

TEST_F(Hdf5Test, AFailedWriteIsAnIoErrorAndKeepsTheOldFile) {
  std::ofstream(at("a.h5")) << "old";
  File file = File::create(at("a.h5"));
  write_vector<double>(file.root(), "x", std::vector<double>(5000, 1.0), {5000});
  // A limit on the size of files stands for the full disk: both fail inside write().
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit limit{4096, old_limit.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  expect_error(ExitCode::kIoError, {"a.h5: write failed"}, [&] { file.commit(); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(n_files(), 1);
  EXPECT_EQ(fs::file_size(at("a.h5")), 3U);
  file.commit();
  EXPECT_EQ(File::open(at("a.h5")).root().read<double>("x", 1).values.size(), 5000U);
}

TEST_F(Hdf5Test, OutputThatCannotBeCreated) {
  File file = File::create(at("no/such/directory/a.h5"));
  expect_error(ExitCode::kCannotCreate, {"no/such/directory/a.h5: cannot be created", "No such file"},
               [&] { file.commit(); });
  fs::create_directory(at("taken"));
  File over_directory = File::create(at("taken"));
  expect_error(ExitCode::kCannotCreate, {"taken", "no regular file"}, [&] { over_directory.commit(); });
  EXPECT_EQ(n_files(), 1);
}

TEST_F(Hdf5Test, ShapeAndValuesMustAgree) {
  File file = File::create(at("a.h5"));
  expect_error(ExitCode::kInternal, {"/x", "holds 6 elements, but 2"}, [&] {
    write_vector<double>(file.root(), "x", {1, 2}, {2, 3});
  });
  write_vector<double>(file.root(), "x", {1, 2}, {2});
  expect_error(ExitCode::kIoError, {"/x", "could not create the dataset"}, [&] {
    write_vector<double>(file.root(), "x", {1, 2}, {2});
  });
}

}  // namespace
}  // namespace winnow::storage
