// The table of serving engines: which family each of them runs with a window per layer, by which route, in which form,
// and what it really does then. Exports, their refusals and the tables of README.md follow from it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/kv_type.h"

namespace winnow::serving {

struct Engine {
  std::string_view name;     // as winnow-export.json has it
  std::string_view target;   // --target
  std::string_view title;    // in messages
  std::string_view version;  // that the table speaks of
  // Types of keys and values that it rounds as kernels/kv_rounding.h does, besides the model's own, and their names in
  // its own words, both with spaces between.
  std::string_view kv_types = {};
  std::string_view kv_words = {};
  bool mixes_kv_types = false;  // whether single layers may keep the model's own type beside one of these
};

// How an engine comes to give single layers a window.
enum class Route {
  kNative,        // its own model code does
  kTransformers,  // its backend that runs the model code of Transformers does
  kPlugin,        // winnow's plugin for it does
  kRelabelled,    // its own code of another family with the same mathematics does
};

// What the export says of the windows, and where.
enum class Form {
  kLayerTypes,       // layer_types and sliding_window in config.json, and what else the family needs for them
  kTopLevelRope,     // the same, and rope_theta and rope_scaling at the top, where the engine looks for them
  kExclusive,        // the same, for an engine that counts the keys before the row
  kLayerWindows,     // the same, and the keys of each layer, for windows of several sizes
  kMinistral,        // config.json of a Ministral
  kLlama,            // of a Llama, which may have biases
  kOlmo3,            // of an OLMo 3
  kMellum,           // of a Mellum; a dense model is one whose layers are all dense
  kOneExpertMellum,  // of a Mellum whose layers have one expert each, the MLP
  kGraniteSwa,       // of a Granite SWA whose learned sinks weigh nothing
  kList,             // a list of windows beside the checkpoint
  kSettings,         // a file of the engine's own
};

// What a row of the table rests on.
enum class Evidence {
  kRun,   // a model was run in the engine and compared
  kRead,  // the engine's source was read
};

// What a pattern or checkpoint must be like for the engine to run it, where it is not run otherwise.
struct Limits {
  int64_t period = 0;               // the engine itself has each so-many-th layer full; 0: any pattern will do
  bool needs_windowed = false;      // it fails where no layer has a window
  bool needs_full = false;          // it fails where all have one
  bool default_rope = false;        // scaled rotary embeddings are not kept
  bool usual_head_dim = false;      // heads are hidden / heads wide
  bool experts_in_all = false;      // layers without experts are not known
  bool normalised_experts = false;  // weights of the chosen experts are divided by their sum, whatever the model says
  bool no_attention_bias = false;
};

// Families that an engine serves alike.
struct EngineRow {
  std::string_view engine;    // Engine::name
  std::string_view families;  // model_type of config.json, words with spaces between; "*": any
  Route route = Route::kNative;
  Form form = Form::kLayerTypes;
  Evidence evidence = Evidence::kRead;
  std::string_view effect = {};  // what the engine does with it, for README.md
  Limits limits = {};

  bool serves(std::string_view family) const;
};

std::span<const Engine> engines();
// Returns the engine of a --target; nullptr: the target is none.
const Engine* find_engine(std::string_view target);
// Returns why the engine does not keep keys and values in these types, (n_layers) or empty; "": it does.
std::string kv_obstacle(const Engine& engine, std::span<const KvType> kv);
// Returns the engine's own word for a type that it has.
std::string_view kv_word(const Engine& engine, KvType type);
// Returns the rows of the table, of each engine the preferred first.
std::span<const EngineRow> engine_rows();
// Returns the rows of an engine for a family, the preferred first.
std::vector<const EngineRow*> rows_of(const Engine& engine, std::string_view family);

// Returns its name in winnow-export.json and in README.md.
std::string_view route_name(Route route);
// Returns the families of an engine by any route, "a, b and c".
std::string families_of(const Engine& engine);
// Returns the rows of README.md's table, one line each.
std::vector<std::string> engines_table();

}  // namespace winnow::serving
