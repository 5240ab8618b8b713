#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <array>
#include <string>

#include "kernels/cuda/check.h"

namespace winnow::cuda {

namespace {

// Rows that the algorithm is chosen for: a full chunk.
constexpr int64_t kReferenceRows = 8192;
constexpr int kCandidates = 32;

using Preference = CublasHandle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <typename T>
T algorithm_value(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  WINNOW_CUDA_CHECK(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value, &written));
  return value;
}

// Whether each output element is summed by one thread block, over K in one go.
bool sums_in_one_order(const cublasLtMatmulAlgo_t& algorithm) {
  return algorithm_value<int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) <= 1 &&
         algorithm_value<uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) == CUBLASLT_REDUCTION_SCHEME_NONE;
}

template <typename T>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  WINNOW_CUDA_CHECK(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value));
}

}  // namespace

// Column-major, as cuBLAS has it: out^T (n_out, n_rows) = W (n_out, n_in) x^T (n_in, n_rows), where the row-major W is
// the transpose of a column-major (n_in, n_out).
Gemm::Gemm(cublasLtHandle_t handle, int64_t n_out, int64_t n_in, bool has_bias, bool float_output)
    : handle_(handle), n_out_(n_out), n_in_(n_in), output_type_(float_output ? CUDA_R_32F : CUDA_R_16BF) {
  WINNOW_CUDA_CHECK(cublasLtMatmulDescCreate(description_.address(), CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(description_.get(), CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(CUBLAS_OP_T));
  if (has_bias) {
    set(description_.get(), CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(CUBLASLT_EPILOGUE_BIAS));
    set(description_.get(), CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_16BF));
  }
  make_layout(weight_, CUDA_R_16BF, n_in, n_out);
  choose_algorithm();
}

void Gemm::make_layout(Layout& layout, cudaDataType_t type, int64_t rows, int64_t cols) const {
  WINNOW_CUDA_CHECK(cublasLtMatrixLayoutCreate(layout.address(), type, static_cast<uint64_t>(rows),
                                               static_cast<uint64_t>(cols), rows));
}

void Gemm::choose_algorithm() {
  Layout input;
  Layout output;
  make_layout(input, CUDA_R_16BF, n_in_, kReferenceRows);
  make_layout(output, output_type_, n_out_, kReferenceRows);
  Preference preference;
  WINNOW_CUDA_CHECK(cublasLtMatmulPreferenceCreate(preference.address()));
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    WINNOW_CUDA_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kProductWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> candidates{};
  int n_found = 0;
  WINNOW_CUDA_CHECK(cublasLtMatmulAlgoGetHeuristic(handle_, description_.get(), weight_.get(), input.get(),
                                                   output.get(), output.get(), preference.get(), kCandidates,
                                                   candidates.data(), &n_found));
  const auto end = candidates.begin() + n_found;
  const auto chosen = std::find_if(candidates.begin(), end, [](const auto& candidate) {
    return candidate.state == CUBLAS_STATUS_SUCCESS && sums_in_one_order(candidate.algo);
  });
  if (chosen == end) {
    fail(ExitCode::kUnavailable, "cuBLASLt has no reproducible product for a weight of (" + std::to_string(n_out_) +
                                     ", " + std::to_string(n_in_) + ") on this GPU; use --device cpu");
  }
  algorithm_ = chosen->algo;
}

void Gemm::run(const Pointers& p, int64_t n_rows, bool accumulate, float scale, cudaStream_t stream) const {
  if (p.bias != nullptr) set(description_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  Layout input;
  Layout output;
  make_layout(input, CUDA_R_16BF, n_in_, n_rows);
  make_layout(output, output_type_, n_out_, n_rows);
  const float beta = accumulate ? 1.0F : 0.0F;
  WINNOW_CUDA_CHECK(cublasLtMatmul(handle_, description_.get(), &scale, p.weight, weight_.get(), p.x, input.get(),
                                   &beta, p.out, output.get(), p.out, output.get(), &algorithm_, p.workspace,
                                   kProductWorkspaceBytes, stream));
}

}  // namespace winnow::cuda
