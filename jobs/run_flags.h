// Flags that all verbs that measure share, under the same names.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "kernels/error.h"
#include "pipeline/options.h"

namespace winnow {

// A check of CLI11 from a parser that throws: its message without the flag, which CLI11 puts before it.
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
void add_input_flags(CLI::App& verb, RunOptions& options, const std::string& data);
void add_limit_flag(CLI::App& verb, RunOptions& options);
// --window, --sinks, --decode, --target, --tail-rows.
void add_window_flags(CLI::App& verb, RunOptions& options);
void add_native_window_flag(CLI::App& verb, RunOptions& options);
void add_seed_flag(CLI::App& verb, RunOptions& options);
// --max-memory stays text until the verb runs.
void add_machine_flags(CLI::App& verb, RunOptions& options, std::string& max_memory);
void add_printing_flags(CLI::App& verb, RunOptions& options);

// What the flags leave open: memory, and what goes to provenance.
void complete_options(RunOptions& options, const std::string& max_memory);

}  // namespace winnow
