// The rotary tables of all positions that a computation needs, in the backend's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weights.h"

namespace winnow::engine {

// A sequence whose rows are to be turned.
struct TurnedSequence {
  int64_t length = 0;       // tokens of the whole sequence, on which some rotary embeddings depend
  int64_t n_positions = 0;  // that are asked for
};

class RotaryTable {
 public:
  RotaryTable(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
              std::span<const TurnedSequence> sequences);
  // Returns the backend memory that the tables take, bytes.
  static int64_t bytes(const model::ModelConfig& config, std::span<const TurnedSequence> sequences);

  // Returns the place of a position of a sequence of that length: what angles() takes.
  int32_t place(int64_t length, int64_t position) const;
  // Returns the angles of rows at these places, which are in the backend's memory, in the layers with that rotary
  // embedding.
  model::LayerAngles angles(std::span<const int32_t> places, int32_t rope) const;

 private:
  // Sequences whose angles are the same, for all rotary embeddings of the model.
  struct Class {
    std::vector<int64_t> lengths;  // model::length_class() of each embedding
    int64_t n_positions = 0;
    int64_t first_place = 0;
  };
  static std::vector<Class> classes_of(const model::ModelConfig& config, std::span<const TurnedSequence> sequences);
  static std::vector<int64_t> lengths_of(const model::ModelConfig& config, int64_t length);

  const model::ModelConfig& config_;
  std::vector<Class> classes_;
  std::vector<std::unique_ptr<kernels::Buffer>> memory_;
  struct Tables {
    kernels::Matrix keys, queries;  // (places, head_dim); the same where queries are not scaled
  };
  std::vector<Tables> tables_;  // one a rotary embedding
};

}  // namespace winnow::engine
