// Flags that all verbs that measure share, under the same names.
#pragma once

#include <string>

#include "base/error.h"
#include "jobs/cli/flags.h"
#include "pipeline/run/options.h"

namespace winnow::cli {

// A check of a flag from a parser that throws: its message without the flag, which stands before it anyway.
template <typename Parse>
auto refusal_of(const std::string& flag, Parse parse) {
  return [flag, parse](const std::string& text) {
    try {
      parse(text);
      return std::string();
    } catch (const Error& error) {
      const std::string message = error.what();
      const std::string prefix = flag + ": ";
      return message.rfind(prefix, 0) == 0 ? message.substr(prefix.size()) : message;
    }
  };
}

// --model, --data, --out; `data` says what the file is.
void add_input_flags(const Verb& verb, run::RunOptions& options, const std::string& data);
void add_limit_flag(const Verb& verb, run::RunOptions& options);
// --window, --sinks, --decode, --target, --tail-rows.
void add_window_flags(const Verb& verb, run::RunOptions& options);
void add_native_window_flag(const Verb& verb, run::RunOptions& options);
void add_seed_flag(const Verb& verb, run::RunOptions& options);
// --max-memory stays text until the verb runs.
void add_machine_flags(const Verb& verb, run::RunOptions& options, std::string& max_memory);
void add_printing_flags(const Verb& verb, run::RunOptions& options);

// What the flags leave open: memory, and what goes to provenance.
void complete_options(run::RunOptions& options, const std::string& max_memory);

}  // namespace winnow::cli
