// Values for every option, and commands that take them, for tests that walk the table of options.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "pipeline/run/options/option_table.h"

namespace winnow::run {

// Two values of each option, as a command line has them, none of them the default.
inline const std::map<std::string, std::vector<std::string>>& other_values() {
  static const std::map<std::string, std::vector<std::string>> kValues = {
      {"model", {"/models/a", "/models/b"}},
      {"data", {"/data/a.h5", "/data/b.h5"}},
      {"out", {"/runs/a", "/runs/b"}},
      {"control", {"short=/data/c.h5", "middle=/data/d.h5"}},
      {"limit", {"3", "4"}},
      {"method", {"greedy-forward", "greedy-backward"}},
      {"keep", {"2", "0"}},
      {"objective", {"kl", "exact-match"}},
      {"beam", {"2", "3"}},
      {"exact", {"true"}},
      {"verify", {"2", "0"}},
      {"verify-examples", {"1", "2"}},
      {"from", {"/runs/c", "/runs/d"}},
      {"budget", {"25%", "1G@64"}},
      {"engine", {"vllm", "trtllm"}},
      {"concurrency", {"2", "3"}},
      {"max-seq-len", {"512", "513"}},
      {"steps", {"0", "2"}},
      {"window", {"64", "65"}},
      {"windows", {"16,64", "8,16"}},
      {"kv", {"fp8,int8", "int4"}},
      {"sinks", {"2", "3"}},
      {"decode", {"full", "windowed"}},
      {"target", {"swaa-vllm", "swaa-hf"}},
      {"tail-rows", {"7", "8"}},
      {"layers", {"0-1", "2"}},
      {"base", {"windowed", "list:0,2"}},
      {"per-kv-head", {"true"}},
      {"per-token", {"true"}},
      {"pattern", {"windowed", "periodic:2@0"}},
      {"ignore-native-window", {"true"}},
      {"signals", {"kl,mass", "all"}},
      {"sensitivity", {"full", "tail"}},
      {"lazy-sinks", {"1", "2"}},
      {"lazy-recent", {"9", "10"}},
      {"lazy-last", {"11", "12"}},
      {"top-k", {"1", "2"}},
      {"until", {"95%", "90%"}},
      {"until-budgets", {"1,2", "1"}},
      {"until-tolerance", {"2%", "0.01"}},
      {"baseline", {"windowed", "periodic:2@0"}},
      {"margin", {"1%", "0.01"}},
      {"seed", {"5", "6"}},
      {"generate", {"7", "8"}},
      {"stop-tokens", {"1,2", "none"}},
      {"responses", {"texts.jsonl", "other.jsonl"}},
      {"device", {"cpu", "cuda"}},
      {"residual", {"fp32"}},
      {"attention", {"own", "cudnn"}},
      {"threads", {"2", "3"}},
      {"max-memory", {"2G", "3G"}},
      {"stream", {"on", "off"}},
      {"grace", {"1.5", "30"}},
      {"share-gpu", {"true"}},
      {"profile", {"true"}},
      {"dry-run", {"true"}},
      {"json", {"true"}},
  };
  return kValues;
}

// A command that the verb takes, with what the option needs beside it.
inline RunOptions command_with(Verb verb, const std::string& option) {
  RunOptions options;
  options.verb = verb;
  options.model = "model";
  options.data = "data.h5";
  options.out = "run";
  options.window = 16;
  if (verb == Verb::kSearch) options.method = "greedy-forward", options.keep = 1;
  if (verb == Verb::kEvaluate) options.patterns = {"first:1"};
  if (option == "sensitivity" || option.starts_with("lazy")) options.signals = "all";
  if (option == "exact" && verb == Verb::kCalibrate) options.per_kv_head = true;
  if (option.starts_with("until-")) options.until = "95%";
  if (option == "verify-examples") options.verify = 3;
  if (option == "stop-tokens" || option == "responses") options.generate = 4;
  return options;
}

}  // namespace winnow::run
