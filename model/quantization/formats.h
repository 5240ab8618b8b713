// The weight formats. Each is a file of this folder: which tensors a module has in it, their checks, and the values.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "kernels/tensor.h"
#include "model/quantization/parts.h"
#include "model/quantization/scheme.h"

namespace winnow::quantization {

struct Format {
  std::string_view name;    // in messages and results
  std::string_view codes;   // ending of the tensor that the weight's numbers are in, after the name of its module
  std::string_view values;  // ending of the tensor that they stand for
  // Endings of the others that the format has or may have; none of them is a tensor of a plain module.
  std::span<const std::string_view> companions;
  // Tensors that it has only where activations are quantised too: winnow reads past them.
  std::span<const std::string_view> activations;
  // The tensor of values. `weights` is what the configuration says, and then what the file has. Throws Error(kBadData)
  // naming tensor, expected and found.
  kernels::HostTensor (*open)(Parts& parts, Weights& weights);
};

extern const Format kFp8;
extern const Format kInt8;
extern const Format kMxfp4;        // of compressed-tensors
extern const Format kMxfp4Blocks;  // of gpt-oss
extern const Format kNvfp4ModelOpt;
extern const Format kNvfp4;  // of compressed-tensors
extern const Format kPackedInt;
extern const Format kAwq;
extern const Format kGptq;
extern const Format kBitsandbytes;

}  // namespace winnow::quantization
