// winnow inspect: what is in a checkpoint, a calibration file, a run directory, a results file or a selection, in a few
// lines.
#include <spdlog/fmt/fmt.h>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "jobs/cli/commands/commands.h"
#include "model/checkpoint.h"
#include "model/checkpoint_check.h"
#include "model/config.h"
#include "model/families.h"
#include "model/safetensors.h"
#include "pipeline/run/corpus.h"
#include "pipeline/run/run_identity.h"
#include "pipeline/run/unit_store.h"
#include "results/calibration/store.h"
#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"
#include "results/evaluation/table.h"
#include "results/search/results.h"
#include "results/search/store.h"
#include "results/search/table.h"
#include "results/selection/selection.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"

namespace winnow::commands {
namespace fs = std::filesystem;
namespace {

// Names and values in the order in which they are printed.
using Facts = nlohmann::ordered_json;

constexpr std::size_t kMostFaults = 20;  // that are shown

struct Options {
  std::string path;
  bool json = false;
};

std::string rope_name(const model::RopeConfig& rope) {
  return fmt::format("{}, theta {:g}, factor {:g}", model::rope_type_name(rope.type), rope.theta, rope.factor);
}

Facts inspect_checkpoint(const fs::path& directory, model::CheckpointFaults& faults) {
  const model::ModelConfig config = model::read_config(directory);
  const model::Checkpoint checkpoint(directory, config.quantization, config.family);
  const kernels::DType dtype =
      config.checkpoint_dtype == kernels::DType::kOther ? checkpoint.dtype() : config.checkpoint_dtype;
  int64_t n_parameters = 0;
  std::map<std::string, int64_t> dtypes;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    n_parameters += tensor.count();
    ++dtypes[tensor.values ? "quantised" : kernels::dtype_name(tensor.dtype)];
  }
  Facts facts = {{"kind", "checkpoint"},
                 {"family", config.model_type},
                 {"layers", config.n_layers},
                 {"hidden", config.hidden},
                 {"heads", config.heads.n_heads},
                 {"kv_heads", config.heads.n_kv_heads},
                 {"head_dim", config.heads.head_dim},
                 {"ffn", config.ffn},
                 {"vocabulary", config.vocab},
                 {"tied_embeddings", config.tied_embeddings},
                 {"rope", rope_name(config.ropes.front())},
                 {"max_positions", config.max_positions},
                 {"dtype", kernels::dtype_name(dtype)},
                 {"files", checkpoint.files().size()},
                 {"size_bytes", checkpoint.size_bytes()},
                 {"tensors", checkpoint.tensors().size()},
                 {"parameters", n_parameters},
                 {"tensor_dtypes", dtypes}};
  if (config.experts) {
    const auto n_layers = std::count(config.experts.layers.begin(), config.experts.layers.end(), true);
    facts["experts"] = {{"layers", n_layers},
                        {"of_a_layer", config.experts.router.n_experts},
                        {"of_a_token", config.experts.router.top_k},
                        {"ffn", config.experts.ffn},
                        {"shared_ffn", config.experts.shared_ffn}};
  }
  if (const int64_t n = model::count_mtp_tensors(config, checkpoint); n > 0) facts["mtp_tensors_left_out"] = n;
  if (!config.quantization.empty()) {
    facts["quantization"] = {{"method", config.quantization.method},
                             {"tensors", checkpoint.weight_formats()},
                             {"computed_as", "bf16 on a GPU, fp32 on the CPU"}};
    const std::string& cache_key = config.quantization.cache_key;
    if (!cache_key.empty()) facts["quantization"]["keys_and_values"] = "not quantised, " + cache_key + " is left out";
  }
  if (config.native_window) {
    const auto windowed = std::count(config.native_window_layers.begin(), config.native_window_layers.end(), true);
    facts["native_window"] = *config.native_window;
    facts["native_window_layers"] = windowed;
  }
  const std::string_view sink_logits = config.family->names.sink_logits;
  if (!sink_logits.empty()) facts["attention_sinks"] = fmt::format("a logit per head, {}", sink_logits);
  faults = model::find_faults(config, checkpoint, kMostFaults);
  if (faults.count > 0) facts["faults"] = {{"count", faults.count}, {"first", faults.lines}};
  return facts;
}

// Smallest, middle and largest of a list that is not empty.
Facts spread(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return {{"least", values.front()}, {"median", values[values.size() / 2]}, {"most", values.back()}};
}

Facts inspect_calibration(const fs::path& path) {
  // Without a model every token id is possible.
  const run::Corpus corpus = run::read_corpus(path, std::numeric_limits<int32_t>::max());
  std::vector<int64_t> prompt_tokens;
  std::vector<int64_t> answer_tokens;
  for (int64_t e = 0; e < corpus.size(); ++e) {
    const auto start = corpus.answer_start[static_cast<std::size_t>(e)];
    prompt_tokens.push_back(start);
    answer_tokens.push_back(static_cast<int64_t>(corpus.example(e).size()) - start);
  }
  const auto counts = [](const std::vector<std::string>& values) {
    std::map<std::string, int64_t> found;
    for (const std::string& value : values) ++found[value];
    return found;
  };
  Facts facts = {{"kind", "calibration file"},
                 {"examples", corpus.size()},
                 {"tokens", corpus.tokens.size()},
                 {"prompt_tokens", spread(prompt_tokens)},
                 {"answer_tokens", spread(answer_tokens)},
                 {"largest_token_id", *std::max_element(corpus.tokens.begin(), corpus.tokens.end())},
                 {"sha256", corpus.sha256}};
  if (!corpus.source.empty()) facts["sources"] = counts(corpus.source);
  if (!corpus.task.empty()) {
    facts["tasks"] = counts(corpus.task);
    facts["metrics"] = counts(corpus.metric);
    facts["length_bins"] = counts(corpus.length_bin);
  }
  return facts;
}

Facts provenance_of(const storage::Provenance& entries) {
  Facts provenance = Facts::object();
  for (const storage::ProvenanceEntry& entry : entries.entries()) {
    if (entry.name == "run_json") continue;  // a text of many lines, shown by `winnow inspect RUN_DIR`
    std::visit([&](const auto& value) { provenance[entry.name] = value; }, entry.value);
  }
  return provenance;
}

Facts inspect_evaluation(const fs::path& path) {
  const evaluation::EvaluationResults results = evaluation::read_evaluation(path);
  const evaluation::EvaluationTable& table = results.table;
  Facts patterns = Facts::object();
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    std::vector<int64_t> layers;
    for (int64_t l = 0; l < table.n_layers(); ++l) {
      if (table.full_attention(p, l) != 0) layers.push_back(l);
    }
    patterns[table.pattern[static_cast<std::size_t>(p)]] = layers;
  }
  return {{"kind", "evaluation"},       {"examples", table.n_examples()},
          {"layers", table.n_layers()}, {"baseline", results.statistics.options.baseline},
          {"full_attention", patterns}, {"provenance", provenance_of(results.provenance)}};
}

Facts inspect_search(const fs::path& path) {
  storage::Provenance provenance;
  Facts searches = Facts::object();
  for (const search::FoundPatterns& found : search::read_found(path, provenance)) {
    Facts best = Facts::object();
    for (const std::vector<int64_t>& layers : found.full_layers) best[std::to_string(layers.size())] = layers;
    searches[found.method] = {{"objective", found.objective}, {"patterns", found.n_patterns}};
    if (!best.empty()) searches[found.method]["full_attention"] = best;
  }
  return {{"kind", "search"}, {"searches", searches}, {"provenance", provenance_of(provenance)}};
}

Facts inspect_results(const fs::path& path) {
  if (evaluation::is_evaluation(path)) return inspect_evaluation(path);
  if (search::is_search(path)) return inspect_search(path);
  const calibration::Results results = calibration::read_results(path);
  const calibration::Ranking& ranking = results.statistics.ranking;
  std::vector<int64_t> kept;
  const auto top_k = static_cast<std::size_t>(results.statistics.options.top_k);
  for (const int64_t column : ranking.order()) {
    if (kept.size() < top_k) kept.push_back(ranking.layer[static_cast<std::size_t>(column)]);
  }
  std::sort(kept.begin(), kept.end());
  std::vector<std::string> controls;
  for (const auto& [name, measurement] : results.controls) controls.push_back(name);
  return {{"kind", "results"},
          {"examples", results.calibration.n_examples()},
          {"layers", results.calibration.n_layers()},
          {"controls", controls},
          {"per_token", results.calibration.token_nll.rows > 0},
          {"signals", results.provenance.text("signals")},
          {"top_k", results.statistics.options.top_k},
          {"layers_to_keep", kept},
          {"provenance", provenance_of(results.provenance)}};
}

Facts inspect_run(const fs::path& directory) {
  const auto run = parse_ordered_json(run::RunRecord::read(directory).text(), (directory / "run.json").string());
  std::error_code ignored;
  Facts facts = {{"kind", "run directory"},
                 {"finished_units", run::UnitStore::shards(directory).files().size()},
                 {"has_results", fs::exists(directory / "results.h5", ignored)},
                 {"has_lock", fs::exists(directory / "lock", ignored)}};
  facts.update(run);
  return facts;
}

Facts inspect_hdf5(const fs::path& path) {
  const std::string format = storage::File::open(path).root().string_attribute(".", "format").value_or("");
  if (format == "winnow-calibration") return inspect_calibration(path);
  if (format == storage::kResultsFormat) return inspect_results(path);
  fail(ExitCode::kBadData, path.string() + ": attribute format: expected winnow-calibration or " +
                               storage::kResultsFormat + ", found " + (format.empty() ? "none" : "'" + format + "'"));
}

Facts inspect_selection(const fs::path& path) {
  Facts facts = {{"kind", "selection"}};
  const selection::Selection selection = selection::read_selection(path);
  facts.update(Facts::parse(to_json(selection)));
  if (!selection.has_checksum) {
    note_no_checksum(path);
    facts.erase(kChecksumKey);
  }
  return facts;
}

Facts inspect(const fs::path& path, model::CheckpointFaults& faults) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    fail(ExitCode::kNoInput, path.string() + ": " + (error ? error.message() : "No such file or directory"));
  }
  if (!fs::is_directory(status)) return path.extension() == ".json" ? inspect_selection(path) : inspect_hdf5(path);
  if (fs::exists(path / "run.json", error)) return inspect_run(path);
  if (fs::exists(path / "config.json", error)) return inspect_checkpoint(path, faults);
  if (fs::exists(path / "results.h5", error)) return inspect_results(path / "results.h5");
  fail(ExitCode::kBadData, path.string() + ": expected a checkpoint (config.json) or a run directory (run.json)");
}

void print_facts(const Facts& facts, int depth) {
  for (const auto& [name, value] : facts.items()) {
    const int indent = 2 * depth;
    const std::string label = one_line(name);
    if (value.is_object() && !value.empty()) {
      std::printf("%*s%s\n", indent, "", label.c_str());
      print_facts(value, depth + 1);
      continue;
    }
    const auto print = [&](const std::string& head, const Facts& fact) {
      const std::string text = fact.is_string() ? fact.get<std::string>() : json_text(fact, -1);
      std::printf("%*s%-*s %s\n", indent, "", std::max(1, 24 - indent), head.c_str(), one_line(text).c_str());
    };
    const bool are_sentences = name == "first" && value.is_array();  // a line for each
    if (!are_sentences) print(label, value);
    for (std::size_t i = 0; are_sentences && i < value.size(); ++i) print(i == 0 ? label : "", value[i]);
  }
}

int run_inspect(const Options& options) {
  model::CheckpointFaults faults;
  const Facts facts = inspect(options.path, faults);
  if (options.json) {
    std::printf("%s\n", json_text(facts, 2).c_str());
  } else {
    print_facts(facts, 0);
  }
  if (faults.count > 0) {
    fail(ExitCode::kBadData,
         faults.lines.front() + " (" + std::to_string(faults.count) + " fault(s) in this checkpoint)");
  }
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

Command add_inspect(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb = program.add_subcommand(
      "inspect", "Says what is in a checkpoint, a calibration file, a run directory, a results file or a selection");
  verb.add_option("path", options->path, "Checkpoint or run directory; calibration, results or selection file")
      .required()
      .type_name("PATH");
  verb.add_flag("--json", options->json, "Print JSON instead of lines (default: lines)");
  verb.footer(
      "\nSizes are in bytes, lengths in tokens. A checkpoint that lacks a tensor of its model, or has another, is "
      "shown with\n"
      "its faults; the exit code is then 65.\n\nExamples:\n"
      "  winnow inspect /models/Qwen3-4B\n  winnow inspect run/results.h5 --json\n");
  return {verb, [options] { return run_inspect(*options); }};
}

}  // namespace winnow::commands
