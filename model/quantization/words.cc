#include "model/quantization/words.h"

#include <string>

#include "model/quantization/parts.h"

namespace winnow::quantization {

int64_t integer_at(const kernels::HostTensor& tensor, int64_t i) {
  if (tensor.dtype_name == "I64") {
    int64_t value = 0;
    std::memcpy(&value, tensor.data + i * static_cast<int64_t>(sizeof value), sizeof value);
    return value;
  }
  int32_t value = 0;
  std::memcpy(&value, tensor.data + i * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

std::vector<int32_t> read_groups(const kernels::HostTensor& tensor, int64_t n_cols, int64_t n_groups) {
  require_type(tensor, {"I32", "I64"});
  require_shape(tensor, {n_cols});
  std::vector<int32_t> groups(static_cast<std::size_t>(n_cols));
  for (int64_t i = 0; i < n_cols; ++i) {
    const int64_t group = integer_at(tensor, i);
    if (group < 0 || group >= n_groups) {
      refuse(tensor, "groups from 0 to " + std::to_string(n_groups - 1),
             std::to_string(group) + " for column " + std::to_string(i));
    }
    groups[static_cast<std::size_t>(i)] = static_cast<int32_t>(group);
  }
  return groups;
}

}  // namespace winnow::quantization
