// A selection: the layers of a model that keep full attention, and the measurement behind that. It is a small JSON file
// that `winnow select` writes and `winnow evaluate`, `search` and `export` read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/kv_type.h"
#include "base/output_path.h"
#include "base/pattern.h"
#include "results/calibration/results.h"
#include "results/evaluation/serving_cost.h"

namespace winnow::selection {

inline constexpr const char* kSelectionFormat = "winnow-selection";
inline constexpr int64_t kSelectionVersion = 1;
// Of one with windows of single layers, which a reader of the first version would take for one window.
inline constexpr int64_t kPlanVersion = 2;
// Of one with types of keys and values, which a reader of the second version would leave out.
inline constexpr int64_t kTypedPlanVersion = 3;
// Of one of key heads, which earlier readers would take for one of layers.
inline constexpr int64_t kHeadsVersion = 4;
// Bound on a window, tokens: no sequence is that long.
inline constexpr int64_t kLargestWindow = int64_t{1} << 59;

// What /provenance/positions of a result and `positions` of a selection may say.
inline constexpr const char* kByType = "by type";

struct Selection {
  std::string method;           // as `winnow select --method` takes it
  int64_t keep = 0;             // K: layers that keep full attention, 0 to n_layers
  std::vector<int64_t> layers;  // (keep), rising
  int64_t n_layers = 0;         // of the model
  // Settings with which the figures behind the selection were measured.
  int64_t window = 0;       // tokens, as given
  int64_t window_keys = 0;  // keys that a row of a windowed layer sees, itself included
  int64_t sinks = 0;        // first tokens of the sequence that a row sees besides
  std::string decode;       // "windowed" or "full": whether answer rows obey the window
  int64_t tail_rows = -1;   // rows before the answer that obey the window; -1: all rows
  std::string target;       // "", hf, vllm, trtllm, swaa-hf, swaa-vllm
  // Layers that have a window of their own in every pattern, rising, and its keys; none and 0 where no layer has one.
  std::vector<int64_t> native_layers;
  int64_t native_window = 0;
  // Of a plan: the keys that each layer sees, 0: all of them; (n_layers), or empty: window_keys in all windowed layers.
  std::vector<int64_t> layer_windows;
  // Of a plan: the type in which each layer keeps its keys and values; (n_layers), or empty: all as computed. Where it
  // is there, layer_windows are as well.
  std::vector<KvType> layer_kv;
  // Of one of key heads: how many a layer has, those with the window, and the mean delta NLL of each alone, NaN where
  // it was not measured; (n_layers * n_kv_heads), layer by layer. Else 0 and empty. `layers` are those all of whose
  // heads keep full attention.
  int64_t n_kv_heads = 0;
  std::vector<bool> windowed_heads{};
  std::vector<double> head_delta_nll{};
  std::string positions;          // kByType: a windowed layer has the positions of its type; empty: those it has anyway
  std::string model;              // checkpoint directory, which need not be UTF-8
  std::string model_type;         // family, as config.json names it
  std::string checkpoint_sha256;  // over config.json and the weights
  std::vector<std::string>
      token_hashes;                // of the examples behind it; empty: older than they are, or no figures behind it
  storage::Provenance provenance;  // strings and numbers; units and long names are not kept
  bool has_checksum = true;        // of one that was read: whether the file has one, which then has been found right

  bool is_of_heads() const { return n_kv_heads > 0; }
  // Returns the key heads that keep full attention.
  int64_t n_full_heads() const;
  // Returns true for a layer that has a window of its own.
  bool has_native_window(int64_t layer) const;
  // Returns true for each layer that is windowed; (n_layers).
  Pattern windowed() const;
  // Returns what each layer sees when the selection is served; (n_layers).
  std::vector<evaluation::ServedWindow> windows() const;
};

// Returns the text of the file, with its checksum: one key a line, so that diff shows what differs.
std::string to_json(const Selection& selection);
// Writes it whole or not at all. Throws Error(kIoError | kCannotCreate).
void write_selection(const std::filesystem::path& path, const Selection& selection);
// Reads it strictly; keys beyond the format are ignored, but the checksum covers them. Throws Error(kNoInput |
// kBadData) naming file, key, expected and found.
Selection read_selection(const std::filesystem::path& path);
// Does the same with the text of a file; in messages `origin` names it and `advice` says what to do.
Selection parse_selection(const std::string& text, const std::string& origin,
                          const std::string& advice = "write the selection anew with winnow select");

// Model that a selection must be for. An empty hash is not compared.
struct PatternModel {
  int64_t n_layers = 0;
  std::string checkpoint_sha256;
  std::vector<int64_t> native_layers = {};  // that have a window of their own, which a pattern that counts leaves out
};

// Refuses a selection for another model: Error(kConfigMismatch). `origin` is the selection's file.
void check_selection_model(const Selection& selection, const std::string& origin, const PatternModel& model);

// Describes a selection as an output, for check_outputs().
Output selection_output(const std::string& flag, const std::filesystem::path& path);

}  // namespace winnow::selection
