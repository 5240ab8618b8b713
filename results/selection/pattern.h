// Reads and writes patterns of layers as a command line names them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/kv_type.h"
#include "base/pattern.h"
#include "results/selection/selection.h"

namespace winnow::selection {

// Returns the pattern that is windowed except in these layers; (n_layers).
Pattern pattern_with_full(const std::vector<int64_t>& full_layers, int64_t n_layers);

// Return the one name of a pattern, "full", "windowed" or "list:1,4" with the layers that keep full attention, and the
// pattern of a name. pattern_of_name takes any list of layers, throws Error(kUsage), and names `flag` in messages.
std::string pattern_name(const Pattern& pattern);
Pattern pattern_of_name(const std::string& name, int64_t n_layers, const std::string& flag);

// What single layers see, and the types in which they keep keys and values.
struct LayerNames {
  std::vector<int64_t> windows;  // (n_layers), keys, 0: full attention
  std::vector<KvType> kv;        // (n_layers); empty: all as computed
};
// Return the one name of windows and types that differ between layers, "windows:64,full@fp8,16" with the keys of each
// layer, and what a name says. `kv` may be empty. layers_of_name throws Error(kUsage) for what is no such name of a
// model of so many layers.
std::string windows_name(const std::vector<int64_t>& windows, const std::vector<KvType>& kv = {});
bool is_windows_name(const std::string& name);
LayerNames layers_of_name(const std::string& name, int64_t n_layers);

// Return the one name of the key heads that keep full attention, "heads:10,11,00" with a digit for each head of each
// layer, 1 where it does, and the heads of a name; both (n_layers * n_kv_heads), true where a head is windowed.
// heads_of_name throws Error(kUsage) for what is no such name of a model of that shape.
std::string heads_name(const std::vector<bool>& windowed_heads, int64_t n_layers);
bool is_heads_name(const std::string& name);
std::vector<bool> heads_of_name(const std::string& name, int64_t n_layers, int64_t n_kv_heads);
// Returns the layers in which a head is windowed; (n_layers).
Pattern windowed_layers(const std::vector<bool>& windowed_heads, int64_t n_layers);

// A pattern as the command line names it.
struct NamedPattern {
  std::string name;                    // canonical; of a file METHOD:K ("nll:3"), which two files may share
  Pattern windowed;                    // (n_layers)
  std::vector<int64_t> full_layers;    // those that keep full attention, rising
  std::vector<int64_t> windows;        // (n_layers), of a plan: keys of each layer, 0: full; else empty
  std::vector<KvType> kv;              // (n_layers), types of keys and values; empty: all as computed
  std::vector<bool> windowed_heads{};  // (n_layers * n_kv_heads), of a plan of heads; else empty
  std::optional<Selection> selection;  // of a file
};

// Parses full | windowed | periodic:K[@O] (layers i with i mod K = O, 0 unless given) | first:K | last:K |
// random:[SEED:]K (K layers, drawn; seed 0 unless given) | list:1,4,5-7 | FILE.json (a selection). All but the second
// name the layers that keep full attention. @TYPE behind any of them (full@fp8, FILE.json@int8) says in which type all
// layers keep their keys and values; a plan that has types of its own takes none. `flag` names the flag in messages.
// Throws Error(kUsage) for what is not a pattern of that model, Error(kNoInput | kBadData) for a bad file,
// Error(kConfigMismatch) for a selection that was made for another model.
NamedPattern parse_pattern(const std::string& text, const PatternModel& model, const std::string& flag);

// Parses "0-11,20" into ascending unique layer indices below n_layers. `flag` names the flag in messages. Throws
// Error(kUsage).
std::vector<int64_t> parse_layers(const std::string& text, int64_t n_layers, const std::string& flag);

// Returns `keep` distinct layers of n_layers, drawn from `seed`, rising: the same on every machine.
std::vector<int64_t> random_layers(uint64_t seed, int64_t keep, int64_t n_layers);
// Returns the layers i with i mod period = offset, rising.
std::vector<int64_t> periodic_layers(int64_t period, int64_t offset, int64_t n_layers);

}  // namespace winnow::selection
