// Parses safetensors with every bound checked: no byte of a file is trusted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "kernels/tensor.h"

namespace winnow::model {

// Parses one safetensors image of n tensors in O(n log n). Views point into `bytes`. Refuses what the format forbids: a
// header that is not JSON or has a key twice, unknown dtypes, offsets that do not match shape x dtype, overlap, holes,
// bytes that no tensor covers; and files of another kind, by its name. Throws Error(kBadData) naming `origin` and the
// tensor. This is the fuzz target.
std::map<std::string, kernels::HostTensor> parse_safetensors(std::span<const std::byte> bytes,
                                                             const std::string& origin);

}  // namespace winnow::model
