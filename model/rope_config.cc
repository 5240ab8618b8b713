#include "model/rope_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/json.h"
#include "model/families.h"

namespace winnow::model {
namespace {

using Json = ConfigFields::Json;
using Type = RopeConfig::Type;

struct TypeName {
  Type type;
  const char* name;
};
constexpr std::array<TypeName, 7> kTypeNames = {{{Type::kDefault, "default"},
                                                 {Type::kLinear, "linear"},
                                                 {Type::kDynamic, "dynamic"},
                                                 {Type::kYarn, "yarn"},
                                                 {Type::kLongRope, "longrope"},
                                                 {Type::kLlama3, "llama3"},
                                                 {Type::kProportional, "proportional"}}};

// The table of the rotary embedding in config.json, and the fields beside it.
struct Source {
  const ConfigFields& fields;  // config.json's top level
  const ConfigFields& table;   // rope_scaling or rope_parameters, or what it has for a type of layer
  int64_t max_positions;

  double needed(const char* key, const char* type) const {
    if (!table.has(key)) table.refuse(key, std::string("a number > 0: rope type ") + type + " needs it");
    return table.positive(key, 0);
  }
  // Transformers lets the field at top level win, and falls back to max_position_embeddings.
  int64_t original_max_position() const {
    const char* key = "original_max_position_embeddings";
    return fields.has(key) ? fields.size(key, 0) : table.size(key, max_positions);
  }
  // Returns the factor, or how far the positions were stretched where there is none.
  double stretch(int64_t original) const {
    if (table.has("factor")) return table.positive("factor", 0);
    return static_cast<double>(max_positions) / static_cast<double>(original);
  }
};

void read_llama3(const Source& source, RopeConfig& rope) {
  rope.factor = source.needed("factor", "llama3");
  rope.low_freq_factor = source.needed("low_freq_factor", "llama3");
  rope.high_freq_factor = source.needed("high_freq_factor", "llama3");
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    source.table.refuse("high_freq_factor", "more than low_freq_factor");
  }
  rope.original_max_position = source.original_max_position();
}

// 0.1 m ln(s) + 1 for s > 1 (YaRN, arXiv 2309.00071, equation 22).
double yarn_scale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

void read_yarn(const Source& source, RopeConfig& rope) {
  const ConfigFields& table = source.table;
  rope.original_max_position = source.original_max_position();
  rope.factor = source.stretch(rope.original_max_position);
  rope.beta_fast = table.has("beta_fast") ? table.positive("beta_fast", 0) : rope.beta_fast;
  rope.beta_slow = table.has("beta_slow") ? table.positive("beta_slow", 0) : rope.beta_slow;
  rope.truncate = table.boolean("truncate", true);
  if (table.has("attention_factor")) {
    rope.attention_scaling = table.positive("attention_factor", 0);
  } else if (table.number("mscale", 0.0) != 0.0 && table.number("mscale_all_dim", 0.0) != 0.0) {
    rope.attention_scaling = yarn_scale(rope.factor, table.number("mscale", 0.0)) /
                             yarn_scale(rope.factor, table.number("mscale_all_dim", 0.0));
  } else {
    rope.attention_scaling = yarn_scale(rope.factor, 1.0);
  }
}

std::vector<double> read_factors(const ConfigFields& table, const char* key, int64_t n_pairs) {
  const std::string expected = "a list of " + std::to_string(n_pairs) + " numbers > 0, one for each pair that turns";
  const Json& list = table.value(key);
  if (!list.is_array() || list.size() != static_cast<std::size_t>(n_pairs)) table.refuse(key, expected);
  std::vector<double> factors;
  for (const Json& factor : list) {
    if (!factor.is_number() || !(factor.get<double>() > 0.0) || factor.get<double>() > 1e30)
      table.refuse(key, expected);
    factors.push_back(factor.get<double>());
  }
  return factors;
}

void read_longrope(const Source& source, int64_t rotary_dim, RopeConfig& rope) {
  const ConfigFields& table = source.table;
  rope.original_max_position = source.original_max_position();
  rope.short_factor = read_factors(table, "short_factor", rotary_dim / 2);
  rope.long_factor = read_factors(table, "long_factor", rotary_dim / 2);
  const double factor = source.stretch(rope.original_max_position);
  if (table.has("attention_factor")) {
    rope.attention_scaling = table.positive("attention_factor", 0);
  } else if (factor > 1.0) {
    rope.attention_scaling =
        std::sqrt(1.0 + std::log(factor) / std::log(static_cast<double>(rope.original_max_position)));
  }
}

// Hunyuan's "dynamic" with alpha stretches the base once and for all; without it the base follows the sequence.
void read_dynamic(const Source& source, int64_t rotary_dim, RopeConfig& rope) {
  if (source.table.has("alpha")) {
    const auto dim = static_cast<double>(rotary_dim);
    rope.type = Type::kDefault;
    rope.theta *= std::pow(source.table.positive("alpha", 0), dim / (dim - 2.0));
    return;
  }
  rope.factor = source.needed("factor", "dynamic");
  rope.original_max_position = source.max_positions;
}

Type read_type(const ConfigFields& table, const Family& family) {
  const char* key = table.has("rope_type") || !table.has("type") ? "rope_type" : "type";
  std::string name = table.has(key) ? table.text(key, "") : "default";
  // Phi-3's first configurations have other names of longrope.
  if (family.long_rope_aliases && (name == "su" || name == "yarn")) name = "longrope";
  std::string known;
  for (const TypeName& each : kTypeNames) {
    if (name == each.name) return each.type;
    known += (known.empty() ? "" : ", ") + std::string(each.name);
  }
  table.refuse(key, "one of " + known);
}

// The part of a head that turns. The table's own factor wins over that at top level.
int64_t read_rotary_dim(const Source& source, const Family& family, int64_t head_dim) {
  const char* key = "partial_rotary_factor";
  double share = family.defaults.partial_rotary;
  const ConfigFields& where = source.table.has(key) ? source.table : source.fields;
  if (where.has(key)) share = where.positive(key, 0);
  if (!source.table.has(key) && family.does_read("rotary_dim") && source.fields.has("rotary_dim")) {
    share = static_cast<double>(source.fields.size("rotary_dim", 0)) / static_cast<double>(head_dim);
  }
  if (share == 1.0) return head_dim;
  if (!family.does_read(key)) {
    where.refuse(key, "none: it changes the mathematics and a " + std::string(family.model_type) + " has no such part");
  }
  const auto rotary_dim = static_cast<int64_t>(static_cast<double>(head_dim) * share);
  if (share > 1.0 || rotary_dim < 2 || rotary_dim % 2 != 0) {
    where.refuse(key, "a share of the " + std::to_string(head_dim) + " dimensions of a head that is an even number");
  }
  return rotary_dim;
}

void read_query_scale(const Source& source, const Family& family, RopeConfig& rope) {
  const char* key = "llama_4_scaling_beta";
  if (!source.table.has(key)) return;
  if (!family.does_read(key)) {
    source.table.refuse(key, "none: it changes the mathematics and a " + std::string(family.model_type) +
                                 " does not scale its queries");
  }
  rope.query_beta = source.table.positive(key, 0);
  rope.original_max_position = source.original_max_position();
}

// The table of a type of layer: rope_parameters has one for each. The hub's rope_scaling is that of layers with full
// attention. `key` becomes the name of the table.
Json table_of_type(const ConfigFields& fields, const std::string& layer_type, bool is_hub, std::string& key) {
  if (is_hub && layer_type == "full_attention") return fields.value("rope_scaling");
  key = "rope_parameters";
  if (!fields.has("rope_parameters")) return Json::object();
  const Json& all = fields.value("rope_parameters");
  const ConfigFields tables(all, fields.origin(), "rope_parameters.");
  for (const auto& [name, value] : all.items()) {
    if (name == "full_attention" || name == "sliding_attention") continue;
    tables.refuse(name.c_str(), "tables for full_attention and sliding_attention alone");
  }
  key += "." + layer_type;
  if (!tables.has(layer_type.c_str())) return Json::object();
  if (!tables.value(layer_type.c_str()).is_object()) tables.refuse(layer_type.c_str(), "an object or null");
  return tables.value(layer_type.c_str());
}

}  // namespace

const char* rope_type_name(RopeConfig::Type type) {
  const auto found = std::ranges::find(kTypeNames, type, &TypeName::type);
  return found == kTypeNames.end() ? "none" : found->name;
}

RopeConfig read_rope(const ConfigFields& fields, const Family& family, int64_t head_dim, int64_t max_positions,
                     const std::string& layer_type) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (fields.has(key) && !fields.value(key).is_object()) fields.refuse(key, "an object or null");
  }
  const bool is_hub = fields.has("rope_scaling") && !fields.value("rope_scaling").empty();
  std::string key = is_hub ? "rope_scaling" : "rope_parameters";
  Json object = fields.has(key.c_str()) ? fields.value(key.c_str()) : Json::parse(family.defaults.rope);
  const bool is_local = layer_type == "sliding_attention";
  if (!layer_type.empty()) object = table_of_type(fields, layer_type, is_hub, key);
  const ConfigFields table(object, fields.origin(), key + ".");
  for (const auto& [name, value] : object.items()) {
    if (value.is_object()) table.refuse(name.c_str(), "no table of its own for a type of layer");
  }
  if (!family.does_read("mrope_section") && table.has("mrope_section") && !table.value("mrope_section").empty()) {
    table.refuse("mrope_section", "none: it changes the mathematics and winnow does not support it");
  }
  const Source source{fields, table, max_positions};

  RopeConfig rope;
  rope.type = read_type(table, family);
  const char* theta = is_local ? "rope_local_base_freq" : "rope_theta";
  rope.theta = is_local ? family.defaults.local_theta : family.defaults.theta;
  if (!is_local || family.does_read(theta)) rope.theta = fields.positive(theta, rope.theta);
  if (table.has("rope_theta")) rope.theta = table.positive("rope_theta", 0);
  rope.is_interleaved = family.interleaved_rope;
  const int64_t rotary_dim = read_rotary_dim(source, family, head_dim);
  rope.rotary_dim = rotary_dim == head_dim ? 0 : rotary_dim;
  if (rope.type == Type::kLinear) rope.factor = source.needed("factor", "linear");
  if (rope.type == Type::kProportional && table.has("factor")) rope.factor = table.positive("factor", 0);
  if (rope.type == Type::kLlama3) read_llama3(source, rope);
  if (rope.type == Type::kYarn) read_yarn(source, rope);
  if (rope.type == Type::kLongRope) read_longrope(source, rotary_dim, rope);
  if (rope.type == Type::kDynamic) read_dynamic(source, rotary_dim, rope);
  read_query_scale(source, family, rope);
  return rope;
}

}  // namespace winnow::model
