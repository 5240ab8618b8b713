// The graph of fused attention as cuDNN's backend API takes it.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/libraries/cudnn_library.h"

namespace winnow::cuda {

inline void check(const CudnnLibrary& cudnn, cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status != CUDNN_STATUS_SUCCESS) {
    fail_call(call, cudnn.get_error_string(status), static_cast<int>(status), file, line);
  }
}

#define WINNOW_CUDNN_CHECK(library, call) ::winnow::cuda::check((library), (call), #call, __FILE__, __LINE__)

// A backend descriptor with its attributes set one after another.
class Descriptor {
 public:
  Descriptor(const CudnnLibrary& cudnn, cudnnBackendDescriptorType_t type) : cudnn_(&cudnn) {
    WINNOW_CUDNN_CHECK(cudnn, cudnn.create_descriptor(type, &handle_));
  }
  Descriptor(Descriptor&& other) noexcept : cudnn_(other.cudnn_), handle_(std::exchange(other.handle_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(cudnn_, other.cudnn_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Descriptor() {
    if (handle_ != nullptr) cudnn_->destroy_descriptor(handle_);
  }

  template <typename T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const T* values) {
    WINNOW_CUDNN_CHECK(*cudnn_, cudnn_->set_attribute(handle_, name, type, count, values));
    return *this;
  }
  template <typename T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    return set(name, type, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.handle_);
  }
  Descriptor& finalize() {
    WINNOW_CUDNN_CHECK(*cudnn_, cudnn_->finalize(handle_));
    return *this;
  }
  cudnnStatus_t try_finalize() { return cudnn_->finalize(handle_); }
  cudnnBackendDescriptor_t get() const { return handle_; }

 private:
  const CudnnLibrary* cudnn_;
  cudnnBackendDescriptor_t handle_ = nullptr;
};

namespace graph_id {
// Unique ids of the tensors that a call passes.
enum Id : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kStats,
  kScale,
  kHidden,
  kHiddenWindow,
  kQueries,
  kKeys,
  kWindow,
  kFirstVirtual
};
}  // namespace graph_id

// Returns the descriptor of an operation graph, finalized.
Descriptor attention_graph(const CudnnLibrary& cudnn, cudnnHandle_t handle, const AttentionShape& shape);

}  // namespace winnow::cuda
