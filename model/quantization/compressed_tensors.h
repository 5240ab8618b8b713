// The quantization_config of compressed-tensors: groups of modules, each with how its weights are quantised; and that
// of ModelOpt, which writes the same groups beside the name of its algorithm.
#pragma once

#include "base/json.h"
#include "model/quantization/scheme.h"

namespace winnow::quantization {

// Read the quantization_config of their quant_method. Throw Error(kBadData) naming field, expected and found.
void read_compressed_tensors(const ConfigFields& fields, Scheme& scheme);
void read_modelopt(const ConfigFields& fields, Scheme& scheme);

}  // namespace winnow::quantization
