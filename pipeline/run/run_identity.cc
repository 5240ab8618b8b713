#include "pipeline/run/run_identity.h"

#include <set>
#include <stdexcept>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/text_file.h"
#include "pipeline/run/provenance.h"
#include "results/search/search.h"

namespace winnow::run {
namespace {

constexpr const char* kRunFormat = "winnow-run";
constexpr int kRunVersion = 1;
constexpr const char* kCalibrate = "calibrate";
constexpr std::size_t kMaxRecordBytes = std::size_t{1} << 30;  // it grows with runs and ranks
constexpr const char* kAdvice =
    "move run.json away and repeat the run's own command, which keeps the finished units in shards/, or give another "
    "--out";

std::filesystem::path record_path(const std::filesystem::path& run_directory) { return run_directory / "run.json"; }

// A value as a user wrote it: short text without quotes, "none" for null.
std::string as_written(const nlohmann::json& value) {
  if (value.is_null()) return "none";
  const std::string text = shown(value);
  return value.is_string() && text.size() >= 2 && text.back() == '"' ? text.substr(1, text.size() - 2) : text;
}

[[noreturn]] void refuse_mismatch(const std::filesystem::path& path, const std::string& field,
                                  const nlohmann::json& there, const nlohmann::json& here) {
  fail(ExitCode::kConfigMismatch, path.string() + ": " + field + " is " + as_written(there) +
                                      " in this run directory, but " + as_written(here) +
                                      " in this command; repeat the run's own command, or give another --out");
}

nlohmann::json parse_record(const std::string& text, const std::string& origin) {
  nlohmann::json json;
  try {
    json = parse_json(text, origin);
  } catch (const Error& error) {
    fail(error.code(), std::string(error.what()) + "; " + kAdvice);
  }
  const auto is_object = [&](const char* key) { return json.contains(key) && json[key].is_object(); };
  const bool is_record = json.is_object() && json.value("format", nlohmann::json()) == kRunFormat &&
                         json.value("format_version", nlohmann::json()) == kRunVersion && is_object("identity") &&
                         is_object("controls") && is_object("informative");
  if (!is_record) fail(ExitCode::kBadData, origin + ": is no run record of this version of winnow; " + kAdvice);
  return json;
}

// Takes from the informative part all that this program takes from it, for the types: a record without a checksum may
// hold anything.
void check_informative(const nlohmann::json& informative, const std::string& origin) {
  using Json = nlohmann::json;
  const auto require = [](bool is_right, const char* what) {
    if (!is_right) throw std::invalid_argument(what);
  };
  try {
    require(informative.value("results_key", Json("")).is_string(), "results_key");
    const Json runs = informative.value("runs", Json::array());
    require(runs.is_array(), "runs");
    for (const Json& run : runs) {
      for (const char* count : {"units_done", "cells_done"}) run.value(count, int64_t{0});
      run.value("wall_seconds", 0.0);
      require(run.value("rank", Json::array()).is_array(), "rank");
      for (const Json& rank : run.value("rank", Json::array())) RankFacts::from_json(rank);
    }
    const Json searches = informative.value("searches", Json::object());
    require(searches.is_object(), "searches");
    for (const auto& [method, search] : searches.items()) {
      search::parse_search_method(method);
      search::parse_objective(search.value("objective", ""));
      for (const char* number : {"keep", "beam", "verify", "verify_examples"}) search.value(number, int64_t{1});
      for (const char* number :
           {"predicted_seconds", "predicted_seconds_exact", "predicted_seconds_verification", "search_seconds"}) {
        search.value(number, 0.0);
      }
    }
  } catch (const std::exception&) {  // of the library, of a name that is none, or our own
    fail(ExitCode::kBadData, origin + ": its informative part has values that this winnow does not write; " + kAdvice);
  }
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
  if (!other_window_keys.empty()) json["other_window_keys"] = other_window_keys;
  if (per_kv_head) json["per_kv_head"] = true;
  if (!kv_types.empty()) json["kv_types"] = kv_types;
  if (native_window > 0) json["native_window"] = native_window;
  if (!positions.empty()) json["positions"] = positions;
  return json;
}

std::string RunIdentity::hash() const { return sha256_of(json_text(to_json(), -1)); }

RunRecord::RunRecord()
    : json_({{"format", kRunFormat}, {"format_version", kRunVersion}, {"informative", nlohmann::json::object()}}) {}

RunRecord RunRecord::read(const std::filesystem::path& run_directory) {
  RunRecord record;
  record.path_ = record_path(run_directory);
  std::error_code unknown;
  if (std::filesystem::symlink_status(record.path_, unknown).type() == std::filesystem::file_type::not_found) {
    return record;
  }
  const std::string origin = record.path_.string();
  nlohmann::json json = parse_record(read_text(record.path_, kMaxRecordBytes), origin);
  if (check_json(json, origin, kAdvice) == Checksum::kAbsent) note_no_checksum(record.path_);
  json.erase(kChecksumKey);
  check_informative(json["informative"], origin);
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
    static const std::set<std::string> kLater = {"signals",  "other_window_keys", "per_kv_head",
                                                 "kv_types", "native_window",     "positions"};
    const char* absent = field == "kind" ? kCalibrate : kLater.contains(field) ? "none" : "missing";
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

std::string RunRecord::text() const {
  nlohmann::json json = json_;
  json[kChecksumKey] = json_checksum(json_);
  return json_text(json, 2) + "\n";
}

void RunRecord::write(const std::filesystem::path& run_directory) const {
  write_file_atomically(record_path(run_directory), text());
}

}  // namespace winnow::run
