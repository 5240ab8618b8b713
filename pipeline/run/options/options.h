// The options of the verbs that measure, as flags give them, and what they mean for a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "kernels/window.h"
#include "model/config.h"
#include "pipeline/engine/sweep.h"

namespace winnow::run {

// The verbs that measure.
enum class Verb { kCalibrate, kSearch, kEvaluate };

// NAME and FILE of every control set.
using Controls = std::vector<std::pair<std::string, std::filesystem::path>>;

// Rows before the answer that obey the window in a search and where single heads are measured, unless --tail-rows or
// --exact says otherwise.
inline constexpr int64_t kSearchTailRows = 256;

// Options of one of these verbs, which option_table.h describes; the defaults are here. Empty or absent: not given.
struct RunOptions {
  Verb verb = Verb::kCalibrate;
  std::filesystem::path model;        // checkpoint directory
  std::filesystem::path data;         // calibration file
  std::filesystem::path out;          // run directory
  std::optional<int64_t> limit;       // examples of every data set
  int64_t window = 0;                 // tokens; see target; 0: the smallest of windows
  std::optional<int64_t> sinks;       // tokens, default 0
  std::optional<std::string> decode;  // "windowed" (default) or "full"
  std::string target;                 // "", hf, vllm, trtllm, swaa-hf, swaa-vllm
  std::optional<int64_t> tail_rows;   // rows before the answer that obey the window; none: all, or kSearchTailRows
  bool ignore_native_window = false;
  int64_t seed = 0;                     // of bootstrap and permutations
  std::string device = "auto";          // auto, cpu, cuda
  std::string residual = "checkpoint";  // checkpoint, fp32
  std::string attention = "auto";       // on a GPU: auto, cudnn, own
  int threads = 0;                      // per rank; 0: OMP_NUM_THREADS, else a share of the cores
  std::string max_memory;               // per rank, as parse_bytes() reads it
  std::string stream = "auto";          // whether layers go through the GPU's memory: auto, on, off
  double grace_seconds = 240.0;         // after USR1 or TERM
  bool share_gpu = false;
  bool profile = false;
  bool dry_run = false;
  bool json = false;
  // Options of calibrate.
  Controls controls;
  std::string windows;                     // "512,2048": each layer is measured under each; "": under window alone
  std::string kv;                          // "bf16,fp8": each layer is measured in each; "": as computed
  std::string base = "full";               // "full", "windowed", "list:1,4,5": layers that keep full attention
  std::string layers;                      // "0-11,20"; "": all
  bool per_kv_head = false;                // every key head of every layer is measured alone, too
  bool per_token = false;                  // the NLL of every answer token is kept
  std::optional<int64_t> top_k;            // budget besides L/8, L/4 and L/2
  std::string until;                       // "95%": examples are added until the selections are settled; "": all
  std::string until_budgets;               // "3,9": K of the selections that are to settle; "": L/8, L/4, L/2 and top_k
  std::string until_tolerance;             // "1%" or "0.01", as results/race/race.h parses it; "": 1 %
  std::string signals;                     // names with commas, "all" or "none"; "": none
  std::optional<std::string> sensitivity;  // "tail" (default) or "full"
  std::optional<int64_t> lazy_sinks, lazy_recent, lazy_last;
  bool exact = false;  // every row obeys the window: of search in every step, of calibrate's heads
  // Options of search.
  std::string method;                      // greedy-forward, greedy-backward, pairs, plan
  std::optional<int64_t> keep;             // K; of pairs the number of candidates
  std::string objective = "nll";           // nll, exact-match, kl
  int64_t beam = 1;                        // patterns that a step goes on from
  std::optional<int64_t> verify;           // rejected patterns that are measured exactly, besides the best of each K
  std::optional<int64_t> verify_examples;  // the first so many examples serve for that; all
  // Of search for plans.
  std::filesystem::path from;          // run directory of the calibration
  std::vector<std::string> budgets;    // as results/plan/budget.h parses them; empty: some shares
  std::string engine = "ideal";        // whose allocation counts
  int64_t concurrency = 1;             // sequences at a time
  std::optional<int64_t> max_seq_len;  // tokens of each; none: max_position_embeddings
  int64_t steps = 6;                   // of each budget, at most
  // Options of evaluate.
  std::vector<std::string> patterns;  // as results/selection/selection.h parses them, in the order of the result
  std::string baseline;               // one of them by name; empty: none
  std::string margin;                 // "1%" or "0.01", as results/evaluation/losses.h parses it; empty: derived
  int64_t generate = 0;               // new tokens that every pattern writes freely, at most; 0: none
  std::string stop_tokens;            // "1,2" or "none"; empty: those of the checkpoint
  std::filesystem::path responses;    // JSONL file of what was written; empty: none
  // For provenance: what was typed, and which program it was.
  std::string command;
  std::string version;
  std::string git_revision;

  // Returns the bytes of max_memory; none where it is not given. Throws Error(kUsage).
  std::optional<int64_t> max_memory_bytes() const;
};

// What a lane of a run has in place of the base: which layers are windowed, how far they see, and the types in which
// layers keep keys and values.
struct Variant {
  engine::Pattern windowed;          // (n_layers)
  std::vector<int64_t> window_keys;  // (n_layers), 0: full attention; empty: those of the run in windowed layers
  std::vector<KvType> kv = {};       // (n_layers); empty: all as computed. Where it is there, window_keys are as well
  // Key heads that have the window, of the layers that are windowed; (n_layers * n_kv_heads), layer by layer, or empty:
  // all heads of these layers.
  std::vector<bool> windowed_heads{};

  // Returns its one name, by which shards and texts know it.
  std::string name() const;
  bool operator==(const Variant&) const = default;
};

// What a layer alone is measured under.
struct LayerSetting {
  int64_t window = 0;  // tokens as given, 0: full attention
  int64_t keys = 0;    // that a row sees, itself included; 0 likewise
  KvType kv = KvType::kStored;
};

// The measurement that the options mean, for one model.
struct Settings {
  int64_t given_window = 0;  // tokens
  int64_t window_keys = 0;   // keys that a row sees, itself included
  // Keys of the other windows that layers are measured under, rising; mostly empty.
  std::vector<int64_t> other_window_keys;
  std::vector<KvType> kv_types;  // that layers are measured in besides as computed; mostly empty
  int64_t sinks = 0;
  bool decode_full = false;
  std::optional<int64_t> tail_rows;
  engine::Pattern base;                 // (n_layers)
  std::vector<int64_t> base_keys = {};  // of the base's windowed layers, as Variant has them
  std::vector<KvType> base_kv = {};     // the base's types of keys and values, likewise
  std::string base_name;                // canonical: "full", "windowed" or "list:1,4"
  std::vector<int64_t> layers;          // ascending
  bool per_kv_head = false;             // their key heads are measured alone, too
  int64_t n_kv_heads = 0;               // of the model, where per_kv_head asks for it
  engine::LayerRules rules;             // what the model's layers have of their own; pipeline/run/layer_rules.h
  engine::SignalOptions signals;        // besides NLL and matches

  // Returns the window of a windowed layer for an example whose answer starts at that token.
  kernels::Window window_of(int64_t answer_start) const;
  // Returns what the layers see where the window of a windowed one is that.
  engine::LayerWindows layer_windows(const engine::Pattern& pattern, const kernels::Window& window) const {
    return engine::layer_windows_of(pattern, window, rules);
  }
  // Does the same for a variant, whose own keys go before those of the window.
  engine::LayerWindows layer_windows(const Variant& variant, const kernels::Window& window) const;
  // Returns the windows that layers are measured under, as given, rising, the one of the run among them.
  std::vector<int64_t> windows() const;
  // Returns the pattern in which every layer has full attention that may have it; (n_layers).
  engine::Pattern full_pattern() const { return rules.native.empty() ? engine::Pattern(base.size()) : rules.native; }
  // Returns the keys of the windows that layers have of their own, 0: none; (n_layers), or empty where no layer has
  // one.
  std::vector<int64_t> native_windows() const { return by_layer<int64_t>(rules.native, rules.native_window.keys, 0); }
  // Returns the base as a variant.
  Variant base_variant() const { return {.windowed = base, .window_keys = base_keys, .kv = base_kv}; }
  // Returns the base with one layer flipped; (n_layers).
  engine::Pattern variant(int64_t layer) const;
  // Returns the settings that a layer is measured under: the window of the run, the other ones, then for each type of
  // kv_types the same and full attention.
  std::vector<LayerSetting> layer_settings() const;
  // Returns the base with one layer otherwise, for every layer, under every setting: number s * n_layers + l has layer
  // l under setting s of layer_settings(). With per_kv_head single_heads() follow.
  std::vector<Variant> single_layers() const;
  // Returns full attention with the window in one key head, for every head of every layer, layer by layer.
  std::vector<Variant> single_heads() const;
  // Returns the number among single_layers() of a head.
  int64_t number_of_head(int64_t layer, int64_t head) const;
  // Returns true if a window of so many keys changes any row that is computed for an example of n_tokens.
  bool affects(int64_t keys, int64_t n_tokens, int64_t answer_start) const;
  std::string decode_name() const { return decode_full ? "full" : "windowed"; }
};

// Parses auto, cudnn or own. Throws Error(kUsage) for others.
cuda::CudaOptions::Attention parse_attention(const std::string& name);
// Throws Error(kUsage) for what can be refused without looking at a file: ranges, choices and combinations of the
// options that options.verb takes.
void check_options(const RunOptions& options);
// Returns the kind in the identity of a run: the verb, whether a search has KL to the base, and whether it is for
// plans.
std::string kind_of(const RunOptions& options);
// Returns the part of the settings that all verbs share: window, sinks, decode, tail rows.
Settings resolve_window(const RunOptions& options);
// Rows before the answer that lose a layer's attention, besides the answer, where --tail-rows does not say: few, as
// their lanes are short then, and enough to reach the answer through the layers above.
inline constexpr int64_t kSensitivityTail = 32;
// Returns the words that --signals takes.
const std::vector<std::string>& signal_words();
// Returns the names of the engines whose rules --target takes.
const std::vector<std::string>& target_names();
// Returns the signals of --signals with their parameters. Throws Error(kUsage).
engine::SignalOptions resolve_signals(const RunOptions& options);
// Returns the settings for a model. Throws Error(kUsage), also for layers that the model does not have.
Settings resolve_settings(const RunOptions& options, int64_t n_layers);

// Returns the budgets of until_budgets, or those that a calibration has anyway, for so many measured layers; rising.
// Throws Error(kUsage).
std::vector<int64_t> race_budgets(const RunOptions& options, int64_t n_layers);

// Parses "512,2048" and returns the windows, rising. Throws Error(kUsage).
std::vector<int64_t> parse_windows(const std::string& text, const std::string& flag);
// Parses "NAME=FILE", where NAME has letters, digits, _ . -. Throws Error(kUsage).
std::pair<std::string, std::filesystem::path> parse_control(const std::string& text);

}  // namespace winnow::run
