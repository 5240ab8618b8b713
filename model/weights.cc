#include "model/weights.h"

#include <algorithm>

#include "base/error.h"
#include "model/checkpoint_check.h"
#include "model/declared_tensors.h"
#include "model/families.h"
#include "model/weight_parts.h"

namespace winnow::model {

namespace {

int64_t align(int64_t size_bytes) { return WeightTransport::align(size_bytes); }

// A layer without weights: what is known of it before they are loaded.
LayerWeights empty_layer(const ModelConfig& config, int64_t index) {
  LayerWeights layer;
  layer.rope = config.layer_ropes[static_cast<std::size_t>(index)];
  for (kernels::Norm* norm : {&layer.attention_norm, &layer.attention_output_norm, &layer.mlp_norm,
                              &layer.mlp_output_norm, &layer.q_norm.norm, &layer.k_norm.norm}) {
    norm->shape = config.norm;
  }
  layer.router.shape = config.experts.router;
  layer.q_norm.after_rope = layer.k_norm.after_rope = config.family->qk_norm_after_rope;
  return layer;
}

// Backend memory of one matrix, and of all of a layer, bytes.
int64_t matrix_bytes(const MatrixSpec& spec, const Checkpoint& checkpoint, const kernels::Ops& ops) {
  int64_t total = 0;
  for (const PartSpec& part : spec.parts) {
    total += ops.device().weight_bytes(part_of(checkpoint, part), spec.use);
  }
  return align(total);
}

int64_t packed_bytes(const MatrixSpec& spec, const Checkpoint& checkpoint, const kernels::Ops& ops) {
  int64_t total = 0;
  for (const PartSpec& part : spec.parts) {
    total += align(ops.device().packed_bytes(part_of(checkpoint, part), spec.use));
  }
  return total;
}

// The most bytes of a layer, by what its matrices take.
int64_t largest_layer(const ModelConfig& config, const Checkpoint& checkpoint, const kernels::Ops& ops,
                      int64_t (*bytes_of)(const MatrixSpec&, const Checkpoint&, const kernels::Ops&)) {
  int64_t largest = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    int64_t total = 0;
    for (const MatrixSpec& spec : declare_layer(config, layer)) total += bytes_of(spec, checkpoint, ops);
    largest = std::max(largest, total);
  }
  return largest;
}

// The most bytes of one tensor of a layer in its packed form; 0: none has one.
int64_t largest_packed(const ModelConfig& config, const Checkpoint& checkpoint, const kernels::Ops& ops) {
  int64_t largest = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (const MatrixSpec& spec : declare_layer(config, layer)) {
      for (const PartSpec& part : spec.parts) {
        largest = std::max(largest, ops.device().packed_bytes(part_of(checkpoint, part), spec.use));
      }
    }
  }
  return largest;
}

// Tensors outside the layers. The head is the embedding where they are tied.
struct SharedTensors {
  const kernels::HostTensor* embedding;
  const kernels::HostTensor* final_norm;
  const kernels::HostTensor* head;
};

SharedTensors shared_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  SharedTensors shared{};
  shared.embedding = &checkpoint.get(kEmbedding, {config.vocab, config.hidden});
  shared.final_norm = &checkpoint.get(kFinalNorm, {config.hidden});
  shared.head = shared.embedding;
  if (!config.tied_embeddings || checkpoint.contains(kHead)) {
    shared.head = &checkpoint.get(kHead, {config.vocab, config.hidden});
  }
  return shared;
}

// The bytes of those that a tensor of their own backs, by what each takes.
int64_t sum_shared(const SharedTensors& shared, bool is_tied, const auto& bytes_of) {
  return align(bytes_of(*shared.embedding, kernels::WeightUse::kVocabulary)) +
         align(bytes_of(*shared.final_norm, kernels::WeightUse::kVector)) +
         (is_tied ? 0 : align(bytes_of(*shared.head, kernels::WeightUse::kVocabulary)));
}

int64_t shared_bytes(const SharedTensors& shared, bool is_tied, const kernels::Ops& ops) {
  return sum_shared(shared, is_tied,
                    [&](const auto& tensor, auto use) { return ops.device().weight_bytes(tensor, use); });
}

// The most that is packed at a time on its way to other ranks.
int64_t batch_bytes(const ModelConfig& config, const Checkpoint& checkpoint, const kernels::Ops& ops) {
  const auto packed = [&](const auto& tensor, auto use) { return ops.device().packed_bytes(tensor, use); };
  return std::max(largest_layer(config, checkpoint, ops, packed_bytes),
                  sum_shared(shared_tensors(config, checkpoint), config.tied_embeddings, packed));
}

}  // namespace

ModelWeights::ModelWeights(const ModelConfig& config, const Checkpoint& checkpoint, kernels::Ops& ops, Loading loading,
                           const std::optional<Residency>& residency)
    : config_(config),
      checkpoint_(checkpoint),
      ops_(ops),
      residency_(residency.value_or(default_residency(config, ops))),
      layer_bytes_(largest_layer(config, checkpoint, ops, matrix_bytes)),
      slots_(static_cast<std::size_t>(residency_.n_slots())),
      staged_offsets_{0} {
  const SharedTensors shared = shared_tensors(config, checkpoint);
  require_model(config, checkpoint);
  layer_storage_ =
      ops.device().allocate(layer_bytes_ * static_cast<int64_t>(slots_.size()), "the weights of the layers");
  shared_storage_ = ops.device().allocate(shared_bytes(shared, config.tied_embeddings, ops), "embedding and head");
  if (!residency_.keeps_all()) prepare_ring();
  if (loading == Loading::kLater) return;
  WeightTransport transport(ops.device(), nullptr);
  load_shared(transport);
}

void ModelWeights::prepare_ring() {
  const std::vector<int64_t> streamed = residency_.streamed();
  for (const int64_t index : streamed) {
    int64_t total = 0;
    for_each_part(index, [&](const kernels::HostTensor& source, kernels::WeightUse use) {
      total += align(ops_.device().staged_bytes(source, use));
    });
    staged_offsets_.push_back(staged_offsets_.back() + total);
  }
  packed_storage_ = ops_.device().allocate(largest_packed(config_, checkpoint_, ops_), "packed weights");
  queue_ = ops_.device().make_weight_queue();
  // Reading the map keeps this thread busy. That is for when the operations of the layer before have been asked for,
  // so that they run meanwhile: nothing is read ahead of its time.
  ring_ = std::make_unique<LayerRing>(streamed, static_cast<std::size_t>(residency_.n_buffers), 0, *queue_,
                                      [this](int64_t index, std::size_t buffer) { fill(index, buffer); });
}

ModelWeights::~ModelWeights() = default;

int64_t ModelWeights::load_shared(WeightTransport& transport) {
  const SharedTensors shared = shared_tensors(config_, checkpoint_);
  std::span<std::byte> at = shared_storage_->bytes();
  int64_t total = 0;
  const auto take = [&](const kernels::HostTensor& tensor, kernels::WeightUse use) {
    const auto size = static_cast<std::size_t>(align(ops_.device().weight_bytes(tensor, use)));
    const kernels::Matrix matrix = transport.place(tensor, use, at);
    at = at.subspan(size);
    total += static_cast<int64_t>(size);
    return matrix;
  };
  embedding_ = take(*shared.embedding, kernels::WeightUse::kVocabulary);
  final_norm_.shape = config_.norm;
  final_norm_.weight = take(*shared.final_norm, kernels::WeightUse::kVector);
  head_ = config_.tied_embeddings ? embedding_ : take(*shared.head, kernels::WeightUse::kVocabulary);
  transport.send();
  return total;
}

std::span<std::byte> ModelWeights::slot_memory(std::size_t slot) {
  const auto size = static_cast<std::size_t>(layer_bytes_);
  return layer_storage_->bytes().subspan(slot * size, size);
}

int64_t ModelWeights::place_layer(int64_t index, std::size_t slot, const Place& place) {
  slots_[slot] = {-1, empty_layer(config_, index)};
  LayerWeights& weights = slots_[slot].weights;
  const std::vector<int64_t> order = rotary_order(config_.rope_of(index), config_.heads.head_dim);
  std::span<std::byte> storage = slot_memory(slot);
  int64_t total = 0;
  for (const MatrixSpec& spec : declare_layer(config_, index)) {
    kernels::Matrix& target = spec.target(weights);
    std::span<std::byte> at = storage;
    for (const PartSpec& part : spec.parts) {
      const kernels::HostTensor source = part_of(checkpoint_, part, order);
      const kernels::Matrix loaded = place(source, spec.use, at);
      if (target) {
        target.rows += loaded.rows;
      } else {
        target = loaded;
      }
      at = at.subspan(static_cast<std::size_t>(ops_.device().weight_bytes(source, spec.use)));
    }
    const int64_t size = matrix_bytes(spec, checkpoint_, ops_);
    storage = storage.subspan(static_cast<std::size_t>(size));
    total += size;
  }
  slots_[slot].layer = index;
  return total;
}

int64_t ModelWeights::load_kept(int64_t index, WeightTransport& transport) {
  const int64_t total = place_layer(index, static_cast<std::size_t>(residency_.kept_before(index)),
                                    [&](const auto& source, kernels::WeightUse use, std::span<std::byte> at) {
                                      return transport.place(source, use, at);
                                    });
  transport.send();
  return total;
}

// A layer into a buffer of the ring.
void ModelWeights::fill(int64_t index, std::size_t buffer) {
  std::span<const std::byte> staged = staged_;
  if (staged.empty()) {
    ask_for((index + 1) % config_.n_layers);
  } else {
    const auto streamed = static_cast<std::size_t>(index - residency_.kept_before(index));
    staged = staged.subspan(static_cast<std::size_t>(staged_offsets_[streamed]));
  }
  const auto slot = static_cast<std::size_t>(residency_.n_kept) + buffer;
  place_layer(index, slot, [&](const auto& source, kernels::WeightUse use, std::span<std::byte> at) {
    if (staged.empty()) return queue_->load(source, use, {}, packed_storage_->bytes(), at);
    const auto size = static_cast<std::size_t>(ops_.device().staged_bytes(source, use));
    const kernels::Matrix loaded = queue_->load(source, use, staged.first(size), packed_storage_->bytes(), at);
    staged = staged.subspan(static_cast<std::size_t>(align(static_cast<int64_t>(size))));
    return loaded;
  });
}

void ModelWeights::for_each_part(
    int64_t index, const std::function<void(const kernels::HostTensor&, kernels::WeightUse)>& each) const {
  const std::vector<int64_t> order = rotary_order(config_.rope_of(index), config_.heads.head_dim);
  for (const MatrixSpec& spec : declare_layer(config_, index)) {
    for (const PartSpec& part : spec.parts) each(part_of(checkpoint_, part, order), spec.use);
  }
}

void ModelWeights::stage(int64_t streamed, std::span<std::byte> memory) const {
  const std::vector<int64_t> layers = residency_.streamed();
  auto at = static_cast<std::size_t>(staged_offsets_[static_cast<std::size_t>(streamed)]);
  for_each_part(layers[static_cast<std::size_t>(streamed)],
                [&](const kernels::HostTensor& source, kernels::WeightUse use) {
                  const int64_t size = ops_.device().staged_bytes(source, use);
                  ops_.device().stage(source, use, memory.subspan(at, static_cast<std::size_t>(size)));
                  at += static_cast<std::size_t>(align(size));
                });
}

void ModelWeights::stage_from(std::span<const std::byte> memory) {
  if (static_cast<int64_t>(memory.size()) < staged_bytes()) {
    fail(ExitCode::kInternal,
         std::to_string(staged_bytes()) + " bytes of layers do not fit into " + std::to_string(memory.size()));
  }
  staged_ = memory;
  // A copy keeps nobody waiting: as many as there is place for are queued ahead.
  ring_->set_ahead(static_cast<std::size_t>(residency_.n_buffers) - 1);
}

// The kernel reads the pages of a layer while another one is used.
void ModelWeights::ask_for(int64_t index) const {
  for (const MatrixSpec& spec : declare_layer(config_, index)) {
    for (const PartSpec& part : spec.parts) read_ahead(checkpoint_.get(part.tensor.name, part.tensor.shape));
  }
}

int64_t ModelWeights::load(WeightSharing* sharing) {
  const bool reads = sharing == nullptr || sharing->reads();
  std::vector<int64_t> kept;
  for (int64_t index = 0; index < config_.n_layers; ++index) {
    if (residency_.keeps(index)) kept.push_back(index);
  }
  if (reads && !kept.empty()) ask_for(kept.front());
  WeightTransport transport(ops_.device(), sharing, sharing == nullptr ? 0 : batch_bytes(config_, checkpoint_, ops_));
  int64_t total = load_shared(transport);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (reads && i + 1 < kept.size()) ask_for(kept[i + 1]);
    total += load_kept(kept[i], transport);
  }
  transport.finish();
  ops_.device().synchronize();
  return total;
}

const LayerWeights& ModelWeights::layer(int64_t index) {
  if (index < 0 || index >= config_.n_layers) {
    fail(ExitCode::kInternal, "layer " + std::to_string(index) + " of " + std::to_string(config_.n_layers));
  }
  if (index == current_) return *current_weights_;
  current_ = -1;
  std::size_t slot = 0;
  if (residency_.keeps(index)) {
    slot = static_cast<std::size_t>(residency_.kept_before(index));
    if (slots_[slot].layer != index) {
      WeightTransport transport(ops_.device(), nullptr);
      load_kept(index, transport);
    }
    if (ring_) {
      ring_->leave();
      ring_->expect_after(index);
    }
  } else {
    slot = static_cast<std::size_t>(residency_.n_kept) + ring_->enter(index);
  }
  current_ = index;
  current_weights_ = &slots_[slot].weights;
  return *current_weights_;
}

std::span<const float> ModelWeights::rotary_table(int64_t n_positions, const RotaryKey& key) {
  const int64_t head_dim = config_.heads.head_dim;
  std::vector<float>& table = rotary_tables_[key];
  if (static_cast<int64_t>(table.size()) < n_positions * head_dim) {
    const RopeConfig& rope = config_.ropes[static_cast<std::size_t>(key.rope)];
    table = rope_table(rope, head_dim, n_positions, key.sequence_length, key.of_queries);
  }
  return table;
}

std::string ModelWeights::why_not_finite() const {
  if (const auto found = find_not_finite(config_, checkpoint_)) {
    return *found + ": the checkpoint is broken, get it again";
  }
  return "all weights are finite: the model itself goes beyond the range of its numbers here";
}

Residency ModelWeights::default_residency(const ModelConfig& config, const kernels::Ops& ops) {
  const int64_t n_slots = ops.device().resident_layers(config.n_layers);
  if (n_slots == config.n_layers) return {.n_layers = config.n_layers, .n_kept = n_slots};
  return {.n_layers = config.n_layers, .n_buffers = n_slots};
}

int64_t ModelWeights::predicted_bytes(const ModelConfig& config, const Checkpoint& checkpoint, const kernels::Ops& ops,
                                      const std::optional<Residency>& residency) {
  const Residency chosen = residency.value_or(default_residency(config, ops));
  return largest_layer(config, checkpoint, ops, matrix_bytes) * chosen.n_slots() +
         shared_bytes(shared_tensors(config, checkpoint), config.tied_embeddings, ops) +
         (chosen.keeps_all() ? 0 : largest_packed(config, checkpoint, ops));
}

}  // namespace winnow::model
