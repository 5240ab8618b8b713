#include "pipeline/run/inputs.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <system_error>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "pipeline/run/layer_rules.h"
#include "results/selection/pattern.h"

namespace winnow::run {

std::span<const int64_t> DataSet::wanted_of(std::span<const int64_t> variants) const {
  if (!n_variants) return variants;
  const auto end = std::ranges::lower_bound(variants, *n_variants);
  return variants.first(static_cast<std::size_t>(end - variants.begin()));
}

DataSet read_data_set(const std::string& name, const std::filesystem::path& file, int64_t vocab,
                      const std::optional<int64_t>& limit) {
  DataSet data{.name = name, .corpus = read_corpus(file, vocab), .n_examples = 0};
  data.n_examples = data.n_wanted = std::min(data.corpus.size(), limit.value_or(data.corpus.size()));
  return data;
}

namespace {

int64_t longest(const DataSet& data) {
  int64_t n_tokens = 0;
  for (int64_t e = 0; e < data.n_examples; ++e) {
    n_tokens = std::max(n_tokens, static_cast<int64_t>(data.corpus.example(e).size()));
  }
  return n_tokens;
}

// What stays as the checkpoint has it.
void note_native_window(Inputs& inputs) {
  const engine::LayerRules& rules = inputs.settings.rules;
  const int64_t own = rules.native_window.keys;
  inputs.warnings.push_back(std::to_string(std::count(rules.native.begin(), rules.native.end(), true)) + " of " +
                            std::to_string(rules.native.size()) + " layers have a window of " + std::to_string(own) +
                            " tokens of their own, which stays in every pattern; the others are measured");
  const int64_t keys = inputs.settings.window_keys + inputs.settings.sinks;
  if (keys <= own) return;
  inputs.warnings.push_back("a windowed layer sees up to " + std::to_string(keys) +
                            " keys, more than the layers with a window of their own");
}

// A window that the checkpoint itself sets in every layer changes the model on examples that are longer: measuring it
// with full attention would measure another model than the one that is served.
void check_native_window(const RunOptions& options, Inputs& inputs) {
  const model::ModelConfig& config = inputs.config;
  if (!config.native_window) return;
  if (!inputs.settings.rules.native.empty()) return note_native_window(inputs);
  const bool is_everywhere = std::ranges::find(config.native_window_layers, false) == config.native_window_layers.end();
  for (const DataSet& data : inputs.data_sets) {
    if (longest(data) <= *config.native_window) continue;
    const std::string what = "the checkpoint sets a window of " + std::to_string(*config.native_window) +
                             " tokens itself" + (is_everywhere ? " in every layer" : "") + ", and " +
                             data.corpus.path.string() + " has examples of up to " + std::to_string(longest(data)) +
                             " tokens";
    if (!options.ignore_native_window) {
      fail(ExitCode::kBadData, (options.model / "config.json").string() + ": sliding_window: " + what +
                                   ", so that no layer is left to measure; give --ignore-native-window to measure "
                                   "with full attention all the same");
    }
    inputs.warnings.push_back(what + "; ignored as asked");
  }
}

void note_cache(Inputs& inputs) {
  const std::string& key = inputs.config.quantization.cache_key;
  if (key.empty()) return;
  inputs.warnings.push_back("keys and values are not quantised, although quantization_config asks for it (" + key +
                            "): figures are those of an engine that keeps them in bfloat16");
}

void check_positions(Inputs& inputs) {
  for (const DataSet& data : inputs.data_sets) {
    if (longest(data) <= inputs.config.max_positions) continue;
    inputs.warnings.push_back(data.name + " has examples of up to " + std::to_string(longest(data)) +
                              " tokens, more than the model's max_position_embeddings of " +
                              std::to_string(inputs.config.max_positions));
  }
}

// An example that a window does not reach has deltas of exactly 0 where keys and values are as computed.
void check_reach(Inputs& inputs) {
  const Settings& settings = inputs.settings;
  std::vector<int64_t> windows = {settings.window_keys};
  windows.insert(windows.end(), settings.other_window_keys.begin(), settings.other_window_keys.end());
  const std::string exception =
      settings.kv_types.empty() ? ""
                                : ", but for those with keys and values in " + joined_names(settings.kv_types, " or ");
  for (const DataSet& data : inputs.data_sets) {
    const bool is_control = &data != &inputs.data_sets.front();
    for (const int64_t keys : windows) {
      int64_t n_reached = 0;
      for (int64_t e = 0; e < data.n_examples; ++e) {
        const auto n_tokens = static_cast<int64_t>(data.corpus.example(e).size());
        if (settings.affects(keys, n_tokens, data.corpus.answer_start[static_cast<std::size_t>(e)])) ++n_reached;
      }
      if (n_reached == data.n_examples) continue;
      const std::string span = std::to_string(keys + settings.sinks) + " keys (window " + std::to_string(keys) +
                               " + sinks " + std::to_string(settings.sinks) + ")";
      if (n_reached == 0 && is_control && keys == settings.window_keys) {
        fail(ExitCode::kBadData, data.corpus.path.string() + ": " + data.name + " has no example longer than the " +
                                     span + ": all its deltas would be 0" + exception +
                                     "; use longer examples or a smaller --window");
      }
      inputs.warnings.push_back(std::to_string(data.n_examples - n_reached) + " of " + std::to_string(data.n_examples) +
                                " examples of " + data.name + " are not longer than the " + span +
                                ": their deltas are 0" + exception);
    }
  }
}

}  // namespace

kernels::Window Inputs::window_of(int64_t data_set, int64_t example) const {
  const DataSet& data = data_sets[static_cast<std::size_t>(data_set)];
  kernels::Window window = settings.window_of(data.corpus.answer_start[static_cast<std::size_t>(example)]);
  if (data.all_rows) window.first_row = 0;
  return window;
}

kernels::Window Inputs::narrowest_of(kernels::Window window) const {
  // Rounded keys are read from the first row of the tail on, whatever the window.
  if (!kv_types.empty()) {
    window.keys = 1;
    window.sinks = 0;
  }
  return window;
}

void Inputs::take_kv_scales() { config.kv_scales = checkpoint->kv_scales(config.n_layers); }

engine::SweepRequest Inputs::request(const MissingCells& cells, std::span<const int64_t> group, bool per_token) const {
  const Corpus& corpus = data_sets[static_cast<std::size_t>(cells.data_set)].corpus;
  engine::SweepRequest request;
  request.tokens = corpus.example(cells.example);
  request.answer_start = corpus.answer_start[static_cast<std::size_t>(cells.example)];
  const kernels::Window window = window_of(cells.data_set, cells.example);
  request.base = settings.layer_windows(settings.base_variant(), window);
  for (const int64_t variant : group) {
    request.variants.push_back(settings.layer_windows(variants[static_cast<std::size_t>(variant)], window));
  }
  request.per_token = per_token;
  request.with_kl = with_kl;
  request.signals = settings.signals;
  const bool has_prefix = cells.data_set == 0 && !prefixes.place.empty() &&
                          prefixes.place[static_cast<std::size_t>(cells.example)].has_value();
  if (has_prefix) {
    request.prefix_rows =
        engine::cached_rows(static_cast<int64_t>(request.tokens.size()), narrowest_of(window), row_tile);
  }
  return request;
}

void Inputs::open_checkpoint(const std::filesystem::path& model) {
  checkpoint = std::make_unique<model::Checkpoint>(model, config.quantization, config.family);
  if (config.checkpoint_dtype == kernels::DType::kOther) config.checkpoint_dtype = checkpoint->dtype();
}

ReadPaths Inputs::read_paths(const RunOptions& options) const {
  ReadPaths read{.files = other_files, .checkpoints = {options.model}};
  for (const DataSet& data : data_sets) read.files.push_back(data.corpus.path);
  return read;
}

int64_t Inputs::number_of(const Variant& variant) {
  const auto known = std::ranges::find(variants, variant);
  if (known != variants.end()) return known - variants.begin();
  variant_names.push_back(variant.name());
  variants.push_back(variant);
  return static_cast<int64_t>(variants.size()) - 1;
}

std::optional<int64_t> Inputs::find_number(const Variant& variant) const {
  const auto found = std::ranges::find(variants, variant);
  if (found == variants.end()) return std::nullopt;
  return found - variants.begin();
}

int64_t Inputs::number_of_name(const std::string& name) {
  Variant variant;
  try {
    if (selection::is_heads_name(name)) {
      variant.windowed_heads = selection::heads_of_name(name, config.n_layers, config.heads.n_kv_heads);
      variant.windowed = selection::windowed_layers(variant.windowed_heads, config.n_layers);
    } else if (selection::is_windows_name(name)) {
      selection::LayerNames layers = selection::layers_of_name(name, config.n_layers);
      variant.window_keys = std::move(layers.windows);
      variant.kv = std::move(layers.kv);
      for (const int64_t keys : variant.window_keys) variant.windowed.push_back(keys > 0);
    } else {
      variant.windowed = selection::pattern_of_name(name, config.n_layers, "a pattern");
    }
  } catch (const Error& error) {
    fail(ExitCode::kBadData, error.what());
  }
  if (variant.name() != name) fail(ExitCode::kBadData, "a pattern is \"" + name + "\", not in its usual form");
  return number_of(variant);
}

void check_data_sets(const RunOptions& options, Inputs& inputs) {
  check_native_window(options, inputs);
  check_positions(inputs);
  note_cache(inputs);
  check_reach(inputs);
}

Inputs load_inputs(const RunOptions& options) {
  check_options(options);
  Inputs inputs;
  inputs.config = model::read_config(options.model);
  inputs.settings = resolve_settings(options, inputs.config.n_layers);
  take_layer_rules(options, inputs.config, inputs.settings);
  const int64_t n_layers = inputs.config.n_layers;
  Settings& settings = inputs.settings;
  if (settings.per_kv_head) settings.n_kv_heads = inputs.config.heads.n_kv_heads;
  inputs.variants = settings.single_layers();
  const int64_t n_of_layers = settings.number_of_head(0, 0);
  for (int64_t first = 0; first < n_of_layers; first += n_layers) {
    for (const int64_t layer : settings.layers) inputs.wanted.push_back(first + layer);
  }
  for (const int64_t layer : settings.layers) {
    for (int64_t head = 0; head < settings.n_kv_heads; ++head) {
      inputs.wanted.push_back(settings.number_of_head(layer, head));
    }
  }
  inputs.with_kl = inputs.settings.signals.needs(&SignalNeeds::distributions);
  inputs.open_checkpoint(options.model);
  if (std::ranges::find(inputs.settings.kv_types, KvType::kFp8) != inputs.settings.kv_types.end()) {
    inputs.take_kv_scales();
  }
  inputs.data_sets.push_back(read_data_set("calibration", options.data, inputs.config.vocab, options.limit));
  for (const auto& [name, file] : options.controls) {
    inputs.data_sets.push_back(read_data_set("control/" + name, file, inputs.config.vocab, options.limit));
    inputs.data_sets.back().n_variants = n_of_layers;
  }
  check_data_sets(options, inputs);
  return inputs;
}

int choose_threads(const RunOptions& options, const runtime::RankResources& resources) {
  if (options.threads > 0) return options.threads;
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    if (const long n = std::strtol(text, nullptr, 10); n > 0 && n <= 4096) return static_cast<int>(n);
  }
  return resources.n_threads;
}

runtime::GpuChoice choose_gpu(const RunOptions& options, runtime::MpiSession& session) {
  std::string mine;
  if (options.device != "cpu") {
    for (const std::string& uuid : cuda::cuda_device_uuids()) mine += uuid + "\n";
  }
  std::vector<std::vector<std::string>> visible;
  for (const std::string& list : session.gather_on_host(mine)) {
    std::vector<std::string>& uuids = visible.emplace_back();
    std::istringstream lines(list);
    for (std::string uuid; std::getline(lines, uuid);) uuids.push_back(uuid);
  }
  return runtime::choose_gpus(visible)[static_cast<std::size_t>(session.local_rank())];
}

std::unique_ptr<kernels::Ops> make_backend(const RunOptions& options, const runtime::GpuChoice& gpu, int n_threads,
                                           kernels::DType checkpoint_dtype) {
  if (options.device == "cpu" || (options.device == "auto" && gpu.device < 0)) {
    if (options.attention != "auto") {
      fail(ExitCode::kUnavailable, "--attention " + options.attention + " needs a GPU, and none answers here");
    }
    return cpu::make_cpu_backend({.n_threads = n_threads});
  }
  if (gpu.is_shared() && !options.share_gpu) {
    fail(ExitCode::kUnavailable, std::to_string(gpu.host_ranks) + " ranks on a host where they see " +
                                     std::to_string(gpu.host_gpus) +
                                     " GPU(s): start as many ranks as GPUs, or give --share-gpu or --device cpu");
  }
  const bool is_wide = options.residual == "fp32" || checkpoint_dtype == kernels::DType::kF32;
  // A rank that sees no GPU asks for the first, and is told why there is none.
  return cuda::make_cuda_backend({.device = std::max(gpu.device, 0),
                                  .attention = parse_attention(options.attention),
                                  .residual = is_wide ? kernels::DType::kF32 : kernels::DType::kBf16});
}

void require_model(const model::ModelConfig& config, const kernels::Device& device) {
  device.require_shape(config.hidden, config.ffn, config.heads);
  if (!config.experts) return;
  device.require_shape(config.hidden, config.experts.ffn, config.heads);
}

std::future<void> wake_driver(const RunOptions& options) {
  if (options.device == "cpu") return {};
  try {
    return std::async(std::launch::async, [] { cuda::cuda_device_uuids(); });
  } catch (const std::system_error&) {
    return {};  // who needs the driver waits for it
  }
}

std::string hash_checkpoint(const model::Checkpoint& checkpoint, const std::stop_token& stop) {
  std::filesystem::path cache;
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (xdg != nullptr && *xdg != '\0') {
    cache = std::filesystem::path(xdg) / "winnow";
  } else if (home != nullptr && *home != '\0') {
    cache = std::filesystem::path(home) / ".cache" / "winnow";
  }
  return checkpoint_sha256(checkpoint, cache, stop);
}

EarlyHash::EarlyHash(const model::Checkpoint& checkpoint) {
  const auto hash = [&checkpoint, stop = stop_.get_token()] { return hash_checkpoint(checkpoint, stop); };
  try {
    hash_ = std::async(std::launch::async, hash);
  } catch (const std::system_error&) {  // no thread is to be had: later, by who asks
    hash_ = std::async(std::launch::deferred, hash);
  }
}

std::unique_ptr<model::CheckpointWatch> watch_checkpoint(const Inputs& inputs, runtime::MpiSession& session,
                                                         std::string sha256) {
  const model::Checkpoint& checkpoint = *inputs.checkpoint;
  // Without the device's number, which hosts give out each for itself.
  std::string stamps;
  for (const auto& file : checkpoint.files()) {
    const FileStamp& stamp = file->stamp();
    stamps += std::to_string(stamp.inode) + " " + std::to_string(stamp.size_bytes) + " " +
              std::to_string(stamp.changed_ns) + "\n";
  }
  std::string of_root = stamps;
  session.broadcast(of_root);
  session.broadcast(sha256);
  std::unique_ptr<model::CheckpointWatch> watch;
  session.agree([&] {
    if (stamps != of_root && hash_checkpoint(checkpoint) != sha256) {
      fail(ExitCode::kBadData, checkpoint.directory().string() +
                                   ": holds another checkpoint here than for rank 0; bring the same one to all hosts");
    }
    watch = std::make_unique<model::CheckpointWatch>(inputs.config, checkpoint, sha256);
  });
  return watch;
}

void take_settings(const Settings& settings, RunIdentity& identity) {
  identity.window_keys = settings.window_keys;
  identity.other_window_keys = settings.other_window_keys;
  identity.per_kv_head = settings.per_kv_head;
  identity.kv_types = names_of(settings.kv_types);
  identity.sinks = settings.sinks;
  identity.decode = settings.decode_name();
  identity.tail_rows = settings.tail_rows;
  identity.base = settings.base_name;
  identity.signals = settings.signals.name();
  if (!settings.rules.native.empty()) identity.native_window = settings.rules.native_window.keys;
  if (!settings.rules.windowed_ropes.empty()) identity.positions = kPositionsByType;
}

RunIdentity identity_of(const Inputs& inputs, kernels::Ops& ops, const std::string& checkpoint_sha256) {
  RunIdentity identity;
  identity.kind = inputs.kind;
  identity.checkpoint_sha256 = checkpoint_sha256;
  identity.data_sha256 = inputs.data_sets.front().corpus.sha256;
  take_settings(inputs.settings, identity);
  identity.residual_dtype = kernels::dtype_name(ops.device().residual_dtype());
  identity.compute_dtype = kernels::dtype_name(ops.device().activation_dtype());
  identity.backend = ops.device().name();
  identity.attention_path = ops.device().attention_path(inputs.config.heads);
  return identity;
}

}  // namespace winnow::run
