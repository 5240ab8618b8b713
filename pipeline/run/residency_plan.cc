#include "pipeline/run/residency_plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"

namespace winnow::run {

model::Residency plan_residency(const ResidencyNeeds& needs, const std::string& stream) {
  const int64_t weights_bytes = needs.shared_bytes + needs.n_layers * needs.layer_bytes;
  const bool all_fit = weights_bytes + needs.least_sweep_bytes <= needs.limit_bytes;
  const model::Residency all{.n_layers = needs.n_layers, .n_kept = needs.n_layers};
  if (stream == "off" && !all_fit) {
    fail(ExitCode::kOutOfMemory, "--stream off: the weights take " + format_bytes(weights_bytes) +
                                     " and the longest example with a single lane " +
                                     format_bytes(needs.least_sweep_bytes) + ", but a rank has " +
                                     format_bytes(needs.limit_bytes) + "; leave out --stream, or raise --max-memory");
  }
  if (stream == "off" || (stream == "auto" && all_fit)) return all;
  const int64_t n_buffers = std::min(needs.n_layers, kStreamBuffers);
  const int64_t streaming_bytes = needs.shared_bytes + needs.packed_bytes + n_buffers * needs.layer_bytes;
  if (stream == "on" && streaming_bytes + needs.least_sweep_bytes > needs.limit_bytes) {
    fail(ExitCode::kOutOfMemory,
         "--stream on: the weights take " + format_bytes(streaming_bytes) + " (" + std::to_string(n_buffers) +
             " buffer(s) for layers, embedding and head) and the longest example with a single lane " +
             format_bytes(needs.least_sweep_bytes) + ", but a rank has " + format_bytes(needs.limit_bytes) +
             "; raise --max-memory, use fewer ranks per host, or shorter examples");
  }
  model::Residency some{.n_layers = needs.n_layers, .n_buffers = n_buffers};
  if (stream == "on") return some;
  const int64_t left = needs.limit_bytes - streaming_bytes - std::max(needs.wave_bytes, needs.least_sweep_bytes);
  const int64_t most = std::max<int64_t>(0, needs.n_layers - n_buffers - 1);
  some.n_kept = std::clamp<int64_t>(left / std::max<int64_t>(needs.layer_bytes, 1), 0, most);
  return some;
}

}  // namespace winnow::run
