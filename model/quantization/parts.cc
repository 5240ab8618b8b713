#include "model/quantization/parts.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace winnow::quantization {

const kernels::HostTensor* Parts::find(std::string_view ending) {
  const auto found = tensors_.find(module_ + std::string(ending));
  if (found == tensors_.end()) return nullptr;
  used_.insert(found->first);
  return &found->second;
}

const kernels::HostTensor& Parts::need(std::string_view ending) { return need_one(ending, ending); }

const kernels::HostTensor& Parts::need_one(std::string_view ending, std::string_view other) {
  const kernels::HostTensor* first = find(ending);
  const kernels::HostTensor* second = other == ending ? nullptr : find(other);
  if (first != nullptr && second != nullptr) refuse(*second, "one of both scales", "one beside " + first->name);
  if (first != nullptr) return *first;
  if (second != nullptr) return *second;
  // Named after a tensor of the module that is there: its file is where the missing one should be.
  const auto beside = tensors_.lower_bound(module_);
  const std::string where = tensors_.contains(module_ + std::string(codes_))
                                ? tensors_.at(module_ + std::string(codes_)).name
                                : beside->second.name;
  fail(ExitCode::kBadData, where + ": expected tensor " + quote(module_ + std::string(ending)) +
                               " beside it, found none: the weights of " + quote(module_) + " cannot be computed");
}

void refuse(const kernels::HostTensor& tensor, const std::string& expected, const std::string& found) {
  fail(ExitCode::kBadData, tensor.name + ": expected " + expected + ", found " + found);
}

void require_type(const kernels::HostTensor& tensor, const std::vector<std::string_view>& types) {
  if (std::ranges::find(types, tensor.dtype_name) != types.end()) return;
  std::string expected;
  for (std::size_t i = 0; i < types.size(); ++i) {
    expected += (i == 0 ? "" : i + 1 == types.size() ? " or " : ", ") + std::string(types[i]);
  }
  refuse(tensor, "dtype " + expected, tensor.dtype_name);
}

void require_shape(const kernels::HostTensor& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape != shape) refuse(tensor, "shape " + shape_text(shape), shape_text(tensor.shape));
}

void require_matrix(const kernels::HostTensor& tensor) {
  const bool is_matrix = tensor.shape.size() == 2 && tensor.shape[0] > 0 && tensor.shape[1] > 0;
  if (!is_matrix) refuse(tensor, "2 dimensions > 0", "shape " + shape_text(tensor.shape));
}

int64_t stored_bytes(const kernels::HostTensor& tensor) {
  const std::string_view type = tensor.dtype_name;
  if (type.ends_with("64")) return 8;
  if (type.ends_with("32")) return 4;
  return type.ends_with("16") ? 2 : 1;
}

std::string shape_text(const std::vector<int64_t>& shape) { return shown(nlohmann::json(shape)); }

}  // namespace winnow::quantization
