// The functions of cuBLASLt that gemm.cc and the backend call, each a forward to the library, which is looked for when
// the first of them is called. Linked, half a gigabyte of it would be relocated at every start: ten times the processor
// time of `winnow --help`, also where there is no GPU.
#include <cublasLt.h>
#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace winnow::cuda {
namespace {

// The loader looks in LD_LIBRARY_PATH, then where CUDA's runtime was when winnow was built.
const std::string& library_name() {
  static const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  return name;
}

[[noreturn]] void fail_unavailable() {
  const char* words = dlerror();
  fail(ExitCode::kUnavailable, std::string("the GPU cannot be used without cuBLASLt: ") +
                                   (words != nullptr ? words : library_name() + " cannot be loaded") +
                                   "; use --device cpu");
}

void* find(const char* function) {
  static void* const library = dlopen(library_name().c_str(), RTLD_NOW | RTLD_LOCAL);  // never unloaded
  void* const found = library != nullptr ? dlsym(library, function) : nullptr;
  if (found == nullptr) fail_unavailable();
  return found;
}

template <auto* kFunction, typename... Arguments>
auto forward(const char* name, Arguments... arguments) {
  static const auto function = reinterpret_cast<decltype(kFunction)>(find(name));
  return function(arguments...);
}

}  // namespace
}  // namespace winnow::cuda

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return winnow::cuda::forward<cublasLtCreate>(__func__, handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return winnow::cuda::forward<cublasLtDestroy>(__func__, handle);
}

size_t cublasLtGetVersion() { return winnow::cuda::forward<cublasLtGetVersion>(__func__); }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return winnow::cuda::forward<cublasLtGetStatusString>(__func__, status);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute_type,
                                        cudaDataType_t scale_type) {
  return winnow::cuda::forward<cublasLtMatmulDescCreate>(__func__, description, compute_type, scale_type);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  return winnow::cuda::forward<cublasLtMatmulDescDestroy>(__func__, description);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t size_bytes) {
  return winnow::cuda::forward<cublasLtMatmulDescSetAttribute>(__func__, description, attribute, value, size_bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t leading_dimension) {
  return winnow::cuda::forward<cublasLtMatrixLayoutCreate>(__func__, layout, type, rows, cols, leading_dimension);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return winnow::cuda::forward<cublasLtMatrixLayoutDestroy>(__func__, layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return winnow::cuda::forward<cublasLtMatmulPreferenceCreate>(__func__, preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return winnow::cuda::forward<cublasLtMatmulPreferenceDestroy>(__func__, preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t size_bytes) {
  return winnow::cuda::forward<cublasLtMatmulPreferenceSetAttribute>(__func__, preference, attribute, value,
                                                                     size_bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int n_asked,
                                              cublasLtMatmulHeuristicResult_t results[], int* n_found) {
  return winnow::cuda::forward<cublasLtMatmulAlgoGetHeuristic>(__func__, handle, operation, a, b, c, d, preference,
                                                               n_asked, results, n_found);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t size_bytes, size_t* written_bytes) {
  return winnow::cuda::forward<cublasLtMatmulAlgoConfigGetAttribute>(__func__, algorithm, attribute, value, size_bytes,
                                                                     written_bytes);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  return winnow::cuda::forward<cublasLtMatmul>(__func__, handle, operation, alpha, a, a_layout, b, b_layout, beta, c,
                                               c_layout, d, d_layout, algorithm, workspace, workspace_bytes, stream);
}
