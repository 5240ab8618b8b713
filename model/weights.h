// The weights of a model and their way into a backend.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/safetensors.h"
#include "model/weight_transport.h"

namespace winnow::model {

// One decoder layer in the backend's compute type. Empty matrices are absent in this family.
struct LayerWeights {
  int32_t rope = 0;              // which of ModelConfig::ropes turns its queries and keys
  kernels::Norm attention_norm;  // (hidden), before attention
  kernels::Matrix q;             // (q_dim, hidden)
  kernels::Matrix q_bias;        // (q_dim)
  kernels::Matrix kv;            // (2 * kv_dim, hidden): k, then v
  kernels::Matrix kv_bias;       // (2 * kv_dim)
  kernels::HeadNorm q_norm;
  kernels::HeadNorm k_norm;
  kernels::Matrix sink_logits;          // (n_heads), float32
  kernels::Matrix o;                    // (hidden, q_dim)
  kernels::Matrix o_bias;               // (hidden)
  kernels::Norm attention_output_norm;  // (hidden), of what attention adds
  kernels::Norm mlp_norm;               // (hidden), before the MLP
  kernels::Router router;               // without a weight: the layer has no experts
  kernels::Experts experts;             // beside the MLP, which is then that of the experts that every row has
  kernels::Matrix gate_up;              // (2 * ffn, hidden): gate, then up; empty where all experts are chosen
  kernels::Matrix gate_up_bias;
  kernels::Matrix down;  // (hidden, ffn)
  kernels::Matrix down_bias;
  kernels::Norm mlp_output_norm;  // (hidden), of what the MLP adds
};

// Says when ModelWeights reads weights: in its constructor, or in load().
enum class Loading { kNow, kLater };

// Weights of a whole model. On the CPU one layer at a time is converted from the map, so a checkpoint is never held
// twice; vocabulary matrices stay in the map.
class ModelWeights {
 public:
  // Checks that every declared tensor is there with its shape and that the model has no tensor beside them (a bias or a
  // gate that the family does not have would silently be left out) and takes its memory; then, unless that is for
  // later, loads what all layers share. Throws Error(kBadData) naming the tensor, Error(kOutOfMemory). All references
  // must outlive this.
  ModelWeights(const ModelConfig& config, const Checkpoint& checkpoint, kernels::Ops& ops,
               Loading loading = Loading::kNow);
  ~ModelWeights();

  // Loads what all layers share and, where the backend keeps all layers, all of them; called once after
  // Loading::kLater, before anything else. Faults of a checkpoint were found before, so that no rank leaves the others
  // alone in here. Returns the bytes of backend memory that were filled; they are there when this returns.
  int64_t load(WeightSharing* sharing = nullptr);
  // Returns layer `index` in [0, n_layers), converted unless it is kept from before. Valid until the next call.
  const LayerWeights& layer(int64_t index);
  const kernels::Matrix& embedding() const { return embedding_; }  // (vocab, hidden)
  const kernels::Norm& final_norm() const { return final_norm_; }  // (hidden)
  const kernels::Matrix& head() const { return head_; }            // (vocab, hidden)
  // Returns model/rope.h's table of at least n_positions, in host memory, computed when it must grow. Valid until the
  // next call for the same key.
  std::span<const float> rotary_table(int64_t n_positions, const RotaryKey& key = {});

  // Says why a result is not finite, as far as the weights tell: the broken tensor, or that none is. Reads all of them.
  std::string why_not_finite() const;

  // Returns the backend memory that this class takes, bytes, before anything is loaded.
  static int64_t predicted_bytes(const ModelConfig& config, const Checkpoint& checkpoint, const kernels::Ops& ops);

 private:
  int64_t load_shared(WeightTransport& transport);
  int64_t load_layer(int64_t index, WeightTransport& transport);
  std::span<std::byte> layer_slot(int64_t index);

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  kernels::Ops& ops_;
  std::unique_ptr<kernels::Buffer> layer_storage_;  // slots of the largest layer's size
  std::unique_ptr<kernels::Buffer> shared_storage_;
  int64_t layer_bytes_ = 0;
  // Layer i is in slot i modulo their number: the backend says how many layers are kept.
  struct Slot {
    int64_t layer = -1;
    LayerWeights weights;
  };
  std::vector<Slot> slots_;
  kernels::Matrix embedding_, head_;
  kernels::Norm final_norm_;
  std::map<RotaryKey, std::vector<float>> rotary_tables_;
};

}  // namespace winnow::model
