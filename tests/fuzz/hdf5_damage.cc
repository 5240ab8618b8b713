// hdf5_damage COUNT [FIRST [FILE...]]: damages HDF5 files in the trials FIRST (0) and so on and reads each as the verbs
// do. Whatever the HDF5 library makes of it in its own process, here there are values or an Error of one line, within a
// time. Files are damaged in turn: those that are made here, of all formats that HDF5 libraries write, and the given
// ones. Trial N is the same in every run.
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "pipeline/run/corpus.h"
#include "results/calibration/store.h"
#include "results/storage/hdf5.h"
#include "results/storage/hdf5_server.h"
#include "tests/results/calibration/example_results.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;
using Random = std::mt19937_64;

constexpr double kMostSeconds = 120.0;  // beyond any bound of results/storage/hdf5_server.cc on a busy machine

// ---- files to damage
// -------------------------------------------------------------------------------------------------

void put_numbers(hid_t file, const char* name, hid_t type, const std::vector<int64_t>& values, hid_t properties) {
  const hsize_t length = values.size();
  const hid_t space = H5Screate_simple(1, &length, nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  H5Dclose(dataset);
  H5Sclose(space);
}

void put_attribute(hid_t file, const char* name, hid_t type, const void* value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, type, value);
  H5Aclose(attribute);
  H5Sclose(space);
}

void put_texts(hid_t file, const char* name, hid_t type, const std::vector<std::string>& values, hid_t properties) {
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  const hsize_t length = pointers.size();
  const hid_t space = H5Screate_simple(1, &length, nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data());
  H5Dclose(dataset);
  H5Sclose(space);
}

enum class Packing { kNone, kGzip, kGzipShuffleChecksum };

constexpr int kExamples = 30;

// What format_version 2 adds, every field of it, and all attributes that `winnow prepare` writes.
void put_tasks(hid_t file, hid_t text, hid_t properties) {
  std::vector<std::string> source, task, metric, options, bin, gold, prefix, references;
  std::vector<int64_t> offsets = {0};
  for (int e = 0; e < kExamples; ++e) {
    source.push_back(e % 2 == 0 ? "made" : "");
    task.push_back("niah_" + std::to_string(e % 3));
    metric.emplace_back(e % 2 == 0 ? "contains_all" : "token_f1");
    options.emplace_back(e % 2 == 0 ? "" : R"({"characters": true})");
    bin.emplace_back(e % 2 == 0 ? "4k" : "8k");
    gold.push_back("the answer " + std::to_string(e));
    prefix.emplace_back(e % 3 == 0 ? "" : "Answer:");
    for (int r = 0; r <= e % 3; ++r) references.push_back("answer " + std::to_string(e) + " \u00e9");
    offsets.push_back(static_cast<int64_t>(references.size()));
  }
  const std::vector<std::pair<const char*, const std::vector<std::string>*>> columns = {
      {"source", &source},  {"task", &task},        {"metric", &metric},        {"metric_options", &options},
      {"length_bin", &bin}, {"gold_answer", &gold}, {"answer_prefix", &prefix}, {"references", &references}};
  for (const auto& [name, values] : columns) put_texts(file, name, text, *values, properties);
  put_numbers(file, "reference_offsets", H5T_STD_I64LE, offsets, H5P_DEFAULT);
  const char* hash = "0f343b0931126a20f133d67c2b018a3b5f3e1b1e0d9c6f2d0f343b0931126a20";
  const char* filters = R"({"min_prompt_tokens": 16, "date": "2026-01-01"})";
  const char* program = "winnow-prepare 0.1.0";
  const int64_t seed = 7;
  put_attribute(file, "tokenizer_sha256", text, &hash);
  put_attribute(file, "template_sha256", text, &hash);
  put_attribute(file, "filters", text, &filters);
  put_attribute(file, "created_by", text, &program);
  put_attribute(file, "seed", H5T_NATIVE_INT64, &seed);
}

// A calibration file of that version as other programs write it: h5py the oldest format, others the newest.
void write_calibration(const fs::path& path, int64_t version, H5F_libver_t format, Packing packing) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, format, H5F_LIBVER_LATEST);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk = 700;
  if (packing != Packing::kNone) H5Pset_chunk(properties, 1, &chunk);
  if (packing == Packing::kGzipShuffleChecksum) H5Pset_shuffle(properties);
  if (packing != Packing::kNone) H5Pset_deflate(properties, 4);
  if (packing == Packing::kGzipShuffleChecksum) H5Pset_fletcher32(properties);
  std::vector<int64_t> tokens(3000), offsets, answer_start;
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int64_t>(i * i % 251);
  for (int64_t e = 0; e <= kExamples; ++e) offsets.push_back(100 * e);
  answer_start.assign(kExamples, 90);
  put_numbers(file, "tokens", H5T_STD_I32LE, tokens, properties);
  put_numbers(file, "offsets", H5T_STD_I64LE, offsets, H5P_DEFAULT);
  put_numbers(file, "answer_start", H5T_STD_I64LE, answer_start, H5P_DEFAULT);
  std::vector<std::string> ids;
  for (int e = 0; e < kExamples; ++e) ids.push_back("example number " + std::to_string(e));
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, H5T_VARIABLE);
  H5Tset_cset(text, H5T_CSET_UTF8);
  const hsize_t few = 8;
  H5Pset_chunk(properties, 1, &few);
  const hid_t text_properties = packing == Packing::kGzip ? properties : H5P_DEFAULT;
  put_texts(file, "example_id", text, ids, text_properties);
  const char* name = "winnow-calibration";
  put_attribute(file, "format", text, &name);
  put_attribute(file, "format_version", H5T_NATIVE_INT64, &version);
  if (version == 2) put_tasks(file, text, text_properties);
  H5Tclose(text);
  H5Pclose(properties);
  H5Pclose(access);
  H5Fclose(file);
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::map<std::string, std::string> seeds(const fs::path& directory, const std::vector<fs::path>& given) {
  std::map<std::string, std::string> files;
  const std::map<std::string, H5F_libver_t> formats = {
      {"oldest", H5F_LIBVER_EARLIEST}, {"1.8", H5F_LIBVER_V18}, {"newest", H5F_LIBVER_LATEST}};
  const std::map<std::string, Packing> packings = {
      {"plain", Packing::kNone}, {"gzip", Packing::kGzip}, {"gzip, shuffle, checksum", Packing::kGzipShuffleChecksum}};
  for (const auto& [format_name, format] : formats) {
    for (const auto& [packing_name, packing] : packings) {
      for (const int64_t version : {1, 2}) {
        write_calibration(directory / "seed.h5", version, format, packing);
        // A seed that is refused as it is would test nothing.
        run::read_corpus(directory / "seed.h5", 1000);
        files["calibration " + std::to_string(version) + ", " + format_name + ", " + packing_name] =
            bytes_of(directory / "seed.h5");
      }
    }
  }
  calibration::write_results(directory / "results.h5", example_results());
  files["results"] = bytes_of(directory / "results.h5");
  for (const fs::path& path : given) files[path.filename().string()] = bytes_of(path);
  return files;
}

// ---- damage
// ----------------------------------------------------------------------------------------------------------

// A place to damage: half of the time where the structures of small files are, in the first 4 KiB.
std::size_t place(const std::string& bytes, Random& random) {
  const std::size_t size = random() % 2 == 0 ? std::min<std::size_t>(bytes.size(), 4096) : bytes.size();
  return random() % size;
}

void flip_bits(std::string& bytes, Random& random) {
  for (uint64_t n = 1 + random() % 4; n > 0; --n) bytes[place(bytes, random)] ^= static_cast<char>(1 << random() % 8);
}

// A length, count or address of the format: eight bytes on an even place.
void replace_number(std::string& bytes, Random& random) {
  constexpr uint64_t kOdd[] = {0, 1, 8, 96, 0x7fffffff, 0xffffffff, uint64_t{1} << 40, ~uint64_t{0}};
  const std::size_t at = std::min(place(bytes, random) & ~std::size_t{7}, bytes.size() - 8);
  const uint64_t number = random() % 3 == 0 ? random() % bytes.size() : kOdd[random() % std::size(kOdd)];
  std::memcpy(&bytes[at], &number, sizeof number);
}

void cut(std::string& bytes, Random& random) { bytes.resize(random() % bytes.size()); }

void overwrite_block(std::string& bytes, Random& random) {
  const std::size_t size = std::min<std::size_t>(bytes.size(), std::size_t{8} << random() % 8);
  const std::size_t to = std::min(place(bytes, random), bytes.size() - size);
  if (random() % 2 == 0) {
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(to), size, '\0');
    return;
  }
  const std::string copy = bytes.substr(std::min<std::size_t>(random() % bytes.size(), bytes.size() - size), size);
  bytes.replace(to, size, copy);
}

void swap_blocks(std::string& bytes, Random& random) {
  const std::size_t size = std::min<std::size_t>(bytes.size() / 2, std::size_t{64} << random() % 6);
  const std::size_t one = random() % (bytes.size() - size), other = random() % (bytes.size() - size);
  const std::string first = bytes.substr(one, size), second = bytes.substr(other, size);
  bytes.replace(one, size, second);
  bytes.replace(other, size, first);
}

void damage(std::string& bytes, Random& random) {
  using Kind = void (*)(std::string&, Random&);
  constexpr Kind kKinds[] = {flip_bits, flip_bits, replace_number, replace_number, overwrite_block, swap_blocks, cut};
  kKinds[random() % std::size(kKinds)](bytes, random);
}

// ---- reading
// ---------------------------------------------------------------------------------------------------------

// Everything that is there, by the type that it has; a group that is inside of itself to some depth.
void read_all(const storage::Group& group, int depth, int& n_left) {
  for (const std::string& name : group.names()) {
    if (--n_left < 0) return;
    if (group.contains_group(name)) {
      if (depth > 0) read_all(group.group(name), depth - 1, n_left);
      continue;
    }
    const auto rank = static_cast<int64_t>(group.shape(name).size());
    switch (group.type(name)) {
      case storage::Type::kFloat64:
        group.read<double>(name, rank);
        break;
      case storage::Type::kFloat32:
        group.read<float>(name, rank);
        break;
      case storage::Type::kInt64:
        group.read<int64_t>(name, rank);
        break;
      case storage::Type::kInt32:
        group.read<int32_t>(name, rank);
        break;
      case storage::Type::kUint8:
        group.read<uint8_t>(name, rank);
        break;
      case storage::Type::kString:
        group.read<std::string>(name, rank);
        break;
      case storage::Type::kOther:
        break;
    }
  }
}

class Trials {
 public:
  explicit Trials(const fs::path& file) : file_(file) {}

  void run(const std::string& bytes) {
    std::ofstream(file_, std::ios::binary) << bytes;
    attempt([&] {
      int n_left = 500;
      read_all(storage::File::open(file_).root(), 4, n_left);
    });
    attempt([&] { run::read_corpus(file_, 1000); });
    attempt([&] { calibration::read_results(file_); });
  }

  // The figures; whether all was as it should be.
  bool report(int64_t n_files) const {
    std::printf("%lld files, slowest read %.1f s\n", static_cast<long long>(n_files), slowest_);
    for (const auto& [outcome, count] : outcomes_) {
      std::printf("%8lld reads: %s\n", static_cast<long long>(count), outcome.c_str());
    }
    return is_right_;
  }

 private:
  template <typename Action>
  void attempt(const Action& action) {
    const auto begin = std::chrono::steady_clock::now();
    std::string outcome = "values";
    try {
      action();
    } catch (const Error& error) {
      const std::string text = error.what();
      outcome = "exit code " + std::to_string(static_cast<int>(error.code()));
      if (text.find("broke down") != std::string::npos) outcome += ", the library broke down";
      if (text.find("no end") != std::string::npos) outcome += ", the library came to no end";
      const bool is_known = error.code() == ExitCode::kBadData || error.code() == ExitCode::kIoError ||
                            error.code() == ExitCode::kOutOfMemory;
      if (!is_known || text.empty()) fault(text);
    } catch (const std::exception& error) {
      outcome = "another exception";
      fault(error.what());
    }
    ++outcomes_[outcome];
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    slowest_ = std::max(slowest_, seconds);
    if (seconds > kMostSeconds) fault("took " + std::to_string(seconds) + " s");
  }

  void fault(const std::string& what) {
    is_right_ = false;
    std::printf("FAULT: %s\n", what.c_str());
  }

  fs::path file_;
  std::map<std::string, int64_t> outcomes_;
  double slowest_ = 0.0;
  bool is_right_ = true;
};

int damage_files(int64_t n_trials, int64_t first, const std::vector<fs::path>& given) {
  std::string name = (fs::temp_directory_path() / "winnow-damage-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) return 1;
  const fs::path directory = name;
  const auto files = seeds(directory, given);
  Trials trials(directory / "damaged.h5");
  for (int64_t trial = first; trial < first + n_trials; ++trial) {
    Random random(static_cast<uint64_t>(trial));
    std::string bytes = std::next(files.begin(), trial % std::ssize(files))->second;
    damage(bytes, random);
    trials.run(bytes);
  }
  fs::remove_all(directory);
  return trials.report(n_trials) ? 0 : 1;
}

}  // namespace
}  // namespace winnow

int main(int argc, char** argv) {
  if (const auto code = winnow::storage::serve_if_asked(argc, argv)) return *code;
  if (argc < 2) {
    std::fprintf(stderr, "usage: hdf5_damage COUNT [FIRST [FILE...]]\n");
    return 64;
  }
  return winnow::damage_files(std::strtoll(argv[1], nullptr, 10), argc > 2 ? std::strtoll(argv[2], nullptr, 10) : 0,
                              {argv + std::min(argc, 3), argv + argc});
}
