// The tensors of one quantised module, and what is asked of them.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"

namespace winnow::quantization {

using Tensors = std::map<std::string, kernels::HostTensor>;

class Parts {
 public:
  // Both must outlive this. `codes` is the ending of the tensor that errors are about when another is missing.
  Parts(const Tensors& tensors, std::string module, std::string_view codes)
      : tensors_(tensors), module_(std::move(module)), codes_(codes) {}

  // The tensor whose name is the module's with that ending; nullptr, or an Error(kBadData), where there is none.
  const kernels::HostTensor* find(std::string_view ending);
  const kernels::HostTensor& need(std::string_view ending);
  // The tensor of the module's codes.
  const kernels::HostTensor& codes() { return need(codes_); }
  // The one of two that is there.
  const kernels::HostTensor& need_one(std::string_view ending, std::string_view other);
  // Names of all that were found.
  const std::set<std::string>& used() const { return used_; }

 private:
  const Tensors& tensors_;
  std::string module_;
  std::string_view codes_;
  std::set<std::string> used_;
};

[[noreturn]] void refuse(const kernels::HostTensor& tensor, const std::string& expected, const std::string& found);
// Throws Error(kBadData) unless the type is one of these, as safetensors spells them.
void require_type(const kernels::HostTensor& tensor, const std::vector<std::string_view>& types);
void require_shape(const kernels::HostTensor& tensor, const std::vector<int64_t>& shape);
void require_matrix(const kernels::HostTensor& tensor);  // two dimensions, neither of them 0
// Bytes of a stored element of a type whose size is whole bytes.
int64_t stored_bytes(const kernels::HostTensor& tensor);
std::string shape_text(const std::vector<int64_t>& shape);

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

}  // namespace winnow::quantization
