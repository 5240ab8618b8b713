#include "pipeline/runtime/exchange.h"

#include <chrono>
#include <cstdlib>

#include "base/error.h"

namespace winnow::runtime {
namespace {

// Of a host's ranks the first reads.
class NcclSharing final : public model::WeightSharing {
 public:
  NcclSharing(NcclComm& comm, bool reads) : comm_(comm), reads_(reads) {}
  bool reads() const override { return reads_; }
  void share(std::span<std::byte> memory) override {
    comm_.broadcast(memory.data(), static_cast<int64_t>(memory.size()));
  }
  void finish() override { comm_.finish(); }

 private:
  NcclComm& comm_;
  bool reads_;
};

void set_nccl_environment(MpiSession& session, const GpuChoice& gpu) {
  const NcclPlace place{.host = session.host(),
                        .rank = session.rank(),
                        .shares_gpu = gpu.is_shared(),
                        .is_any_shared = session.maximum(gpu.is_shared() ? 1 : 0) == 1,
                        .is_one_host = session.size() == session.local_size(),
                        .interface_is_given = std::getenv("NCCL_SOCKET_IFNAME") != nullptr};
  for (const auto& [name, value] : nccl_environment(place)) {
    if (setenv(name.c_str(), value.c_str(), 1) != 0) fail(ExitCode::kOutOfMemory, "no memory for the environment");
  }
}

}  // namespace

Exchange::Exchange(MpiSession& session, kernels::Ops& ops, const GpuChoice& gpu) : session_(session) {
  if (session.size() == 1) {
    reduction_ = "none";
    return;
  }
  const bool can_use_nccl = NcclComm::is_built() && ops.device().name() == "cuda";
  if (session.minimum(can_use_nccl ? 1 : 0) == 0) {
    reduction_ = "mpi";
    return;
  }
  set_nccl_environment(session, gpu);
  reduction_ = "nccl " + NcclComm::version();
  job_ = NcclComm::make(session, RankGroup::kJob, ops);
  // Hosts may differ in how many ranks they have, but all know whether they are the only one.
  if (session.size() != session.local_size()) host_ = NcclComm::make(session, RankGroup::kHost, ops);
  session.run_together([&] {
    double n_ranks = 1.0;
    job_->sum({&n_ranks, 1});
    if (n_ranks == session.size()) return;
    fail(ExitCode::kInternal, "NCCL counts " + std::to_string(n_ranks) + " ranks, but MPI " +
                                  std::to_string(session.size()) + "; build with -DWINNOW_NCCL=OFF to do without it");
  });
}

LoadReport Exchange::load(model::ModelWeights& weights) {
  const auto begin = std::chrono::steady_clock::now();
  LoadReport report;
  if (!job_) {
    session_.agree([&] { report.size_bytes = weights.load(); });
  } else {
    report.was_read_here = session_.local_rank() == 0;
    const bool is_one_host = session_.size() == session_.local_size();
    NcclComm* comm = is_one_host ? job_.get() : host_.get();  // null where this rank is alone on its host
    session_.run_together([&] {
      if (comm == nullptr) {
        report.size_bytes = weights.load();
        return;
      }
      NcclSharing sharing(*comm, report.was_read_here);
      report.size_bytes = weights.load(&sharing);
    });
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  host_.reset();
  return report;
}

void Exchange::sum(std::span<double> values) {
  if (job_) {
    session_.run_together([&] { job_->sum(values); });
  } else {
    session_.reduce_to_root(values);
  }
}

void Exchange::sum(std::span<float> values) {
  if (job_) {
    session_.run_together([&] { job_->sum(values); });
  } else {
    session_.reduce_to_root(values);
  }
}

}  // namespace winnow::runtime
