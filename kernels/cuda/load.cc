#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/staging.h"

namespace winnow::cuda {

int64_t CudaBackend::weight_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const {
  return source.count() * (use == kernels::WeightUse::kTable ? 4 : 2);
}

kernels::Matrix CudaBackend::do_load(const kernels::HostTensor& source, kernels::WeightUse use, std::byte* storage) {
  if (!staging_) staging_ = std::make_unique<Staging>();
  staging_->upload(source, use == kernels::WeightUse::kTable, storage, stream_);
  return {storage, use == kernels::WeightUse::kTable ? kernels::DType::kF32 : kernels::DType::kBf16, source.rows(),
          source.cols()};
}

}  // namespace winnow::cuda
