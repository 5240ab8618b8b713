// Plans the files by which a serving engine runs a selection. Pure functions; jobs/cli/commands/export.cc writes the
// files.
//
// An engine that would silently run something else than the selection is refused with the reason; for one that runs it
// under other window rules than it was measured with there is a warning. Sources: configuration_FAMILY.py and
// modeling_FAMILY.py of Transformers 5, vllm/model_executor/models of vLLM, the reference of TensorRT-LLM's
// KvCacheConfig, and Eval/settings_list of SWAA.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "results/evaluation/serving_cost.h"
#include "results/selection/selection.h"

namespace winnow::selection {

struct ExportOptions {
  std::string target;                  // hf, vllm, trtllm, swaa, json
  std::string model_path;              // checkpoint as the files are to name it
  std::string model_impl = "auto";     // vllm: auto, transformers, vllm
  std::optional<int64_t> max_seq_len;  // trtllm: longest sequence to serve; none: max_position_embeddings
};

struct ExportFile {
  std::string name;
  std::string text;
  bool is_program = false;
};

struct ExportPlan {
  std::string target;
  std::vector<ExportFile> files;                  // besides kExportRecord
  bool links_checkpoint = false;                  // the folder becomes a checkpoint: everything else of it is linked
  std::vector<evaluation::ServedWindow> windows;  // (n_layers), what the engine is asked for
  std::string command;                            // how to use it, one line, from within the folder
  std::vector<std::string> warnings;              // one line each
  // True if Transformers runs the result, so that it can be asked what it will really do.
  bool is_checked_in_transformers = false;
};

inline constexpr const char* kExportRecord = "winnow-export.json";
inline constexpr const char* kOverridesFile = "hf_overrides.json";

// Plans an export. `config` is the text of the checkpoint's config.json; `origin` names it in messages. Throws
// Error(kUsage) for options that make no sense, Error(kConfigMismatch) for a config.json of another model,
// Error(kBadData) for what the engine would not run as asked.
ExportPlan plan_export(const Selection& selection, const std::string& config, const std::string& origin,
                       const ExportOptions& options);

// Returns the text of kExportRecord: the selection, the windows, the warnings, the files.
std::string export_record(const ExportPlan& plan, const Selection& selection);

}  // namespace winnow::selection
