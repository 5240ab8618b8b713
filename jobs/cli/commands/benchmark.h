// Times the backend's operations at a model's shapes, beside what this machine can do at all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::commands {

// Time of one operation on one call's rows. Work is what the mathematics needs: padding and skipped tiles do not count.
struct OperationTime {
  std::string name;
  double seconds = 0.0;  // best of the repetitions
  double flop = 0.0;     // additions and multiplications; 0 where the operation moves memory
  double bytes = 0.0;    // read and written at least once; 0 where the operation computes
};

struct BenchmarkSize {
  int64_t n_tokens = 0;       // rows of a call
  int64_t answer_tokens = 0;  // rows that are scored
  kernels::Window window;
  int n_repetitions = 3;
};

// Times all operations that a layer and the scoring use, with layer 0's weights.
std::vector<OperationTime> time_operations(kernels::Ops& ops, const model::ModelConfig& config,
                                           model::ModelWeights& weights, const BenchmarkSize& size);

// Time what the machine reaches with n_threads: one product of large matrices (OpenBLAS), one copy of a large array.
OperationTime time_large_sgemm(int n_threads, int n_repetitions);
OperationTime time_memory_copy(int n_threads, int n_repetitions);

// Times of one example's drop-one measurement, as one sweep and as separate passes over the layers.
struct SweepTimes {
  double sweep_seconds = 0.0;
  double separate_seconds = 0.0;  // of n_passes = measured layers + 1
  int64_t n_passes = 0;
  double largest_difference = 0.0;  // of an NLL, nats
};
SweepTimes time_sweep(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                      const BenchmarkSize& size);

}  // namespace winnow::commands
