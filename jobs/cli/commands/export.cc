// winnow export: from a selection to files that a serving engine runs as asked, or a refusal.
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <system_error>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/output_path.h"
#include "base/strings.h"
#include "base/text_file.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/commands/export_weights.h"
#include "jobs/cli/commands/source_model.h"
#include "jobs/cli/external_verb.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/program_output.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/families.h"
#include "pipeline/run/inputs.h"
#include "results/serving/plan.h"

namespace winnow::commands {
namespace fs = std::filesystem;
namespace {

struct Options {
  std::string selection;
  std::string out;
  std::string model;  // "": the selection's
  bool patch_only = false;
  bool check = false;
  bool no_hash = false;
  serving::ExportOptions plan;
};

// A folder that is there whole under its name or not at all: filled beside it, then renamed.
class NewFolder {
 public:
  explicit NewFolder(const fs::path& path) : path_(path) {
    const fs::path parent = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
    const fs::path part = parent / new_temporary_name();
    if (mkdir(part.c_str(), 0777) != 0) {
      const bool is_full = errno == ENOSPC || errno == EDQUOT;
      fail(is_full ? ExitCode::kIoError : ExitCode::kCannotCreate,
           path_.string() + ": cannot be created: " + std::strerror(errno) +
               "; choose a folder whose parent exists and is writable");
    }
    part_ = part;
    // An empty folder that is there passes its permissions on.
    struct stat old {};
    if (stat(path_.c_str(), &old) == 0) chmod(part_.c_str(), old.st_mode & 0777);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    if (!part_.empty()) fs::remove_all(part_, ignored);
  }

  const fs::path& part() const { return part_; }
  // Runs `step`; what it throws names the folder as it is going to be.
  template <typename Step>
  void fill(const Step& step) const {
    try {
      step();
    } catch (const Error& error) {
      std::string message = error.what();
      if (const auto at = message.find(part_.string()); at != std::string::npos) {
        message.replace(at, part_.string().size(), path_.string());
      }
      fail(error.code(), message);
    }
  }
  void commit() {
    std::error_code error;
    fs::rename(part_, path_, error);
    if (error) fail(ExitCode::kCannotCreate, path_.string() + ": cannot be created: " + error.message());
    part_.clear();
  }

 private:
  fs::path path_;
  fs::path part_;
};

void write_plan(const serving::ExportPlan& plan, const selection::Selection& selection, const fs::path& folder) {
  const auto write = [&](const std::string& name, const std::string& text, FileUse use) {
    write_file_atomically(folder / name, text, use);
  };
  for (const serving::ExportFile& file : plan.files) {
    write(file.name, file.text, file.is_program ? FileUse::kProgram : FileUse::kData);
  }
  write(serving::kExportRecord, serving::export_record(plan, selection), FileUse::kData);
}

// Links to everything of the checkpoint that the folder does not have, less what is replaced and hidden files.
void link_checkpoint(const fs::path& model, const fs::path& folder, const std::set<std::string>& replaced) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(model)) {
    const fs::path name = entry.path().filename();
    const fs::path to = folder / name;
    if (name.string().starts_with('.') || name.extension() == ".part" || fs::exists(to)) continue;
    if (replaced.contains(name.string())) continue;
    fs::create_symlink(fs::absolute(entry.path()), to, error);
    if (error) fail(ExitCode::kCannotCreate, to.string() + ": cannot be linked: " + error.message());
  }
}

std::string window_name(const nlohmann::json& keys) { return keys.is_null() ? "full" : json_text(keys, -1); }

void print_requested(const serving::ExportPlan& plan, const std::string& why_no_more) {
  std::printf("layer  requested\n");
  for (std::size_t layer = 0; layer < plan.windows.size(); ++layer) {
    const evaluation::ServedWindow& window = plan.windows[layer];
    std::printf("%5zu  %9s\n", layer, window.is_windowed() ? std::to_string(window.keys).c_str() : "full");
  }
  std::printf("effective windows not checked: %s\n", one_line(why_no_more).c_str());
}

// What Transformers really does with the export, as a table; throws Error(kBadData) where it is something else.
void check_in_transformers(const serving::ExportPlan& plan, const fs::path& folder, const fs::path& model) {
  const char* path = std::getenv("PATH");
  const auto program =
      cli::find_external_verb("check-hf", sweep::own_executable().parent_path(), path == nullptr ? "" : path);
  if (!program) {
    print_requested(plan, "there is no program winnow-check-hf beside winnow or on PATH");
    return;
  }
  std::vector<std::string> words = {program->string()};
  if (const char* python = std::getenv("WINNOW_PYTHON"); python != nullptr && *python != '\0') {
    // As the program's first line: no module of the current folder or of PYTHONPATH is run.
    words.insert(words.begin(), {python, "-E", "-P"});
  }
  if (plan.links_checkpoint) {
    words.push_back(folder.string());
  } else {
    words.insert(words.end(), {model.string(), "--overrides", (folder / serving::kOverridesFile).string()});
  }
  const auto output = sweep::run_program(words);
  constexpr int kUnknownOption = 2;  // of an interpreter older than 3.11, which has no -P
  if (!output || output->exit_code == static_cast<int>(ExitCode::kUnavailable) || output->exit_code == kUnknownOption) {
    print_requested(plan, output ? output->words() : words.front() + " cannot be started");
    return;
  }
  if (output->exit_code != 0) {
    fail(ExitCode::kBadData, "Transformers does not load the export: " + output->words());
  }
  const nlohmann::json report = parse_json(output->out, program->string());
  std::printf("layer  requested  attention  cache   (Transformers %s)\n",
              one_line(report.at("transformers").get<std::string>()).c_str());
  std::string wrong;
  for (std::size_t layer = 0; layer < plan.windows.size(); ++layer) {
    const evaluation::ServedWindow& window = plan.windows[layer];
    const nlohmann::json requested = window.is_windowed() ? nlohmann::json(window.keys) : nlohmann::json();
    const nlohmann::json attention = report.at("attention").at(layer);
    const nlohmann::json cache = report.at("cache").at(layer);
    std::printf("%5zu  %9s  %9s  %5s\n", layer, window_name(requested).c_str(), window_name(attention).c_str(),
                window_name(cache).c_str());
    if (attention != requested || cache != requested) wrong += (wrong.empty() ? "" : ", ") + std::to_string(layer);
  }
  if (!wrong.empty()) fail(ExitCode::kBadData, "Transformers runs other windows than asked for in layers " + wrong);
  std::printf("All %zu layers are as asked for.\n", plan.windows.size());
}

// Makes the GGUF of a folder that llama.cpp's converter reads.
void convert_to_gguf(const fs::path& llama_cpp, const fs::path& folder) {
  const fs::path converter = llama_cpp / "convert_hf_to_gguf.py";
  if (!fs::exists(converter)) {
    fail(ExitCode::kNoInput, converter.string() + ": not there; give a checkout of llama.cpp with --llama-cpp DIR");
  }
  const char* python = std::getenv("WINNOW_PYTHON");
  const std::vector<std::string> words = {python != nullptr && *python != '\0' ? python : "python3", converter.string(),
                                          folder.string(), "--outfile", (folder / serving::kGgufFile).string()};
  const auto output = sweep::run_program(words);
  if (!output) fail(ExitCode::kUnavailable, words.front() + " cannot be started; name a Python in WINNOW_PYTHON");
  if (output->exit_code != 0) fail(ExitCode::kUnavailable, converter.string() + ": " + output->words());
}

// What windowed layers see: "2048", of a plan "512 or 2048".
std::string keys_seen(const selection::Selection& selection) {
  std::set<int64_t> sizes(selection.layer_windows.begin(), selection.layer_windows.end());
  sizes.erase(0);
  if (sizes.empty()) return std::to_string(selection.window_keys);
  return joined(std::vector(sizes.begin(), sizes.end()), " or ");
}

int run_export(const Options& options) {
  if (options.out.empty()) fail(ExitCode::kUsage, "--out is empty; name a new folder");
  const selection::Selection selection = selection::read_selection(options.selection);
  if (!selection.has_checksum) note_no_checksum(options.selection);
  const fs::path model = options.model.empty() ? fs::path(selection.model) : fs::path(options.model);
  const serving::SourceModel source = source_model(model);
  serving::ExportOptions wanted = options.plan;
  wanted.model_path = fs::absolute(model).lexically_normal().string();
  serving::ExportPlan plan = serving::plan_export(selection, source, wanted);
  if (!options.no_hash) {
    selection::check_selection_model(selection, options.selection,
                                     {selection.n_layers, run::hash_checkpoint(model::Checkpoint(model))});
  }
  if (options.patch_only) {
    if (plan.target != "hf") fail(ExitCode::kUsage, "--patch-only is for --target hf, not " + plan.target);
    if (options.check) fail(ExitCode::kUsage, "--check needs the whole export; leave out --patch-only");
    if (!plan.weights.is_none()) {
      fail(ExitCode::kUsage, "a " + plan.served_as + " needs further tensors; leave out --patch-only");
    }
    plan.links_checkpoint = false;
    std::erase_if(plan.files, [](const serving::ExportFile& file) { return file.name == "config.json"; });
    plan.command = "merge config_patch.json into the config.json of the checkpoint";
  }
  if (options.check && selection.is_of_heads()) {
    fail(ExitCode::kUsage, "--check asks Transformers for windows of layers, which a selection of key heads has not");
  }
  fs::path out = fs::path(options.out).lexically_normal();
  if (!out.has_filename()) out = out.parent_path();
  check_outputs({{.flag = "", .path = out, .kind = Output::Kind::kNewFolder}},
                {.files = {options.selection}, .checkpoints = {model}});
  NewFolder folder(out);
  folder.fill([&] {
    write_plan(plan, selection, folder.part());
    if (!plan.links_checkpoint) return;
    std::set<std::string> replaced;
    if (!plan.weights.is_none()) replaced = write_weights(model, folder.part(), plan.weights);
    link_checkpoint(model, folder.part(), replaced);
    if (!wanted.llama_cpp.empty()) convert_to_gguf(wanted.llama_cpp, folder.part());
  });
  if (options.check && plan.is_checked_in_transformers) check_in_transformers(plan, folder.part(), model);
  if (options.check && !plan.is_checked_in_transformers) {
    print_requested(plan, "only the engine itself can say, which winnow serve-check asks where it is installed");
  }
  folder.commit();
  for (const std::string& warning : plan.warnings) {
    std::fprintf(stderr, "winnow: warning: %s\n", one_line(warning).c_str());
  }
  const bool is_of_heads = selection.is_of_heads();
  const int64_t n_full = is_of_heads ? selection.n_full_heads() : selection.keep;
  const int64_t n_all = selection.n_layers * (is_of_heads ? selection.n_kv_heads : 1);
  std::printf("%s: %lld of %lld %s keep full attention, the others see %s keys. Use: %s\n",
              one_line(out.string()).c_str(), static_cast<long long>(n_full), static_cast<long long>(n_all),
              is_of_heads ? "key heads" : "layers", keys_seen(selection).c_str(), one_line(plan.command).c_str());
  if (plan.kv) std::printf("%s\n", serving::kv_line(plan).c_str());
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

Command add_export(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb =
      program.add_subcommand("export", "Writes a selection as a serving engine runs it, or says why it would not");
  verb.add_option("selection", options->selection, "Selection (winnow select --out)").required().type_name("FILE");
  verb.add_option("--target", options->plan.target,
                  "hf, vllm, sglang, llamacpp, mlx, trtllm, swaa or json; of key heads duoattention or lu-kv")
      .required()
      .type_name("TARGET");
  verb.add_option("--out", options->out, "New folder for the export").required().type_name("DIR");
  verb.add_option("--model", options->model, "Checkpoint (default: where the selection says it was)").type_name("DIR");
  verb.add_flag(
      "--check", options->check,
      "Print requested against effective windows of what Transformers loads; winnow serve-check asks the engine");
  verb.add_flag("--patch-only", options->patch_only,
                "hf: write the fields of config.json alone (default: a folder with the weights linked)");
  verb.add_option("--model-impl", options->plan.model_impl,
                  "vllm: auto, transformers, vllm or plugin; sglang: auto or transformers (default: auto, the one that "
                  "honours windows per layer)")
      .type_name("IMPL");
  verb.add_option("--max-seq-len", options->plan.max_seq_len,
                  "Longest sequence to serve, tokens (default: max_position_embeddings)")
      .type_name("N");
  verb.add_option("--concurrency", options->plan.concurrency,
                  "Sequences of that length at a time, for the memory that is printed (default: 1)")
      .type_name("N");
  verb.add_option("--llama-cpp", options->plan.llama_cpp,
                  "llamacpp: checkout of llama.cpp whose converter makes the GGUF now (default: none, convert.sh does)")
      .type_name("DIR");
  verb.add_flag("--no-hash", options->no_hash, "Do not compare the checkpoint with the one that was measured");
  verb.footer(
      "\nhf, sglang, llamacpp, mlx: a checkpoint folder, weights linked, where need be under the name of a family of "
      "the\n"
      "same mathematics that the engine gives windows. vllm: the same, or overrides. trtllm: the window of each "
      "layer.\n"
      "swaa: a settings list. json: the windows alone. All have winnow-export.json; those of servers have serve.sh.\n"
      "Of key heads (winnow select --per-kv-head): duoattention: its full_attention_heads.tsv and config.json.\n"
      "lu-kv: its array of budgets, which kvpress reads.\n"
      "\nExamples:\n  winnow export selection.json --target hf --out hybrid --check\n"
      "  winnow export selection.json --target llamacpp --llama-cpp ~/llama.cpp --out gguf\n");
  return {verb, [options] { return run_export(*options); }};
}

}  // namespace winnow::commands
