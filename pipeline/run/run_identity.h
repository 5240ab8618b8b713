// The identity of a measurement: everything that changes an NLL. RUN_DIR/run.json keeps it, and it is compared field by
// field before a run is resumed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace winnow::run {

// The positions of a layer that gets a window are those of its type.
inline constexpr const char* kPositionsByType = "by type";

struct RunIdentity {
  std::string kind = "calibrate";  // the verb
  std::string checkpoint_sha256;
  std::string data_sha256;
  int64_t window_keys = 0;
  std::vector<int64_t> other_window_keys = {};  // that layers are measured under as well, rising
  bool per_kv_head = false;                     // key heads are measured alone as well
  std::vector<std::string> kv_types = {};       // that layers are measured in as well, by name
  int64_t sinks = 0;
  std::string decode;                // "windowed" or "full"
  std::optional<int64_t> tail_rows;  // none: every row obeys the window
  std::string base;                  // "full", "windowed" or "list:1,4" (layers that keep full attention)
  std::string signals = {};          // SignalOptions::name(); of run.json without the field: none
  int64_t native_window = 0;         // keys of the checkpoint's own window, where layers keep it; 0: none does
  std::string positions = {};        // kPositionsByType, or empty: a layer keeps its positions with a window
  std::string residual_dtype;        // "fp32", "bf16", "fp16"
  std::string compute_dtype;
  std::string backend;         // "cpu", "cuda"
  std::string attention_path;  // how the backend computes attention
  int64_t schema_version = 1;  // of the shards

  nlohmann::json to_json() const;
  // Returns the hash that every shard carries.
  std::string hash() const;
};

// RUN_DIR/run.json: the identity, the control sets (which may grow), and what is only informative.
class RunRecord {
 public:
  // Reads RUN_DIR/run.json; an empty record where it is absent. Throws Error(kBadData) when it is not a run record or
  // differs from its checksum, Error(kNoInput) when it cannot be read. One without a checksum is read with a note on
  // stderr.
  static RunRecord read(const std::filesystem::path& run_directory);
  RunRecord();

  // Takes the identity and the control sets {NAME: sha256} of this command. Throws Error(kConfigMismatch) naming the
  // first field that differs, and both values.
  void adopt(const RunIdentity& identity, const std::map<std::string, std::string>& controls);
  // Returns the informative part, an object of any form.
  nlohmann::json& informative() { return json_["informative"]; }
  void write(const std::filesystem::path& run_directory) const;
  std::string text() const;  // as written, with its checksum

 private:
  std::filesystem::path path_;
  nlohmann::json json_;
};

}  // namespace winnow::run
