// What nccl_test.cc starts with mpirun: ranks that share the first GPU. Exit codes: 0 right, 1 wrong, 77 nothing to
// test here, and winnow's own.
//
//   nccl_ranks sums      NCCL's sums are MPI's, bit for bit, and broadcasts arrive
//   nccl_ranks weights:MODEL  a rank that is sent the weights has those that it would have read
//   nccl_ranks silent    rank 1 stops answering: rank 0 must end the job at the deadline
#include <cuda_runtime.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_backend.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/runtime/exchange.h"
#include "pipeline/runtime/nccl.h"
#include "pipeline/runtime/session.h"

namespace winnow::runtime {
namespace {

constexpr int kWrong = 1;
constexpr int kNothingToTest = 77;

// A table of which each rank fills its own cells: any float64, the smallest and largest too.
template <typename T>
std::vector<T> cells_of(int rank, int size, std::size_t count) {
  std::mt19937_64 generator(11);
  std::vector<T> cells(count, T{0});
  for (std::size_t i = 0; i < count; ++i) {
    const auto exponent = static_cast<int>(generator() % 60) - 30;
    const auto mantissa = static_cast<double>(generator() >> 11) * 0x1p-53 - 0.5;
    const auto owner = static_cast<int>(generator() % static_cast<unsigned>(size + 1));  // size: nobody
    if (owner == rank) cells[i] = static_cast<T>(std::ldexp(mantissa, exponent));
  }
  return cells;
}

template <typename T>
bool sums_are_equal(MpiSession& session, Exchange& exchange, std::size_t count) {
  std::vector<T> over_nccl = cells_of<T>(session.rank(), session.size(), count);
  std::vector<T> over_mpi = over_nccl;
  exchange.sum(std::span(over_nccl));
  session.reduce_to_root(std::span(over_mpi));
  const bool is_equal = !session.is_root() || std::memcmp(over_nccl.data(), over_mpi.data(), count * sizeof(T)) == 0;
  if (!is_equal) std::fprintf(stderr, "%zu cells of %zu bytes: NCCL and MPI differ\n", count, sizeof(T));
  return is_equal;
}

// Pieces of sizes that are no round numbers, several on their way at a time.
bool broadcasts_arrive(MpiSession& session, NcclComm& comm, kernels::Ops& ops) {
  constexpr int64_t kSize = (int64_t{1} << 20) + 3;
  constexpr int kPieces = 5;
  const auto buffer = ops.device().allocate(kSize * kPieces, "a test");
  std::vector<unsigned char> expected(static_cast<std::size_t>(kSize * kPieces));
  std::mt19937 generator(3);
  for (unsigned char& byte : expected) byte = static_cast<unsigned char>(generator());
  auto* data = static_cast<unsigned char*>(buffer->data());
  const cudaStream_t stream = static_cast<cuda::CudaBackend&>(ops).stream();
  for (int piece = 0; piece < kPieces; ++piece) {
    const int64_t at = piece * kSize;
    if (session.is_root()) {
      // In the backend's stream, which the broadcast follows.
      WINNOW_CUDA_CHECK(cudaMemcpyAsync(data + at, expected.data() + at, kSize, cudaMemcpyHostToDevice, stream));
    }
    comm.broadcast(data + at, kSize);
  }
  comm.finish();
  std::vector<unsigned char> found(expected.size());
  WINNOW_CUDA_CHECK(cudaMemcpy(found.data(), data, found.size(), cudaMemcpyDeviceToHost));
  if (found != expected) std::fprintf(stderr, "rank %d: a broadcast did not arrive\n", session.rank());
  return found == expected;
}

int test_sums(MpiSession& session, kernels::Ops& ops, const GpuChoice& gpu) {
  Exchange exchange(session, ops, gpu);
  if (!exchange.reduction().starts_with("nccl")) {
    std::fprintf(stderr, "sums go over %s\n", exchange.reduction().c_str());
    return kWrong;
  }
  int64_t is_right = 1;
  // One, a few, exactly the step of 4 MiB, and several steps with a rest.
  for (const std::size_t count : {std::size_t{1}, std::size_t{1000}, std::size_t{1} << 19, std::size_t{1300007}}) {
    is_right = is_right != 0 && sums_are_equal<double>(session, exchange, count) ? 1 : 0;
    is_right = is_right != 0 && sums_are_equal<float>(session, exchange, count) ? 1 : 0;
    is_right = session.minimum(is_right);
  }
  const auto comm = NcclComm::make(session, RankGroup::kHost, ops);
  session.run_together([&] {
    if (!broadcasts_arrive(session, *comm, ops)) is_right = 0;
  });
  return session.minimum(is_right) == 1 ? 0 : kWrong;
}

// The bits of all matrices of a layer.
std::string layer_bytes(model::ModelWeights& weights, int64_t layer) {
  const model::LayerWeights& matrices = weights.layer(layer);
  std::string bytes;
  for (const kernels::Matrix& each : {matrices.attention_norm.weight, matrices.q, matrices.kv, matrices.o,
                                      matrices.mlp_norm.weight, matrices.gate_up, matrices.down}) {
    const std::size_t begin = bytes.size();
    bytes.resize(begin + static_cast<std::size_t>(each.rows * each.cols * size_bytes(each.dtype)));
    WINNOW_CUDA_CHECK(cudaMemcpy(bytes.data() + begin, each.data, bytes.size() - begin, cudaMemcpyDeviceToHost));
  }
  return bytes;
}

int test_weights(MpiSession& session, kernels::Ops& ops, const GpuChoice& gpu, const std::string& path) {
  Exchange exchange(session, ops, gpu);
  const model::ModelConfig config = model::read_config(path);
  const model::Checkpoint checkpoint(path, config.quantization);
  model::ModelWeights shared(config, checkpoint, ops, model::Loading::kLater);
  const LoadReport report = exchange.load(shared);
  model::ModelWeights own(config, checkpoint, ops, model::Loading::kLater);
  int64_t is_right = report.size_bytes == own.load() && report.was_read_here == session.is_root() ? 1 : 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (layer_bytes(shared, layer) == layer_bytes(own, layer)) continue;
    std::fprintf(stderr, "rank %d: layer %d is another\n", session.rank(), static_cast<int>(layer));
    is_right = 0;
  }
  return session.minimum(is_right) == 1 ? 0 : kWrong;
}

int test_silence(MpiSession& session, kernels::Ops& ops, const GpuChoice& gpu) {
  Exchange exchange(session, ops, gpu);
  if (session.rank() == 1) std::raise(SIGSTOP);
  std::vector<double> values(10, 1.0);
  exchange.sum(std::span(values));
  return kWrong;  // nobody answered, so there is no sum
}

int run(const std::string& test) {
  MpiSession session;
  if (cuda::cuda_device_count() == 0 || !NcclComm::is_built() || session.size() == 1) return kNothingToTest;
  try {
    const GpuChoice gpu{.device = 0, .n_sharers = session.size(), .host_ranks = session.size(), .host_gpus = 1};
    const auto ops = cuda::make_cuda_backend({.device = 0});
    constexpr std::string_view kWeights = "weights:";
    if (test.starts_with(kWeights)) return test_weights(session, *ops, gpu, test.substr(kWeights.size()));
    return test == "silent" ? test_silence(session, *ops, gpu) : test_sums(session, *ops, gpu);
  } catch (const AgreedFailure& failure) {
    return static_cast<int>(failure.code);
  } catch (...) {
    return static_cast<int>(session.end_job());
  }
}

}  // namespace
}  // namespace winnow::runtime

int main(int argc, char** argv) { return argc == 2 ? winnow::runtime::run(argv[1]) : 64; }
