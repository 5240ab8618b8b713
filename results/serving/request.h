// What an export is asked for, as the functions that plan it share it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json_values.h"
#include "results/evaluation/serving_cost.h"
#include "results/selection/selection.h"
#include "results/serving/engines.h"
#include "results/serving/model_shape.h"

namespace winnow::serving {

struct ExportOptions {
  std::string target;                  // of engines(), or json
  std::string model_path;              // checkpoint as the files are to name it
  std::string model_impl = "auto";     // vllm: auto, transformers, vllm, plugin; sglang: auto, transformers
  std::optional<int64_t> max_seq_len;  // longest sequence to serve, tokens; none: max_position_embeddings
  int64_t concurrency = 1;             // sequences of that length at a time
  std::string llama_cpp;               // llamacpp: a checkout of llama.cpp; "": none
};

// A checkpoint as its config.json describes it.
struct SourceModel {
  std::string config;  // text of config.json
  std::string origin;  // names it in messages
  // Reads the shape. It is called where an export needs it, since a family that winnow does not know has none. Throws
  // Error as model/config.h does.
  std::function<ModelShape()> shape;
};

struct Request {
  const selection::Selection& selection;
  const ExportOptions& options;
  const SourceModel& source;
  Json config = Json();
  std::string model_type = "";                         // of config.json; "": it names none
  const Engine* engine = nullptr;                      // nullptr: --target json
  std::vector<evaluation::ServedWindow> windows = {};  // (n_layers)

  // Throws Error(kBadData) saying that the target cannot have it, and why.
  [[noreturn]] void refuse(const std::string& why) const;
  std::string engine_title() const { return std::string(engine->title); }
  // Whether config.json has this field and it is true.
  bool is_true(const char* key) const;
  int64_t n_windowed() const;
  int64_t n_full() const { return static_cast<int64_t>(windows.size()) - n_windowed(); }
  bool has_several_windows() const;
  // Returns the keys of the windowed layers, for an engine that has one number for all of them; refuses several.
  int64_t one_window() const;
  // Returns the longest sequence to serve, tokens; refuses where neither the options nor config.json name one.
  int64_t max_seq_len() const;
  // Returns the type of keys and values that layers have besides the model's own; kStored where none has another.
  KvType kv_type() const;
  // Returns "full_attention" or "sliding_attention" for each layer; (n_layers).
  Json layer_types() const;
};

}  // namespace winnow::serving
