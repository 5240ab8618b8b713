// Plans the files by which a serving engine runs a selection. Pure functions; jobs/cli/commands/export.cc writes the
// files.
//
// An engine that would silently run something else than the selection is refused with the reason; for one that runs it
// under other window rules than it was measured with there is a warning.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "results/evaluation/serving_cost.h"
#include "results/selection/selection.h"
#include "results/serving/engines.h"
#include "results/serving/forms.h"
#include "results/serving/kv_allocation.h"
#include "results/serving/request.h"

namespace winnow::serving {

struct ExportFile {
  std::string name;
  std::string text;
  bool is_program = false;
};

struct ExportPlan {
  std::string target;
  std::string engine;                             // Engine::name; "": --target json
  std::optional<Route> route;                     // none: --target json
  std::string served_as;                          // model_type that the engine is given
  std::string source;                             // checkpoint, as ExportOptions::model_path
  std::vector<ExportFile> files;                  // besides kExportRecord and the weights
  bool links_checkpoint = false;                  // the folder becomes a checkpoint: everything else of it is linked
  WeightChanges weights;                          // of a checkpoint that is linked
  std::vector<evaluation::ServedWindow> windows;  // (n_layers), what the engine is asked for
  std::string command;                            // how to use it, one line, from within the folder
  std::vector<std::string> warnings;              // one line each
  // Memory for keys and values of that many sequences of that length; none: --target json.
  std::optional<KvAllocation> kv;
  KvDemand demand;
  // True if Transformers runs the result, so that it can be asked what it will really do.
  bool is_checked_in_transformers = false;
};

inline constexpr const char* kExportRecord = "winnow-export.json";
inline constexpr const char* kGgufFile = "model.gguf";
inline constexpr const char* kOverridesFile = "hf_overrides.json";

// Plans an export. Throws Error(kUsage) for options that make no sense, Error(kConfigMismatch) for a config.json of
// another model, Error(kBadData) for what the engine would not run as asked.
ExportPlan plan_export(const selection::Selection& selection, const SourceModel& source, const ExportOptions& options);

// Returns one line on the memory for keys and values; "": --target json.
std::string kv_line(const ExportPlan& plan);

// Returns the text of kExportRecord: the selection, the windows, the warnings, the files.
std::string export_record(const ExportPlan& plan, const selection::Selection& selection);

}  // namespace winnow::serving
