// Element types and plain views of memory. A view owns nothing; row-major, contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/packed_rows.h"

namespace winnow::kernels {

enum class DType : int { kF32, kBf16, kF16, kOther };  // kOther: present in a file, not computed with

// Returns the size of an element, bytes; 0 for kOther.
inline constexpr int64_t size_bytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : (dtype == DType::kBf16 || dtype == DType::kF16) ? 2 : 0;
}

// Returns its name in results and messages, "bf16".
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
  // How rows are packed; none: the values are neither FP8 numbers nor integers of four bits, with scales.
  virtual std::optional<PackedRows> packed_rows() const { return std::nullopt; }
  // Writes a packed row where packed_rows() is something. Called by many threads at a time; cannot fail.
  virtual void pack_row(int64_t /*row*/, std::byte* /*to*/) const {}
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

// The type that elements of a C++ type have in memory; kOther: none. A backend adds its own types.
template <typename T>
inline constexpr DType kDTypeOf = DType::kOther;
template <>
inline constexpr DType kDTypeOf<float> = DType::kF32;

// Throws Error(kInternal): memory of one type is taken for that of another.
[[noreturn]] void fail_type(DType found, DType wanted);
// Throws Error(kInternal): rows [first, first + n) are not among n_rows.
[[noreturn]] void fail_range(int64_t first, int64_t n, int64_t n_rows);
inline void require_range(int64_t first, int64_t n, int64_t n_rows) {
  if (first < 0 || n < 0 || first > n_rows - n) fail_range(first, n, n_rows);
}

// Rows of equal length, (n_rows, cols), in the memory of a backend or of the host. Void is void or const void.
template <typename Void>
struct RowsView {
  template <typename T>
  using Like = std::conditional_t<std::is_const_v<Void>, const T, T>;

  Void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t n_rows = 0;
  int64_t cols = 0;

  explicit operator bool() const { return data != nullptr; }
  // A view for writing is one for reading, too.
  template <typename Reader>
  requires(std::is_const_v<Reader> && !std::is_const_v<Void>) operator RowsView<Reader>() const {
    return {data, dtype, n_rows, cols};
  }
  int64_t count() const { return n_rows * cols; }
  int64_t size_bytes() const { return count() * kernels::size_bytes(dtype); }
  std::span<Like<std::byte>> bytes() const {
    return {static_cast<Like<std::byte>*>(data), static_cast<std::size_t>(size_bytes())};
  }
  // Returns rows [first, first + n). Throws Error(kInternal) where there are fewer.
  RowsView slice(int64_t first, int64_t n) const {
    require_range(first, n, n_rows);
    return {static_cast<Like<std::byte>*>(data) + first * cols * kernels::size_bytes(dtype), dtype, n, cols};
  }
  // Returns the rows from `first` on.
  RowsView from(int64_t first) const { return slice(first, n_rows - first); }
  // Returns the elements. Throws Error(kInternal) where T has another type than they have.
  template <typename T>
  Like<T>* as() const {
    if (dtype != kDTypeOf<T>) fail_type(dtype, kDTypeOf<T>);
    return static_cast<Like<T>*>(data);
  }
};
using Rows = RowsView<void>;
using ConstRows = RowsView<const void>;

// Keys and values of rows, of one layer, in the memory of a backend or on their way through the host's. The layout is
// the backend's own: Ops::store_kv writes it and attention reads it. Rows lie one after another in tiles of
// Device::row_tile(), of one size each. From Device::kv_span().
struct KvSpan {
  void* data = nullptr;
  int64_t n_rows = 0;     // multiple of row_tile()
  int64_t row_bytes = 0;  // a tile's, divided by its rows

  explicit operator bool() const { return data != nullptr; }
  int64_t size_bytes() const { return n_rows * row_bytes; }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(data), static_cast<std::size_t>(size_bytes())}; }
  // Returns rows [first, first + n), both multiples of row_tile(). Throws Error(kInternal) where there are fewer.
  KvSpan slice(int64_t first, int64_t n) const {
    require_range(first, n, n_rows);
    return {static_cast<std::byte*>(data) + first * row_bytes, n, row_bytes};
  }
  // Returns the rows from `first` on.
  KvSpan from(int64_t first) const { return slice(first, n_rows - first); }
};

// A weight in the backend's memory, (rows, cols); a vector has cols = 1. dtype is the backend's compute type, except
// for vocabulary matrices (embedding, head), which a backend may keep as they lie in the checkpoint. Not a view of
// rows, so that no weight is passed for an activation.
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;

  explicit operator bool() const { return data != nullptr; }
  // Returns the elements, null where it is empty. Throws Error(kInternal) where T has another type than they have.
  template <typename T>
  const T* as() const {
    if (data != nullptr && dtype != kDTypeOf<T>) fail_type(dtype, kDTypeOf<T>);
    return static_cast<const T*>(data);
  }
  // Returns rows [first, first + n). Throws Error(kInternal) where there are fewer.
  Matrix slice(int64_t first, int64_t n) const {
    require_range(first, n, rows);
    return {static_cast<const std::byte*>(data) + first * cols * kernels::size_bytes(dtype), dtype, n, cols};
  }
};

}  // namespace winnow::kernels
