// What the gated MLPs do with gate and up.
#pragma once

#include <type_traits>

#include "kernels/layer_kinds.h"

namespace winnow::cuda {

template <kernels::Activation kActivation>
__device__ inline float gated(float gate, float up) {
  if constexpr (kActivation == kernels::Activation::kSilu) {
    return gate / (1.0F + __expf(-gate)) * up;
  } else if constexpr (kActivation == kernels::Activation::kGeluTanh) {
    // 0.5 (1 + tanh(u)) is 1 / (1 + exp(-2u)); 1.5957691 is 2 sqrt(2 / pi).
    return gate / (1.0F + __expf(-1.59576912F * (gate + 0.044715F * gate * gate * gate))) * up;
  } else {
    const float g = fminf(gate, 7.0F);
    const float u = fminf(fmaxf(up, -7.0F), 7.0F);
    return g / (1.0F + __expf(-1.702F * g)) * (u + 1.0F);
  }
}

// Calls `use` with the activation as a constant of the compiler.
template <typename Use>
void with_activation(kernels::Activation activation, Use use) {
  using kernels::Activation;
  switch (activation) {
    case Activation::kSilu:
      return use(std::integral_constant<Activation, Activation::kSilu>{});
    case Activation::kGeluTanh:
      return use(std::integral_constant<Activation, Activation::kGeluTanh>{});
    case Activation::kClampedSwiGlu:
      return use(std::integral_constant<Activation, Activation::kClampedSwiGlu>{});
  }
}

}  // namespace winnow::cuda
