#include "model/quantization/combine.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "kernels/convert.h"
#include "model/quantization/formats.h"

namespace winnow::quantization {

namespace {

// Whether this tensor can only be of a module in that format; the ending of its name is cut off then.
bool is_of_format(const Format& format, const std::string& name, const kernels::HostTensor& tensor,
                  std::string* module) {
  const auto ends_with = [&](std::string_view ending) {
    if (!name.ends_with(ending)) return false;
    *module = name.substr(0, name.size() - ending.size());
    return true;
  };
  // A plain weight may have the name of the codes: it has another type.
  if (ends_with(format.codes)) return tensor.dtype == kernels::DType::kOther || format.codes != ".weight";
  for (const std::string_view ending : format.companions) {
    if (ends_with(ending)) return true;
  }
  return false;
}

// Scales of keys and values, as compressed-tensors, ModelOpt and older programs name them, go from the one to the
// other.
void take_cache_scales(Tensors& tensors, Tensors& scales) {
  constexpr std::string_view kEndings[] = {".k_scale",     ".v_scale",  ".k_zero_point",        ".v_zero_point",
                                           ".q_scale",     ".kv_scale", ".k_proj.output_scale", ".v_proj.output_scale",
                                           ".q_zero_point"};
  const auto is_one = [&](const auto& entry) {
    return std::ranges::any_of(kEndings, [&](std::string_view ending) { return entry.first.ends_with(ending); });
  };
  std::ranges::copy_if(tensors, std::inserter(scales, scales.end()), is_one);
  std::erase_if(tensors, is_one);
}

std::set<std::string> modules_of(const Format& format, const Tensors& stored) {
  std::set<std::string> modules;
  std::string module;
  for (const auto& [name, tensor] : stored) {
    if (is_of_format(format, name, tensor, &module)) modules.insert(module);
  }
  return modules;
}

void remove_parts(const Format& format, const std::string& module, Tensors& tensors) {
  tensors.erase(module + std::string(format.codes));
  for (const std::string_view ending : format.companions) tensors.erase(module + std::string(ending));
  for (const std::string_view ending : format.activations) tensors.erase(module + std::string(ending));
}

void open_module(Weights weights, const std::string& module, const Tensors& stored, Combined& combined) {
  const Format& format = *weights.format;
  const std::string name = module + std::string(format.values);
  Parts parts(stored, module, format.codes);
  try {
    kernels::HostTensor tensor = format.open(parts, weights);
    for (const std::string_view ending : format.activations) parts.find(ending);
    for (const std::string& used : parts.used()) combined.tensors.erase(used);
    combined.tensors.insert_or_assign(name, std::move(tensor));
    ++combined.counts[weights.description()];
  } catch (const Error& error) {
    remove_parts(format, module, combined.tensors);
    combined.faults.emplace(name, error.what());
  }
}

}  // namespace

Combined combine(const Scheme& scheme, Tensors stored) {
  Combined combined;
  combined.tensors = stored;
  std::set<const Format*> formats;
  for (const Scheme::Group& group : scheme.groups) formats.insert(group.weights.format);
  for (const Format* format : formats) {
    for (const std::string& module : modules_of(*format, stored)) {
      const Weights* weights = scheme.weights_of(module);
      if (weights != nullptr && weights->format != format) continue;
      if (weights != nullptr) {
        open_module(*weights, module, stored, combined);
        continue;
      }
      const kernels::HostTensor& part = stored.lower_bound(module)->second;
      combined.faults.emplace(module + std::string(format->values),
                              part.name + ": expected plain weights, as quantization_config lists " + quote(module) +
                                  " in " + scheme.ignored_key + " or in no group, found quantised ones");
      remove_parts(*format, module, combined.tensors);
    }
  }
  if (!scheme.cache_key.empty()) take_cache_scales(combined.tensors, combined.cache_scales);
  return combined;
}

std::vector<KvScales> read_kv_scales(const Tensors& cache_scales, int64_t n_layers) {
  struct Ending {
    std::string_view text;
    float KvScales::*scale;
  };
  constexpr Ending kEndings[] = {{".kv_scale", &KvScales::key},  {".kv_scale", &KvScales::value},
                                 {".k_scale", &KvScales::key},   {".k_proj.output_scale", &KvScales::key},
                                 {".v_scale", &KvScales::value}, {".v_proj.output_scale", &KvScales::value}};
  std::vector<KvScales> scales;
  for (const Ending& ending : kEndings) {
    for (int64_t layer = 0; layer < n_layers; ++layer) {
      const std::string of_layer = "model.layers." + std::to_string(layer) + ".";
      for (auto entry = cache_scales.lower_bound(of_layer);
           entry != cache_scales.end() && entry->first.starts_with(of_layer); ++entry) {
        if (!entry->first.ends_with(ending.text)) continue;
        if (entry->second.count() != 1) {
          fail(ExitCode::kBadData, entry->second.name +
                                       ": expected one scale for the keys or values of a layer, found " +
                                       std::to_string(entry->second.count()) + "; fp8 is measured with one alone");
        }
        scales.resize(static_cast<std::size_t>(n_layers));
        float value = 0.0F;
        kernels::read_float32(entry->second, 0, 1, &value);
        if (value > 0.0F) scales[static_cast<std::size_t>(layer)].*ending.scale = value;
      }
    }
  }
  return scales;
}

}  // namespace winnow::quantization
