// Steps of the readers of a quantization_config, of which there is one for each quant_method.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/json.h"
#include "model/quantization/scheme.h"

namespace winnow::quantization {

// Throws Error(kBadData) unless the field is absent, null, false or empty: it changes what the model computes.
void require_absent(const ConfigFields& fields, std::initializer_list<const char*> keys);
// Throws Error(kBadData) unless the field is absent or one of these.
void require_text(const ConfigFields& fields, const char* key, std::initializer_list<const char*> allowed);
// Reads the list of modules that are plain, under the first of its names that is there.
void read_ignored(const ConfigFields& fields, Scheme& scheme, std::initializer_list<const char*> keys, ModuleRule rule);
// Reads a size of groups: -1 or null stands for all columns.
int64_t read_group_size(const ConfigFields& fields, int64_t fallback);

}  // namespace winnow::quantization
