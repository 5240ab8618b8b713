#include "pipeline/run/unit_store.h"

#include <algorithm>
#include <regex>

#include "base/error.h"

namespace winnow::run {
namespace {

bool is_shard_name(const std::string& name) {
  static const std::regex pattern(R"([A-Za-z0-9_.-]+\.e[0-9]{6,19}\.[0-9a-f]{12}\.h5)");
  return name.size() < 512 && std::regex_match(name, pattern);
}

bool is_texts_name(const std::string& name) { return std::filesystem::path(name).extension() == ".jsonl"; }

}  // namespace

UnitStore UnitStore::shards(const std::filesystem::path& run_directory) {
  return {run_directory / "shards", is_shard_name};
}

UnitStore UnitStore::texts(const std::filesystem::path& run_directory) {
  return {run_directory / "texts", is_texts_name};
}

void UnitStore::make() const { make_run_folder(folder_); }

std::vector<std::filesystem::path> UnitStore::files() const {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    if (!is_unit_name_(entry.path().filename().string())) continue;
    std::error_code gone;
    if (std::filesystem::is_regular_file(entry.symlink_status(gone))) files.push_back(entry.path());
  }
  if (error == std::errc::no_such_file_or_directory) return files;
  if (error) fail(ExitCode::kIoError, folder_.string() + ": cannot be listed: " + error.message());
  std::sort(files.begin(), files.end());
  return files;
}

void UnitStore::read_all(const Use& use, const Refuse& refuse) const {
  for (const std::filesystem::path& file : files()) {
    try {
      use(file);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadData && error.code() != ExitCode::kNoInput) throw;
      refuse(file, error.what());
    }
  }
}

std::array<UnitStore, 2> unit_stores(const std::filesystem::path& run_directory) {
  return {UnitStore::shards(run_directory), UnitStore::texts(run_directory)};
}

std::filesystem::path set_unit_aside(const std::filesystem::path& file) {
  std::error_code error;
  const auto is_taken = [&](const std::filesystem::path& name) {  // by a link that leads nowhere, too
    return std::filesystem::exists(std::filesystem::symlink_status(name, error));
  };
  std::filesystem::path aside = file.string() + ".bad";
  for (int n = 2; is_taken(aside); ++n) aside = file.string() + "." + std::to_string(n) + ".bad";
  std::filesystem::rename(file, aside, error);
  if (error) fail(ExitCode::kIoError, file.string() + ": cannot be set aside: " + error.message());
  return aside;
}

void make_run_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error && std::filesystem::is_directory(path)) return;
  const bool is_full = error == std::errc::no_space_on_device;
  fail(is_full ? ExitCode::kIoError : ExitCode::kCannotCreate,
       path.string() + ": the directory cannot be created: " + (error ? error.message() : "a file is in its place") +
           "; give another --out");
}

}  // namespace winnow::run
