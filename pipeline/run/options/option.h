// An option of the verbs that measure: its name, value and meaning, and how its value becomes words of a command line
// and back. option_table.h lists the options.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "pipeline/run/options/options.h"

namespace winnow::run {

// Member that keeps an option. Its type is the option's: a bool is a switch, a vector an option that may be repeated.
using Field =
    std::variant<bool RunOptions::*, int RunOptions::*, int64_t RunOptions::*, std::optional<int64_t> RunOptions::*,
                 double RunOptions::*, std::string RunOptions::*, std::optional<std::string> RunOptions::*,
                 std::filesystem::path RunOptions::*, std::vector<std::string> RunOptions::*, Controls RunOptions::*>;

// Form of a value's text, where choices do not give it.
enum class Syntax {
  kAny,
  kSize,      // parse_bytes()
  kControl,   // parse_control()
  kLayers,    // selection::parse_layers()
  kBase,      // pattern_of_name()
  kPattern,   // selection::parse_pattern()
  kWords,     // choices, several with commas between them
  kWindows,   // parse_windows()
  kKvTypes,   // parse_kv_types()
  kFileName,  // a file that is written; in a sweep, its name in the run directory of each cell
};

// Part of a run that changes with an option.
enum class Part {
  kMeasurement,  // the figures of a cell: it is in the identity of the measurement (run.json)
  kExtent,       // which cells are measured, or what is kept of them
  kStatistics,   // what is computed of the cells
  kExecution,    // none of the figures
};

// Place of an option in a sweep file.
enum class SweepUse {
  kNever,     // the sweep says it itself, or it makes no sense there
  kAxis,      // a list; each value is a cell, or a result of a cell
  kSetting,   // one value at the top or in an override
  kResource,  // one value in a model, in defaults or in an override
};

// Return "calibrate", "search" or "evaluate", and the verb of such a word; none for another word.
const char* verb_name(Verb verb);
std::optional<Verb> find_verb(const std::string& name);
const std::vector<Verb>& all_verbs();

struct Option {
  std::string name = {};  // of the flag, without dashes
  Field field = {};
  std::vector<Verb> verbs = {};  // that take it; empty: all
  std::string group = {};        // heading of the help
  std::string value = {};        // word that stands for the value; empty: a switch
  std::string help = {};
  std::string absent = {};  // what holds where it is not given; empty: it is required, or has no default
  bool is_required = false;
  // Options that may stand in the place of a required one, where a verb takes them.
  std::vector<std::string> instead = {};
  std::string unit = {};  // "tokens"; empty: none
  std::vector<std::string> choices = {};
  std::optional<int64_t> minimum = {};
  std::optional<int64_t> maximum = {};
  Syntax syntax = Syntax::kAny;
  Part part = Part::kExecution;
  std::vector<std::string> identity = {};  // fields of run.json's identity that it decides; of kMeasurement alone
  SweepUse sweep = SweepUse::kSetting;
  std::string sweep_name = {};  // its key in a sweep file, where that is not key()

  bool takes(Verb verb) const;
  bool is_switch() const;
  bool is_repeated() const;
  bool is_integer() const;
  bool is_number() const;  // with a fraction
  // Returns the name with _ for -, or what sweep files call it.
  std::string key() const;
  // Returns the text of the help, with the default.
  std::string description() const;
};

// Returns the values of an option as a command line has them; none where it has its default. A switch that is on is
// "true".
std::vector<std::string> words_of(const Option& option, const RunOptions& options);
// Sets an option to such words. Throws Error(kUsage) or std::invalid_argument where they do not fit it.
void set_words(const Option& option, const std::vector<std::string>& words, RunOptions& options);
// Returns the flags for words_of(): "--limit=3", "--per-token". With = a value may begin with a dash.
std::vector<std::string> flags_of(const Option& option, const RunOptions& options);

// Throws Error(kUsage) for a value out of its range, or that is none of the choices.
void check_value(const Option& option, const RunOptions& options);

}  // namespace winnow::run
