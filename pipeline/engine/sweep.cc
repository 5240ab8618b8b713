#include "pipeline/engine/sweep.h"

#include <cmath>
#include <string>
#include <utility>

#include "pipeline/engine/sweep_pass.h"

namespace winnow::engine {

int64_t predict_sweep_bytes(const model::ModelConfig& config, const kernels::Ops& ops,
                            std::span<const SweepRequest> requests) {
  return SweepPass::predicted_bytes(ops, config, requests);
}

std::vector<SweepResult> sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                               std::span<const SweepRequest> requests, const StopCheck& stop) {
  return SweepPass(ops, config, weights, requests).run(stop);
}

SweepResult sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                  const SweepRequest& request, const StopCheck& stop) {
  SweepResult result = std::move(sweep(ops, config, weights, std::span(&request, 1), stop).front());
  check_finite(request, result);
  return result;
}

void check_finite(const SweepRequest& request, const SweepResult& result) {
  if (!std::isfinite(result.base.nll_nats)) fail(ExitCode::kBadData, "the NLL of the base pattern is not finite");
  for (std::size_t v = 0; v < result.variants.size(); ++v) {
    const Score& score = result.variants[v];
    const bool has_removed = score.signals.contains(kNllRemoved);
    const double nll_removed = has_removed ? value_of(score.signals, kNllRemoved) : 0.0;
    if (std::isfinite(score.nll_nats + score.kl_nats + nll_removed)) continue;
    const int64_t layer = fork_layer_of(request.base, request.variants[v]);
    fail(ExitCode::kBadData, "the NLL of the pattern that differs from the base at layer " + std::to_string(layer) +
                                 ", its KL or the NLL without the layer's attention is not finite");
  }
}

}  // namespace winnow::engine
