// The weights of a model and their way into a backend.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/layer_ring.h"
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

// Weights of a whole model. A layer stays in the backend's memory, or goes through it when it is needed: from memory of
// the host that stage_from() gives, or from the checkpoint's map. On the CPU one layer at a time is converted from the
// map, so a checkpoint is never held twice; vocabulary matrices stay in the map. The values are the same in all cases.
class ModelWeights {
 public:
  // Checks that every declared tensor is there with its shape and that the model has no tensor beside them (a bias or a
  // gate that the family does not have would silently be left out) and takes its memory; then, unless that is for
  // later, loads what all layers share. residency: none is default_residency(). Throws Error(kBadData) naming the
  // tensor, Error(kOutOfMemory). All references must outlive this.
  ModelWeights(const ModelConfig& config, const Checkpoint& checkpoint, kernels::Ops& ops,
               Loading loading = Loading::kNow, const std::optional<Residency>& residency = {});
  ~ModelWeights();

  // Loads what all layers share and the layers that stay in the backend's memory; called once after Loading::kLater,
  // before anything else. Faults of a checkpoint were found before, so that no rank leaves the others alone in here.
  // Returns the bytes of backend memory that were filled; they are there when this returns.
  int64_t load(WeightSharing* sharing = nullptr);
  // Returns layer `index` in [0, n_layers), for operations that are asked for before the next call. Layers that do not
  // stay come quickest in their order, and around from the last to the first.
  const LayerWeights& layer(int64_t index);

  const Residency& residency() const { return residency_; }
  // Returns whether layers come while the operations of others run, and are no work of the same processor.
  bool loads_beside() const { return ring_ && ops_.device().free_bytes().has_value(); }
  // Returns the memory of the host that holds all layers which do not stay, as they go to the backend, bytes.
  int64_t staged_bytes() const { return staged_offsets_.back(); }
  // Writes one of them, counted among themselves, into such memory. Ranks that share it write some each.
  void stage(int64_t streamed, std::span<std::byte> memory) const;
  // Takes layers from that memory from now on: it must outlive this.
  void stage_from(std::span<const std::byte> memory);
  const kernels::Matrix& embedding() const { return embedding_; }  // (vocab, hidden)
  const kernels::Norm& final_norm() const { return final_norm_; }  // (hidden)
  const kernels::Matrix& head() const { return head_; }            // (vocab, hidden)
  // Returns model/rope.h's table of at least n_positions, in host memory, computed when it must grow. Valid until the
  // next call for the same key.
  std::span<const float> rotary_table(int64_t n_positions, const RotaryKey& key = {});

  // Says why a result is not finite, as far as the weights tell: the broken tensor, or that none is. Reads all of them.
  std::string why_not_finite() const;

  // Returns which layers the backend keeps unless it is told: all of them, or none.
  static Residency default_residency(const ModelConfig& config, const kernels::Ops& ops);
  // Returns the backend memory that this class takes, bytes, before anything is loaded.
  static int64_t predicted_bytes(const ModelConfig& config, const Checkpoint& checkpoint, const kernels::Ops& ops,
                                 const std::optional<Residency>& residency = {});

 private:
  // Brings a tensor to the beginning of memory of the backend.
  using Place = std::function<kernels::Matrix(const kernels::HostTensor&, kernels::WeightUse, std::span<std::byte>)>;
  void prepare_ring();
  int64_t load_shared(WeightTransport& transport);
  int64_t load_kept(int64_t index, WeightTransport& transport);
  void fill(int64_t index, std::size_t buffer);
  int64_t place_layer(int64_t index, std::size_t slot, const Place& place);
  // Calls `each` with the layer's tensors in their order.
  void for_each_part(int64_t index,
                     const std::function<void(const kernels::HostTensor&, kernels::WeightUse)>& each) const;
  void ask_for(int64_t index) const;
  std::span<std::byte> slot_memory(std::size_t slot);

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  kernels::Ops& ops_;
  const Residency residency_;
  std::unique_ptr<kernels::Buffer> layer_storage_;  // slots of the largest layer's size
  std::unique_ptr<kernels::Buffer> shared_storage_;
  std::unique_ptr<kernels::Buffer> packed_storage_;  // of a tensor on its way, where any has a packed form
  int64_t layer_bytes_ = 0;
  struct Slot {
    int64_t layer = -1;  // -1: none as a whole
    LayerWeights weights;
  };
  std::vector<Slot> slots_;  // of the layers that stay, then of the ring's buffers
  int64_t current_ = -1;     // the layer that was asked for last
  const LayerWeights* current_weights_ = nullptr;
  std::vector<int64_t> staged_offsets_;  // of the streamed layers in the host's memory, bytes, then the end
  std::span<const std::byte> staged_;    // empty: they come from the map
  // In this order: the ring uses the queue, which waits for its copies when it goes.
  std::unique_ptr<kernels::WeightQueue> queue_;
  std::unique_ptr<LayerRing> ring_;
  kernels::Matrix embedding_, head_;
  kernels::Norm final_norm_;
  std::map<RotaryKey, std::vector<float>> rotary_tables_;
};

}  // namespace winnow::model
