// Reads a sweep file, YAML, as it was written. cells.h makes its cells.
//
//   name: night
//   output: sweeps/night
//   models:
//     - {name: qwen3-4b, path: /models/Qwen3-4B, gpus_per_node: 4}
//   datasets:
//     - {name: long, data: "data/{model}/long.h5", controls: {short: "data/{model}/short.h5"}}
//   windows: [1024, 2048]
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "jobs/sweep/sweep_schema.h"

namespace winnow::sweep {

// Values by key as they were written, checked against settings_schema(): a scalar is a list of one.
using Assignments = std::map<std::string, std::vector<std::string>>;

// Place in the file, counted from 1.
struct SourceLocation {
  int line = 1;
  int column = 1;
};

struct SweepModel {
  std::string name;
  std::filesystem::path path;  // absolute
  Assignments resources;
  SourceLocation place;  // of path
};

struct SweepDataset {
  struct File {
    std::string name;     // of the control; "" for the calibration set
    std::string pattern;  // with {model}
    SourceLocation place;
  };
  std::string name;
  File data;
  std::vector<File> controls;
};

// Returns a path of the file for a model, absolute, with the model's name in place of {model}.
std::filesystem::path file_of_model(std::string path, const std::string& model, const std::filesystem::path& directory);

// Cells that fit every key; a key fits one of its values.
struct Selector {
  std::map<std::string, std::vector<std::string>> keys;
  SourceLocation place;

  bool matches(const std::map<std::string, std::string>& coordinates) const;
};

struct Override {
  Selector match;
  Assignments set;
};

// One way in which answers are decoded: a target of an engine, or a mode.
struct DecodeRule {
  std::string target;  // "": none
  std::string decode;  // "": what the target says
};

struct SweepFile {
  std::filesystem::path path;
  std::filesystem::path directory;  // absolute; relative paths begin here
  std::string name;
  std::filesystem::path output;  // absolute
  std::filesystem::path winnow;  // absolute; "": the running one
  std::vector<SweepModel> models;
  std::vector<SweepDataset> datasets;
  std::vector<int64_t> windows;
  std::vector<int64_t> sinks;
  SourceLocation sinks_place;
  std::vector<DecodeRule> rules;
  std::vector<uint64_t> seeds;
  Assignments settings;  // of all cells: measurement and default resources
  std::map<std::string, SourceLocation>
      setting_places;  // where each key of settings, models and overrides stands first
  std::vector<Selector> exclude;
  std::vector<Override> overrides;
  int max_parallel = 0;  // 0: no limit
};

// Reads what can be read and appends all that is wrong to `problems`; with any, the result is of no use but for finding
// more of them. `path`: of the file with that text; paths in it begin in its folder.
SweepFile parse_sweep_file(const std::filesystem::path& path, const std::string& text,
                           std::vector<Diagnostic>& problems);

// Thrown with all that is wrong with a sweep file; its message tells of the first.
class SweepFileError : public Error {
 public:
  SweepFileError(ExitCode code, std::vector<std::string> lines)
      : Error(code, lines.front() +
                        (lines.size() == 1 ? "" : " (and " + std::to_string(lines.size() - 1) + " more like this)")),
        lines_(std::move(lines)) {
    for (std::string& line : lines_) line = one_line(line);
  }
  const std::vector<std::string>& lines() const { return lines_; }  // "FILE:LINE:COLUMN: what; expected ..."

 private:
  std::vector<std::string> lines_;
};

// Throws SweepFileError with the problems, if any, in the order of the file: kNoInput where only inputs are missing,
// else kUsage.
void refuse_problems(const std::filesystem::path& path, std::vector<Diagnostic> problems);

}  // namespace winnow::sweep
