// CUDA, cuBLAS and cuDNN statuses to exceptions: the call, the library's words, the code, the place.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <string>

#include "base/error.h"

namespace winnow::cuda {

[[noreturn]] inline void fail_call(const char* call, const std::string& words, int code, const char* file, int line) {
  fail(ExitCode::kInternal, std::string(call) + " failed: " + words + " (" + std::to_string(code) + ") at " + file +
                                ":" + std::to_string(line));
}

inline void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status != cudaSuccess) fail_call(call, cudaGetErrorString(status), static_cast<int>(status), file, line);
}

inline void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    fail_call(call, cublasLtGetStatusString(status), static_cast<int>(status), file, line);
  }
}

}  // namespace winnow::cuda

#define WINNOW_CUDA_CHECK(call) ::winnow::cuda::check((call), #call, __FILE__, __LINE__)
// After every launch.
#define WINNOW_CUDA_CHECK_LAUNCH() ::winnow::cuda::check(cudaGetLastError(), "kernel launch", __FILE__, __LINE__)
