// The kinds of norms and activations that decoder layers have: what an operation is told beside its rows.
#pragma once

namespace winnow::kernels {

enum class NormKind : int {
  kRms,    // x / sqrt(mean(x^2) + eps)
  kLayer,  // (x - mean(x)) / sqrt(variance(x) + eps)
};

// What a norm does beside its weight: the normed value is multiplied by offset + weight.
struct NormShape {
  NormKind kind = NormKind::kRms;
  float eps = 0.F;
  float offset = 0.F;
};

// What becomes of a logit before the softmax over the vocabulary.
struct LogitShape {
  float scale = 1.F;    // multiplies it
  float softcap = 0.F;  // then it becomes softcap * tanh(logit / softcap); 0: it stays

  bool is_plain() const { return scale == 1.F && softcap == 0.F; }
};

// What a gated MLP does with its gate before it multiplies `up`.
enum class Activation : int {
  kSilu,      // x / (1 + exp(-x))
  kGeluTanh,  // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
  // Of gate and up together: g = min(gate, 7), u = up within [-7, 7], then g / (1 + exp(-1.702 g)) * (u + 1).
  kClampedSwiGlu,
};

}  // namespace winnow::kernels
