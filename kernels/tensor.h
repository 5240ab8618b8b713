// Element types and plain views of memory. A view owns nothing; row-major, contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace winnow::kernels {

enum class DType : int { kF32, kBf16, kF16, kOther };  // kOther: present in a file, not computed with

inline constexpr int64_t size_bytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : (dtype == DType::kBf16 || dtype == DType::kF16) ? 2 : 0;
}

// Pointer to row `row` of values of a type with `cols` columns.
inline void* row_pointer(void* data, DType dtype, int64_t row, int64_t cols) {
  return static_cast<std::byte*>(data) + row * cols * size_bytes(dtype);
}
inline const void* row_pointer(const void* data, DType dtype, int64_t row, int64_t cols) {
  return static_cast<const std::byte*>(data) + row * cols * size_bytes(dtype);
}

// Name in results and messages.
inline constexpr const char* dtype_name(DType dtype) {
  return dtype == DType::kF32 ? "fp32" : dtype == DType::kBf16 ? "bf16" : dtype == DType::kF16 ? "fp16" : "other";
}

struct HostTensor;

// Where the values of a tensor come from that does not lie in the file as numbers: quantised weights.
class TensorValues {
 public:
  virtual ~TensorValues() = default;
  // Elements [first, first + count), row-major, as float32. Called by many threads at a time; cannot fail.
  virtual void read(int64_t first, int64_t count, float* to) const = 0;
  // The tensors of the file that the values are computed from.
  virtual const std::vector<HostTensor>& stored() const = 0;
};

// A tensor as it lies in a mapped checkpoint, or as its values are computed. `data` may be unaligned.
struct HostTensor {
  const std::byte* data = nullptr;
  DType dtype = DType::kOther;
  std::vector<int64_t> shape;
  std::string name;          // resolved name and file, for messages
  std::string dtype_name{};  // as the file spells it, for messages
  // Not null: the values are these, `data` is null and `dtype` float32, the type in which they are computed.
  std::shared_ptr<const TensorValues> values{};

  int64_t rows() const { return shape.empty() ? 0 : shape[0]; }
  int64_t cols() const { return shape.size() < 2 ? 1 : shape[1]; }
  int64_t count() const {
    int64_t n = 1;
    for (const int64_t extent : shape) n *= extent;
    return n;
  }
};

// A matrix in the backend's memory, (rows, cols); a vector has cols = 1. dtype is the backend's compute type, except
// for vocabulary matrices (embedding, head), which a backend may keep as they lie in the checkpoint.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace winnow::kernels
