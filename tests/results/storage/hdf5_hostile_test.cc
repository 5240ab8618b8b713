// Files of other programs, odd ones and damaged ones: values that lie in the file, or one line.
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>

#include "results/storage/hdf5.h"
#include "tests/scratch.h"

namespace winnow::storage {
namespace {

namespace fs = std::filesystem;

class Hdf5HostileTest : public ::testing::Test {
 protected:
  fs::path at(const std::string& name) const { return scratch_.path() / name; }
  // A new file at NAME, filled through the C API.
  fs::path write(const std::string& name, const std::function<void(hid_t)>& fill) const {
    const hid_t file = H5Fcreate(at(name).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    fill(file);
    H5Fclose(file);
    return at(name);
  }
  void expect_refusal(const fs::path& path, const std::vector<std::string>& words) const {
    expect_error([&] { File::open(path).root().read<int32_t>("x", 1); }, ExitCode::kBadData, words);
  }

  ScratchDirectory scratch_;
};

std::vector<int32_t> numbers(int32_t count) {
  std::vector<int32_t> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), -3);
  return values;
}

// Makes the dataset "x" with these creation properties; writes `values` unless there are none.
void put(hid_t file, hid_t type, const std::vector<hsize_t>& shape, hid_t properties,
         const std::vector<int32_t>& values) {
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, "x", type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  if (!values.empty()) {
    ASSERT_GE(H5Dwrite(dataset, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  }
  H5Dclose(dataset);
  H5Sclose(space);
}

hid_t chunked(const std::vector<hsize_t>& chunk) {
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
  return properties;
}

TEST_F(Hdf5HostileTest, BytesOfOtherFilesAreRefusedByName) {
  const std::vector<int32_t> values = numbers(8);
  std::ofstream(at("other.bin"), std::ios::binary).write(reinterpret_cast<const char*>(values.data()), 32);
  const fs::path external = write("external.h5", [&](hid_t file) {
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(properties, at("other.bin").c_str(), 0, 32);
    put(file, H5T_STD_I32LE, {8}, properties, {});
    H5Pclose(properties);
  });
  expect_refusal(external, {"external.h5: /x", "values in another file", "h5repack"});
  const fs::path plain = write("plain.h5", [&](hid_t file) { put(file, H5T_STD_I32LE, {8}, H5P_DEFAULT, values); });
  const fs::path virtual_file = write("virtual.h5", [&](hid_t file) {
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t length = 8;
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    H5Pset_virtual(properties, space, plain.c_str(), "/x", space);
    put(file, H5T_STD_I32LE, {8}, properties, {});
    H5Sclose(space);
    H5Pclose(properties);
  });
  expect_refusal(virtual_file, {"virtual.h5: /x", "virtual dataset", "h5repack"});
  const auto look = [&] { File::open(virtual_file).root().shape("x"); };
  expect_error(look, ExitCode::kBadData, {"virtual dataset"});
  const fs::path soft = write("soft.h5", [&](hid_t file) {
    put(file, H5T_STD_I32LE, {8}, H5P_DEFAULT, values);
    H5Lmove(file, "x", file, "y", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/y", file, "x", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refusal(soft, {"soft.h5: /x", "soft link", "h5copy"});
  const fs::path linked = write("linked.h5", [&](hid_t file) {
    H5Lcreate_external(plain.c_str(), "/x", file, "x", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external(plain.c_str(), "/", file, "group", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refusal(linked, {"linked.h5: /x", "link to another file", "h5copy"});
  const auto through = [&] { File::open(linked).root().contains("group/x"); };
  expect_error(through, ExitCode::kBadData, {"linked.h5: /group", "link to another file"});
}

TEST_F(Hdf5HostileTest, ThePipesOfExternalStorageAreNotOpened) {
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  const fs::path external = write("external.h5", [&](hid_t file) {
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(properties, at("pipe").c_str(), 0, 32);
    put(file, H5T_STD_I32LE, {8}, properties, {});
    H5Pclose(properties);
  });
  expect_refusal(external, {"another file"});
}

TEST_F(Hdf5HostileTest, WhatIsNoFileIsSaid) {
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  const std::vector<std::pair<std::string, std::string>> others = {
      {at("pipe").string(), "a pipe"}, {"/dev/zero", "a device"}, {scratch_.path().string(), "a directory"}};
  for (const auto& [path, words] : others) {
    expect_error([&, name = path] { File::open(name); }, ExitCode::kNoInput, {path, words});
  }
  std::ofstream(at("empty.h5")).flush();
  expect_error([&] { File::open(at("empty.h5")); }, ExitCode::kBadData, {"empty.h5", "is empty"});
}

// A filter that this program knows and the process that reads does not.
TEST_F(Hdf5HostileTest, AMissingFilterIsNamed) {
  H5Z_class2_t filter{};
  filter.version = H5Z_CLASS_T_VERS;
  filter.id = 32100;
  filter.encoder_present = filter.decoder_present = 1;
  filter.name = "packer";
  filter.filter = [](unsigned, std::size_t, const unsigned*, std::size_t n_bytes, std::size_t*, void**) {
    return n_bytes;
  };
  ASSERT_GE(H5Zregister(&filter), 0);
  const fs::path path = write("packed.h5", [&](hid_t file) {
    const hid_t properties = chunked({8});
    H5Pset_filter(properties, 32100, H5Z_FLAG_MANDATORY, 0, nullptr);
    put(file, H5T_STD_I32LE, {8}, properties, numbers(8));
    H5Pclose(properties);
  });
  expect_refusal(path, {"packed.h5: /x", "filter packer (number 32100)", "gzip"});
}

TEST_F(Hdf5HostileTest, ChunksOfAllKindsAreReadExactly) {
  using Pack = std::function<void(hid_t)>;
  const std::vector<std::pair<std::string, Pack>> packings = {
      {"none", [](hid_t) {}},
      {"gzip", [](hid_t p) { H5Pset_deflate(p, 6); }},
      {"all", [](hid_t p) { H5Pset_shuffle(p), H5Pset_deflate(p, 1), H5Pset_fletcher32(p); }},
      {"edges", [](hid_t p) { H5Pset_deflate(p, 1), H5Pset_chunk_opts(p, H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS); }},
      {"scaled", [](hid_t p) {
         const int32_t fill = -7;
         H5Pset_fill_value(p, H5T_NATIVE_INT32, &fill);
         H5Pset_scaleoffset(p, H5Z_SO_INT, 0);
       }}};
  const std::vector<int32_t> values = numbers(7 * 11 * 5);
  for (const auto& [name, pack] : packings) {
    for (const hid_t type : {H5T_STD_I32LE, H5T_STD_I32BE}) {
      SCOPED_TRACE(name);
      const fs::path path = write("chunks.h5", [&, &pack_these = pack](hid_t file) {
        const hid_t properties = chunked({3, 4, 5});
        pack_these(properties);
        put(file, type, {7, 11, 5}, properties, values);
        H5Pclose(properties);
      });
      const Array<int32_t> read = File::open(path).root().read<int32_t>("x", 3);
      EXPECT_EQ(read.shape, (std::vector<int64_t>{7, 11, 5}));
      EXPECT_EQ(read.values, values);
    }
  }
}

TEST_F(Hdf5HostileTest, LongDatasetsComeInPieces) {
  const std::vector<int32_t> values = numbers(11'000'000);
  const fs::path path = write("long.h5", [&](hid_t file) {
    const hid_t properties = chunked({300'000});
    H5Pset_deflate(properties, 1);
    put(file, H5T_STD_I32LE, {values.size()}, properties, values);
    H5Pclose(properties);
  });
  EXPECT_EQ(File::open(path).root().read<int32_t>("x", 1).values, values);
  const fs::path plain =
      write("plain.h5", [&](hid_t file) { put(file, H5T_STD_I32LE, {values.size()}, H5P_DEFAULT, values); });
  EXPECT_EQ(File::open(plain).root().read<int32_t>("x", 1).values, values);
}

TEST_F(Hdf5HostileTest, TextInChunks) {
  const std::vector<const char*> texts = {"one", "", "three and more", "vier", "5"};
  const fs::path path = write("texts.h5", [&](hid_t file) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    const hsize_t length = texts.size();
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    const hid_t properties = chunked({2});
    H5Pset_shuffle(properties);
    H5Pset_deflate(properties, 1);
    const char* fill = "none";
    H5Pset_fill_value(properties, type, &fill);
    const hid_t dataset = H5Dcreate2(file, "x", type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.data());
    H5Dclose(dataset);
    const hid_t fixed = H5Tcopy(H5T_C_S1);
    H5Tset_size(fixed, 3);
    const hid_t plain = chunked({2});
    H5Pset_deflate(plain, 1);
    const hid_t words = H5Dcreate2(file, "words", fixed, space, H5P_DEFAULT, plain, H5P_DEFAULT);
    H5Dwrite(words, fixed, H5S_ALL, H5S_ALL, H5P_DEFAULT, "abcde\0\0\0\0xyzq\0\0");
    H5Dclose(words);
    for (const hid_t id : {plain, properties}) H5Pclose(id);
    for (const hid_t id : {type, fixed}) H5Tclose(id);
    H5Sclose(space);
  });
  const File file = File::open(path);
  EXPECT_EQ(file.root().read<std::string>("x", 1).values, (std::vector<std::string>(texts.begin(), texts.end())));
  EXPECT_EQ(file.root().read<std::string>("words", 1).values, (std::vector<std::string>{"abc", "de", "", "xyz", "q"}));
}

// What the library takes for whole: it reads on behind the end of the chunk.
TEST_F(Hdf5HostileTest, ShortAndMissingChunksAreRefused) {
  const fs::path little = write("little.h5", [&](hid_t file) {
    const hid_t properties = chunked({10});
    H5Pset_deflate(properties, 6);
    put(file, H5T_STD_I32LE, {10}, properties, numbers(10));
    H5Pclose(properties);
  });
  std::vector<char> packed(1000);
  hsize_t n_packed = 0;
  {
    const hid_t file = H5Fopen(little.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, "x", H5P_DEFAULT);
    const hsize_t offset = 0;
    uint32_t mask = 0;
    ASSERT_GE(H5Dget_chunk_storage_size(dataset, &offset, &n_packed), 0);
    ASSERT_GE(H5Dread_chunk(dataset, H5P_DEFAULT, &offset, &mask, packed.data()), 0);
    H5Dclose(dataset);
    H5Fclose(file);
  }
  const auto short_file = [&](const std::string& name, const std::function<void(hid_t)>& pack, std::size_t n_bytes) {
    return write(name, [&](hid_t file) {
      const hid_t properties = chunked({144});
      pack(properties);
      put(file, H5T_STD_I32LE, {144}, properties, {});
      const hid_t dataset = H5Dopen2(file, "x", H5P_DEFAULT);
      const hsize_t offset = 0;
      ASSERT_GE(H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, &offset, n_bytes, packed.data()), 0);
      H5Dclose(dataset);
      H5Pclose(properties);
    });
  };
  expect_refusal(short_file(
                     "gzip.h5", [](hid_t p) { H5Pset_deflate(p, 6); }, n_packed),
                 {"gzip.h5: /x", "chunk at [0]", "holds 40 bytes, expected 576"});
  expect_refusal(short_file(
                     "shuffle.h5", [](hid_t p) { H5Pset_shuffle(p); }, 40),
                 {"shuffle.h5: /x", "chunk at [0]", "40 bytes, expected 576"});
  const fs::path missing = write("missing.h5", [&](hid_t file) {
    const hid_t properties = chunked({4});
    put(file, H5T_STD_I32LE, {8}, properties, {});
    const hid_t dataset = H5Dopen2(file, "x", H5P_DEFAULT);
    const hsize_t offset = 4;
    ASSERT_GE(H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, &offset, 16, packed.data()), 0);
    H5Dclose(dataset);
    H5Pclose(properties);
  });
  expect_refusal(missing, {"missing.h5: /x", "chunk at [0]", "is not in the file"});
}

// Flips where the library keeps strings break it down or send it astray; files that are read meanwhile and after are
// none the worse.
TEST_F(Hdf5HostileTest, ABrokenHeapIsOneLineAndHarmsNoOtherFile) {
  const auto text_file = [&](hid_t file) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    const hsize_t length = 3;
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    const hid_t dataset = H5Dcreate2(file, "x", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const char* texts[] = {"first", "second", "third"};
    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts);
    H5Dclose(dataset);
    H5Sclose(space);
    H5Tclose(type);
  };
  const File whole = File::open(write("whole.h5", text_file));
  std::ifstream in(at("whole.h5"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const std::size_t heap = bytes.find("GCOL") + 16;  // the first object: index, references, reserved, size
  ASSERT_LT(heap, bytes.size());
  int n_refused = 0;
  for (std::size_t byte = 8; byte < 16; ++byte) {
    for (const int bit : {0, 3, 6}) {
      std::string damaged = bytes;
      damaged[heap + byte] = static_cast<char>(damaged[heap + byte] ^ (1 << bit));
      std::ofstream(at("damaged.h5"), std::ios::binary) << damaged;
      try {
        File::open(at("damaged.h5")).root().read<std::string>("x", 1);
      } catch (const Error& error) {
        ++n_refused;
        EXPECT_EQ(error.code(), ExitCode::kBadData) << error.what();
      }
    }
  }
  EXPECT_GT(n_refused, 5);
  EXPECT_EQ(whole.root().read<std::string>("x", 1).values, (std::vector<std::string>{"first", "second", "third"}));
}

TEST_F(Hdf5HostileTest, AFileThatIsOpenElsewhereIsRead) {
  const fs::path path = write("open.h5", [&](hid_t file) { put(file, H5T_STD_I32LE, {8}, H5P_DEFAULT, numbers(8)); });
  const hid_t held = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(held, 0);
  EXPECT_EQ(File::open(path).root().read<int32_t>("x", 1).values, numbers(8));
  H5Fclose(held);
}

}  // namespace
}  // namespace winnow::storage
