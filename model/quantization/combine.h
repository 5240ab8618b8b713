// From the tensors of a file to those of the model.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/quantization/parts.h"
#include "model/quantization/scheme.h"

namespace winnow::quantization {

struct Combined {
  // By the names of an unquantised checkpoint: plain tensors as they lie in the file, quantised ones with the values
  // that they stand for, less what these are made of.
  Tensors tensors;
  // Why a tensor that would be among them is not, one line each.
  std::map<std::string, std::string> faults;
  // Scales of keys and values, as the file names them.
  Tensors cache_scales;
  // How many tensors are stored in each way: Weights::description().
  std::map<std::string, int64_t> counts;
};

// Reads all scales, no weights. What is wrong with one module is a fault and no error.
Combined combine(const Scheme& scheme, Tensors stored);

// Returns the scales of n_layers layers, 1 where there is none or none above 0, as vLLM takes them
// (BaseKVCacheMethod); empty where no layer has any. Throws Error(kBadData), naming the tensor, for several scales in
// place of one of a layer.
std::vector<KvScales> read_kv_scales(const Tensors& cache_scales, int64_t n_layers);

}  // namespace winnow::quantization
