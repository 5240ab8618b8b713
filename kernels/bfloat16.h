// bfloat16 on the host: the upper half of a float32.
#pragma once

#include <bit>
#include <cstdint>

namespace winnow::kernels {

enum class BFloat16 : uint16_t {};

inline float to_float(BFloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

}  // namespace winnow::kernels
