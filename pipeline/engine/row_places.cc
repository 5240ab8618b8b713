#include "pipeline/engine/row_places.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "base/sha256.h"
#include "pipeline/engine/forward.h"

namespace winnow::engine {

namespace {

// Position of all rows of the trial tile: any that turns queries and keys.
constexpr int64_t kPosition = 5;
constexpr int kTrials = 3;

// What came out of each place of the tile, as bytes.
using Outcomes = std::vector<std::string>;

class Trial {
 public:
  Trial(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights)
      : ops_(ops),
        config_(config),
        weights_(weights),
        forward_(ops, config, weights, kPosition + 1),
        n_(ops.device().row_tile()) {
    const std::vector<int32_t> positions(static_cast<std::size_t>(n_), static_cast<int32_t>(kPosition));
    positions_ = ops.device().upload(positions, "positions of a trial");
    residual_ = ops.device().allocate(residual_bytes() * n_, "rows of a trial");
    q_ = ops.device().allocate(query_bytes() * n_, "queries of a trial");
    kv_ = ops.device().allocate(ops.device().kv_bytes(n_, config.heads), "keys of a trial");
    one_kv_ = ops.device().allocate(ops.device().kv_bytes(n_, config.heads), "keys of a place");
    final_ = ops.device().allocate(n_ * config.hidden * size_bytes(ops.device().activation_dtype()),
                                   "final rows of a trial");
  }

  // Every product of the model once: queries serve as attention's output.
  void run(int32_t token, Outcomes& outcomes) {
    const std::vector<int32_t> tokens(static_cast<std::size_t>(n_), token);
    const auto device_tokens = ops_.device().upload(tokens, "tokens of a trial");
    forward_.embed(static_cast<const int32_t*>(device_tokens->data()), residual_->data(), n_);
    const model::LayerWeights& layer = weights_.layer(0);
    const auto angles = forward_.rotary.angles(static_cast<const int32_t*>(positions_->data()));
    forward_.decoder.attention_input(layer, residual_->data(), angles, n_, kv_->data(), q_->data());
    append_rows(*q_, query_bytes(), outcomes);
    append_keys(outcomes);
    forward_.decoder.finish(layer, q_->data(), residual_->data(), n_);
    append_rows(*residual_, residual_bytes(), outcomes);
    std::vector<double> nll(static_cast<std::size_t>(n_), 0.0);
    std::vector<uint8_t> hits(static_cast<std::size_t>(n_), 0);
    forward_.score(residual_->data(), tokens, final_->data(), {.nll_nats = nll.data(), .is_argmax = hits.data()});
    for (std::size_t place = 0; place < outcomes.size(); ++place) {
      outcomes[place].append(reinterpret_cast<const char*>(&nll[place]), sizeof(double));
    }
  }

 private:
  int64_t residual_bytes() const { return config_.hidden * size_bytes(ops_.device().residual_dtype()); }
  int64_t query_bytes() const { return config_.heads.q_dim() * size_bytes(ops_.device().activation_dtype()); }

  std::string download(kernels::Buffer& from, int64_t size_bytes) {
    const auto host = ops_.device().allocate_host(size_bytes, "a trial");
    ops_.copy_async(from.data(), host->data(), size_bytes);
    ops_.device().synchronize();
    return {static_cast<const char*>(host->data()), static_cast<std::size_t>(size_bytes)};
  }

  void append_rows(kernels::Buffer& rows, int64_t row_bytes, Outcomes& outcomes) {
    const std::string bytes = download(rows, row_bytes * n_);
    const auto size = static_cast<std::size_t>(row_bytes);
    for (std::size_t place = 0; place < outcomes.size(); ++place) outcomes[place] += bytes.substr(place * size, size);
  }

  // The layout of keys is the backend's: each place's are brought to the first row of a block that is empty else.
  void append_keys(Outcomes& outcomes) {
    for (std::size_t place = 0; place < outcomes.size(); ++place) {
      const kernels::KvCopy copy{kv_->data(), static_cast<int64_t>(place), one_kv_->data(), 0, 1};
      ops_.copy_kv({&copy, 1}, config_.heads);
      outcomes[place] += sha256_of(download(*one_kv_, one_kv_->size_bytes()));
    }
  }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  Forward forward_;
  int64_t n_;
  std::unique_ptr<kernels::Buffer> positions_, residual_, q_, kv_, one_kv_, final_;
};

}  // namespace

RowPlaces::RowPlaces(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights) {
  Outcomes outcomes(static_cast<std::size_t>(ops.device().row_tile()));
  Trial trial(ops, config, weights);
  // Several tokens: one row may be rounded alike by chance, or be all zeros.
  for (int i = 0; i < kTrials; ++i) trial.run(static_cast<int32_t>((i + 1) * config.vocab / (kTrials + 2)), outcomes);
  std::map<std::string, int32_t> known;
  std::vector<int32_t> class_of_place;
  for (const std::string& outcome : outcomes) {
    class_of_place.push_back(known.try_emplace(outcome, static_cast<int32_t>(known.size())).first->second);
  }
  group(class_of_place);
}

RowPlaces::RowPlaces(const std::vector<int32_t>& class_of_place) { group(class_of_place); }

RowPlaces RowPlaces::natural(int64_t tile) {
  std::vector<int32_t> class_of_place(static_cast<std::size_t>(tile));
  std::iota(class_of_place.begin(), class_of_place.end(), 0);
  return RowPlaces(class_of_place);
}

void RowPlaces::group(const std::vector<int32_t>& class_of_place) {
  std::map<int32_t, std::size_t> index;
  for (std::size_t place = 0; place < class_of_place.size(); ++place) {
    const auto [known, is_new] = index.try_emplace(class_of_place[place], places_.size());
    if (is_new) places_.emplace_back();
    places_[known->second].push_back(static_cast<int64_t>(place));
    class_.push_back(known->second);
  }
}

int64_t RowPlaces::most_rows(std::vector<int64_t> positions) const {
  int64_t most = 0;
  for (std::size_t step = 0; step < class_.size(); ++step) {
    most = std::max(most, stack(positions).n_rows);
    for (int64_t& position : positions) ++position;
  }
  return most;
}

RowPlaces::Stack RowPlaces::stack(const std::vector<int64_t>& positions) const {
  const auto tile = static_cast<int64_t>(class_.size());
  std::vector<int64_t> n_of_class(places_.size(), 0);
  Stack stack;
  for (const int64_t position : positions) {
    const std::size_t c = class_[static_cast<std::size_t>(position % tile)];
    const auto n_places = static_cast<int64_t>(places_[c].size());
    const int64_t used = n_of_class[c]++;
    stack.at.push_back(used / n_places * tile + places_[c][static_cast<std::size_t>(used % n_places)]);
    stack.n_rows = std::max(stack.n_rows, (used / n_places + 1) * tile);
  }
  return stack;
}

}  // namespace winnow::engine
