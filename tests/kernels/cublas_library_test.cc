// cuBLASLt is looked for when it is first called: without a GPU, too, and as the release that winnow was built for.
#include <cublasLt.h>
#include <gtest/gtest.h>

namespace {

TEST(CublasLibrary, IsThereWhenItIsCalled) {
  EXPECT_EQ(cublasLtGetVersion() / 10000, CUBLAS_VER_MAJOR);
  EXPECT_STRNE(cublasLtGetStatusString(CUBLAS_STATUS_NOT_SUPPORTED), "");
  cublasLtMatmulDesc_t description = nullptr;
  ASSERT_EQ(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
  EXPECT_NE(description, nullptr);
  EXPECT_EQ(cublasLtMatmulDescDestroy(description), CUBLAS_STATUS_SUCCESS);
}

}  // namespace
