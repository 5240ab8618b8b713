#include "pipeline/run_identity.h"

#include <fstream>
#include <iterator>
#include <set>

#include "kernels/error.h"
#include "pipeline/digest.h"
#include "results/atomic_file.h"

namespace winnow {
namespace {

constexpr const char* kRunFormat = "winnow-run";
constexpr int kRunVersion = 1;
constexpr const char* kCalibrate = "calibrate";

std::filesystem::path record_path(const std::filesystem::path& run_directory) { return run_directory / "run.json"; }

// A value as a user wrote it: text without quotes, "none" for null.
std::string as_written(const nlohmann::json& value) {
  if (value.is_null()) return "none";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

[[noreturn]] void refuse_mismatch(const std::filesystem::path& path, const std::string& field,
                                  const nlohmann::json& there, const nlohmann::json& here) {
  fail(ExitCode::kConfigMismatch, path.string() + ": " + field + " is " + as_written(there) +
                                      " in this run directory, but " + as_written(here) +
                                      " in this command; repeat the run's own command, or give another --out");
}

}  // namespace

nlohmann::json RunIdentity::to_json() const {
  nlohmann::json json = {{"checkpoint_sha256", checkpoint_sha256},
                         {"data_sha256", data_sha256},
                         {"window_keys", window_keys},
                         {"sinks", sinks},
                         {"decode", decode},
                         {"tail_rows", tail_rows ? nlohmann::json(*tail_rows) : nlohmann::json()},
                         {"base", base},
                         {"residual_dtype", residual_dtype},
                         {"compute_dtype", compute_dtype},
                         {"backend", backend},
                         {"attention_path", attention_path},
                         {"schema_version", schema_version}};
  if (kind != kCalibrate) json["kind"] = kind;
  if (!signals.empty()) json["signals"] = signals;
  return json;
}

std::string RunIdentity::hash() const { return sha256_of(to_json().dump()); }

RunRecord::RunRecord()
    : json_({{"format", kRunFormat}, {"format_version", kRunVersion}, {"informative", nlohmann::json::object()}}) {}

RunRecord RunRecord::read(const std::filesystem::path& run_directory) {
  RunRecord record;
  record.path_ = record_path(run_directory);
  if (!std::filesystem::exists(record.path_)) return record;
  std::ifstream in(record.path_, std::ios::binary);
  if (!in) fail(ExitCode::kNoInput, record.path_.string() + ": cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  const bool is_record = json.is_object() && json.value("format", nlohmann::json()) == kRunFormat &&
                         json.value("format_version", nlohmann::json()) == kRunVersion &&
                         json.value("identity", nlohmann::json()).is_object() &&
                         json.value("controls", nlohmann::json()).is_object() &&
                         json.value("informative", nlohmann::json()).is_object();
  if (!is_record) {
    fail(ExitCode::kBadData, record.path_.string() +
                                 ": is no run record of this version of winnow; move the run "
                                 "directory away, or give another --out");
  }
  record.json_ = std::move(json);
  return record;
}

void RunRecord::adopt(const RunIdentity& identity, const std::map<std::string, std::string>& controls) {
  const nlohmann::json here = identity.to_json();
  if (!json_.contains("identity")) {
    json_["identity"] = here;
    json_["controls"] = nlohmann::json::object();
  }
  const nlohmann::json& there = json_["identity"];
  const auto value_in = [](const nlohmann::json& fields, const std::string& field) {
    const char* absent = field == "kind" ? kCalibrate : field == "signals" ? "none" : "missing";
    return fields.value(field, nlohmann::json(absent));
  };
  std::set<std::string> names;
  for (const nlohmann::json* fields : {&here, &there}) {
    for (const auto& [field, value] : fields->items()) names.insert(field);
  }
  const auto compare = [&](const std::string& field) {
    const nlohmann::json known = value_in(there, field);
    if (known != value_in(here, field)) refuse_mismatch(path_, field, known, value_in(here, field));
  };
  compare("kind");  // another verb explains every other difference
  for (const std::string& field : names) compare(field);
  nlohmann::json& known = json_["controls"];
  for (const auto& [name, sha256] : controls) {
    if (known.contains(name) && known[name] != sha256) {
      refuse_mismatch(path_, "the data of control " + name, known[name], sha256);
    }
    known[name] = sha256;
  }
}

std::string RunRecord::text() const { return json_.dump(2) + "\n"; }

void RunRecord::write(const std::filesystem::path& run_directory) const {
  write_file_atomically(record_path(run_directory), text());
}

}  // namespace winnow
