#include "pipeline/engine/row_places.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "base/sha256.h"
#include "pipeline/engine/forward.h"
#include "pipeline/engine/pass_buffers.h"

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
        forward_(ops, config, weights, std::vector<TurnedSequence>{{kPosition + 1, kPosition + 1}}),
        n_(ops.device().row_tile()),
        buffers_(ops, config),
        residual_(buffers_.residual(n_, "rows of a trial")),
        q_(buffers_.queries(n_, "queries of a trial")),
        final_(buffers_.hidden(n_, "final rows of a trial")),
        kv_(buffers_.keys(n_, "keys of a trial")),
        one_kv_(buffers_.keys(n_, "keys of a place")) {
    const std::vector<int32_t> positions(static_cast<std::size_t>(n_), static_cast<int32_t>(kPosition));
    positions_ = ops.device().upload(positions, "positions of a trial");
    buffers_.allocate(ops);
  }

  // Every product of the model once: queries serve as attention's output.
  void run(int32_t token, Outcomes& outcomes) {
    const std::vector<int32_t> tokens(static_cast<std::size_t>(n_), token);
    const auto device_tokens = ops_.device().upload(tokens, "tokens of a trial");
    const kernels::Rows residual = buffers_.at(residual_);
    const kernels::Rows q = buffers_.at(q_);
    forward_.embed(device_tokens->as<int32_t>(), residual);
    const model::LayerWeights& layer = weights_.layer(0);
    const auto angles = forward_.rotary.angles(positions_->as<int32_t>(), layer.rope);
    forward_.decoder.attention_input(layer, residual, angles, buffers_.at(kv_), q);
    append_rows(q, outcomes);
    append_keys(outcomes);
    forward_.decoder.finish(layer, q, residual);
    append_rows(residual, outcomes);
    std::vector<double> nll(static_cast<std::size_t>(n_), 0.0);
    std::vector<uint8_t> hits(static_cast<std::size_t>(n_), 0);
    forward_.score(residual, tokens, buffers_.at(final_), {.nll_nats = nll, .is_argmax = hits});
    for (std::size_t place = 0; place < outcomes.size(); ++place) {
      outcomes[place].append(reinterpret_cast<const char*>(&nll[place]), sizeof(double));
    }
  }

 private:
  std::string download(std::span<const std::byte> from) {
    const auto host = ops_.device().allocate_host(static_cast<int64_t>(from.size()), "a trial");
    ops_.copy_async(from, host->bytes());
    ops_.device().synchronize();
    return {static_cast<const char*>(host->data()), from.size()};
  }

  void append_rows(kernels::ConstRows rows, Outcomes& outcomes) {
    const std::string bytes = download(rows.bytes());
    const auto size = static_cast<std::size_t>(rows.slice(0, 1).size_bytes());
    for (std::size_t place = 0; place < outcomes.size(); ++place) outcomes[place] += bytes.substr(place * size, size);
  }

  // The layout of keys is the backend's: each place's are brought to the first row of a block that is empty else.
  void append_keys(Outcomes& outcomes) {
    for (std::size_t place = 0; place < outcomes.size(); ++place) {
      const kernels::KvCopy copy{buffers_.at(kv_), static_cast<int64_t>(place), buffers_.at(one_kv_), 0, 1};
      ops_.copy_kv({&copy, 1}, config_.heads);
      outcomes[place] += sha256_of(download(buffers_.at(one_kv_).bytes()));
    }
  }

  kernels::Ops& ops_;
  const model::ModelConfig& config_;
  model::ModelWeights& weights_;
  Forward forward_;
  int64_t n_;
  PassBuffers buffers_;
  PassBuffers::RowsId residual_, q_, final_;
  PassBuffers::KeysId kv_, one_kv_;
  std::unique_ptr<kernels::Buffer> positions_;
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
