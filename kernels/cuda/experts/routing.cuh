// Which experts compute which rows, found on the device: nothing waits for the host.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/experts.h"

namespace winnow::cuda {

// The most experts that there may be, and that may be chosen for a row.
inline constexpr int kMaxExperts = 512;
inline constexpr int kMaxChosen = 32;

// Rows of a tile of a product.
inline constexpr int kExpertTileRows = 128;

// Rows of one expert at consecutive places; none: an entry that is not used.
struct ExpertTile {
  int expert;
  int first;  // place
  int n_rows;
};

// Memory of the device. A slot is row * top_k + k, with the experts of a row in ascending order; places count the slots
// sorted by expert, and within an expert by row.
struct Routing {
  int* chosen;        // (n_slots): expert
  float* weights;     // (n_slots): its weight in the sum
  int* places;        // (n_slots): its place
  int* rows;          // (n_slots), by place: the row
  int* counts;        // (n_experts): rows
  int* firsts;        // (n_experts): place of the first
  ExpertTile* tiles;  // (n_tiles)
  int64_t n_tiles;    // from most_expert_tiles()
};

// Returns how many tiles n_slots rows can need, however they are spread.
constexpr int64_t most_expert_tiles(int64_t n_slots, int64_t n_experts) {
  return n_slots / kExpertTileRows + std::min(n_slots, n_experts);
}

// Chooses the experts of rows by their logits, float32 (n_rows, n_experts), and lists them. n_rows * top_k < 2^31.
void route(const float* logits, int64_t n_rows, const kernels::Router& router, const Routing& to, cudaStream_t stream);

}  // namespace winnow::cuda
