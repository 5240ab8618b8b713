// Reads everything that a run needs before it measures: the checkpoint, the data sets, and the settings that follow.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/output_path.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/checkpoint_identity.h"
#include "model/config.h"
#include "model/safetensors.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/run/corpus.h"
#include "pipeline/run/options/options.h"
#include "pipeline/run/plan.h"
#include "pipeline/run/run_identity.h"
#include "pipeline/runtime/device_assignment.h"
#include "pipeline/runtime/session.h"

namespace winnow::run {

// The calibration set or a control.
struct DataSet {
  std::string name;  // "calibration" or "control/NAME"
  Corpus corpus;
  int64_t n_examples = 0;  // the first of the corpus, after --limit
  int64_t n_wanted = 0;    // the first so many are measured in the round at hand
  bool all_rows = false;   // whether every row obeys the window, whatever --tail-rows says
  // The first so many variants are measured of it; none: all that the run wants. Of controls layers alone.
  std::optional<int64_t> n_variants = std::nullopt;

  // Returns those of the variants that are measured of it, which are ascending.
  std::span<const int64_t> wanted_of(std::span<const int64_t> variants) const;

  int64_t n_answer(int64_t e) const {
    return static_cast<int64_t>(corpus.example(e).size()) - corpus.answer_start[static_cast<std::size_t>(e)];
  }
};

struct Inputs {
  std::string kind = "calibrate";  // the verb
  model::ModelConfig config;
  std::unique_ptr<model::Checkpoint> checkpoint;
  Settings settings;
  // By number, which is what cells, units and shards mean by a variant; of a calibration Settings::single_layers().
  std::vector<Variant> variants;
  // Their Variant::name() where the verb is another: shards hold the names, as numbers depend on the command.
  std::vector<std::string> variant_names;
  std::vector<int64_t> wanted;                     // numbers that this command measures, ascending, besides the base
  bool with_kl = false;                            // whether KL to the base is measured
  std::vector<DataSet> data_sets;                  // the calibration set first
  std::vector<std::string> warnings;               // for the user, and kept in the result
  std::vector<std::filesystem::path> other_files;  // that were read, besides model and data sets
  std::vector<Output> other_outputs;               // that will be written, besides the run directory
  engine::PrefixPlan prefixes;  // of the first data set's examples, kept from round to round; empty: none
  int64_t row_tile = 1;         // of the backend; where there are prefixes
  // Types of keys and values that variants of any round may have besides as computed: which rows the prefixes hold must
  // not follow from the variants that are known so far.
  std::vector<KvType> kv_types;

  // Returns all paths that are read: none may be written over.
  ReadPaths read_paths(const RunOptions& options) const;
  // Returns the places of the signals of layers among the numbers of a cell.
  engine::SignalLayout signal_layout() const { return {settings.signals, config.heads.n_kv_heads}; }
  // Returns the window of a windowed layer for an example of a data set.
  kernels::Window window_of(int64_t data_set, int64_t example) const;
  // Returns the window that no layer of any variant sees less than, for engine::cached_rows().
  kernels::Window narrowest_of(kernels::Window window) const;
  // Returns the sweep that a group of lanes of one example needs.
  engine::SweepRequest request(const MissingCells& cells, std::span<const int64_t> group, bool per_token) const;
  // Opens the checkpoint. Where config.json names no type, the model has the type of its weights.
  void open_checkpoint(const std::filesystem::path& model);
  // Takes the checkpoint's scales of keys and values, for variants with some in fp8. After open_checkpoint(); throws
  // Error(kBadData) for scales that are not one for a layer.
  void take_kv_scales();
  bool names_variants() const { return kind != "calibrate"; }
  std::optional<int64_t> find_number(const Variant& variant) const;
  // Returns the number of a named variant: the next free one where the pattern is new.
  int64_t number_of(const Variant& variant);
  int64_t number_of(const engine::Pattern& pattern) {
    return number_of(Variant{.windowed = pattern, .window_keys = {}});
  }
  // Does the same by name. Throws Error(kBadData) for what is not the one name of a pattern of this model.
  int64_t number_of_name(const std::string& name);
};

// Reads and validates all that calibrate needs. Throws Error(kUsage | kNoInput | kBadData).
Inputs load_inputs(const RunOptions& options);
// Reads a data set: the first examples of a file, as --limit says; all without it. Throws as read_corpus does.
DataSet read_data_set(const std::string& name, const std::filesystem::path& file, int64_t vocab,
                      const std::optional<int64_t>& limit);
// Checks data sets against model and window, once they are all there: adds warnings, or throws Error(kBadData).
void check_data_sets(const RunOptions& options, Inputs& inputs);

// Returns the threads of this rank: --threads, else OMP_NUM_THREADS, else its share of the cores.
int choose_threads(const RunOptions& options, const runtime::RankResources& resources);
// Chooses the GPU of this rank; none with --device cpu. Collective over the host; fails on no rank.
runtime::GpuChoice choose_gpu(const RunOptions& options, runtime::MpiSession& session);
// Makes the backend of --device for this rank. Throws Error(kUnavailable) with the reason, also for a GPU that another
// rank takes too, unless --share-gpu allows that. The residual stream has the checkpoint's type unless --residual says
// fp32; float16 becomes bfloat16.
std::unique_ptr<kernels::Ops> make_backend(const RunOptions& options, const runtime::GpuChoice& gpu, int n_threads,
                                           kernels::DType checkpoint_dtype);
// Checks that the backend computes a model of this shape. Throws Error(kUnavailable) with what it cannot.
void require_model(const model::ModelConfig& config, const kernels::Device& device);

// Lets the driver of the GPUs start beside other work, where they may be used; the future waits for it when it goes.
std::future<void> wake_driver(const RunOptions& options);
// Calls checkpoint_sha256() of model/checkpoint_identity.h with the cache in the user's cache directory.
std::string hash_checkpoint(const model::Checkpoint& checkpoint, const std::stop_token& stop = {});

// The same, computed beside other work from now on: on a GPU's host the device is made ready meanwhile.
class EarlyHash {
 public:
  // The checkpoint must outlive this.
  explicit EarlyHash(const model::Checkpoint& checkpoint);
  EarlyHash(const EarlyHash&) = delete;
  EarlyHash& operator=(const EarlyHash&) = delete;
  ~EarlyHash() { stop_.request_stop(); }  // what does not need it any more waits for a chunk at most
  // Waits for the hash and returns it, once. Throws as checkpoint_sha256() does.
  std::string get() { return hash_.get(); }

 private:
  std::stop_source stop_;
  std::future<std::string> hash_;
};
// Makes what notices that this rank's weights change. `sha256` is rank 0's. Throws AgreedFailure where a rank has
// another checkpoint than rank 0, as hosts with a copy of their own may. Collective.
std::unique_ptr<model::CheckpointWatch> watch_checkpoint(const Inputs& inputs, runtime::MpiSession& session,
                                                         std::string sha256);
// Sets the fields of an identity that the settings decide.
void take_settings(const Settings& settings, RunIdentity& identity);
RunIdentity identity_of(const Inputs& inputs, kernels::Ops& ops, const std::string& checkpoint_sha256);

}  // namespace winnow::run
