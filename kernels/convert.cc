#include "kernels/convert.h"

#include <bit>
#include <cstring>

namespace winnow::kernels {
namespace {

// IEEE half to float32, exact, without branches that stop vectorisation.
inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000U) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7FFFU) << 13;
  // 2^112 rebiases the exponent, and normalises subnormals exactly.
  float value = std::bit_cast<float>(magnitude) * 0x1p112F;
  const bool is_special = (h & 0x7C00U) == 0x7C00U;
  const float special = std::bit_cast<float>(magnitude | 0x7F800000U);
  value = is_special ? special : value;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

}  // namespace

void to_float32(const std::byte* from, DType dtype, int64_t count, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  const bool is_bf16 = dtype == DType::kBf16;
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, sizeof bits);
    to[i] = is_bf16 ? bfloat16_to_float(bits) : half_to_float(bits);
  }
}

void read_float32(const HostTensor& tensor, int64_t first, int64_t count, float* to) {
  if (tensor.values) {
    tensor.values->read(first, count, to);
  } else {
    to_float32(tensor.data + first * size_bytes(tensor.dtype), tensor.dtype, count, to);
  }
}

}  // namespace winnow::kernels
