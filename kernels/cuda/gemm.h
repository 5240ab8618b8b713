// One product shape of cuBLASLt with the algorithm that is used for it.
#pragma once

#include <cublasLt.h>

#include <cstdint>

namespace winnow::cuda {

// Workspace that every product may use, bytes.
inline constexpr int64_t kProductWorkspaceBytes = 32 << 20;

// A cuBLASLt object that is created with one call and destroyed with another.
template <typename T, cublasStatus_t (*kDestroy)(T)>
class CublasHandle {
 public:
  CublasHandle() = default;
  CublasHandle(const CublasHandle&) = delete;
  CublasHandle& operator=(const CublasHandle&) = delete;
  ~CublasHandle() {
    if (handle_ != nullptr) kDestroy(handle_);
  }
  T* address() { return &handle_; }
  T get() const { return handle_; }

 private:
  T handle_ = nullptr;
};

// out = scale x W^T + bias, or out += it: x (n_rows, n_in), W (n_out, n_in), bias (n_out) bfloat16; out (n_rows, n_out)
// bfloat16 or float32. The algorithm is chosen once and used for every number of rows, without split-K and stream-K, so
// that a row's sum runs over K in one order whatever is stacked around it.
class Gemm {
 public:
  Gemm(cublasLtHandle_t handle, int64_t n_out, int64_t n_in, bool has_bias, bool float_output);

  struct Pointers {
    const void* x;
    const void* weight;
    const void* bias;
    void* out;
    void* workspace;
  };
  void run(const Pointers& pointers, int64_t n_rows, bool accumulate, float scale, cudaStream_t stream) const;

 private:
  using Layout = CublasHandle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
  using Description = CublasHandle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;

  void make_layout(Layout& layout, cudaDataType_t type, int64_t rows, int64_t cols) const;
  void choose_algorithm();

  cublasLtHandle_t handle_;
  int64_t n_out_;
  int64_t n_in_;
  cudaDataType_t output_type_;
  Description description_;
  Layout weight_;
  cublasLtMatmulAlgo_t algorithm_{};
};

}  // namespace winnow::cuda
