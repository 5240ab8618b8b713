#include "pipeline/runtime/session.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>
#include <thread>

#include "base/memory_limits.h"
#include "base/node.h"
#include "pipeline/runtime/launch.h"

namespace winnow::runtime {
namespace {

// Elements of one reduction: counts are int, and a step of this size costs nothing.
constexpr std::size_t kReduceStep = std::size_t{1} << 24;

int64_t environment_number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoll(text, nullptr, 10);
}

// Waits without spinning: Open MPI's own waits keep a core busy, which a rank that still computes may need.
void wait_idle(MPI_Request* request) {
  auto pause = std::chrono::microseconds(20);
  int done = 0;
  while (true) {
    WINNOW_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE));
    if (done != 0) return;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(2000));
  }
}

void print_error(const std::string& prefix, const std::string& message) {
  std::fprintf(stderr, "winnow: %s%s\n", prefix.c_str(), one_line(message).c_str());
  std::fflush(stderr);
}

template <typename T>
void reduce_sum(std::span<T> values, MPI_Datatype type, bool is_root) {
  while (!values.empty()) {
    const std::size_t n = std::min(values.size(), kReduceStep);
    T* data = values.data();
    WINNOW_MPI(MPI_Reduce(is_root ? MPI_IN_PLACE : data, data, static_cast<int>(n), type, MPI_SUM, 0, MPI_COMM_WORLD));
    values = values.subspan(n);
  }
}

// srun without a PMI that this MPI knows starts N separate runs of one process each: say so, once.
void refuse_unconnected_tasks(int size, bool under_mpirun) {
  if (size != 1 || under_mpirun || std::getenv("SLURM_PROCID") == nullptr) return;
  const int64_t tasks = environment_number("SLURM_STEP_NUM_TASKS");
  if (tasks <= 1) return;
  fail(ExitCode::kUsage, "srun started " + std::to_string(tasks) +
                             " tasks, but MPI sees each alone; start them with srun --mpi=pmix or with mpirun");
}

}  // namespace

CaughtError describe_current_exception() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kOutOfMemory, "out of memory; use fewer ranks per host or a smaller --max-memory"};
  } catch (const std::exception& error) {
    return {ExitCode::kInternal, error.what()};
  } catch (...) {
    return {ExitCode::kInternal, "unknown exception"};
  }
}

MpiSession::MpiSession()
    : timeline_(seconds_since_process_start()), under_mpirun_(is_under_mpirun()), host_(host_name()) {
  const Timeline::Scope scope(timeline_, Part::kMpi);
  if (!may_have_peers()) {
    find_resources();
    return;
  }
  setenv("HOME", home_of_user().c_str(), 0);  // PMIx dies where it finds neither
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) {
    fail(ExitCode::kInternal, "MPI cannot start; check the MPI installation with: mpirun -n 2 hostname");
  }
  has_mpi_ = true;
  try {
    WINNOW_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    WINNOW_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
    WINNOW_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size_));
    if (provided < MPI_THREAD_MULTIPLE) {
      fail(ExitCode::kInternal, "this MPI gives thread level " + std::to_string(provided) +
                                    ", but MPI_THREAD_MULTIPLE is needed; use an Open MPI built with it (the default)");
    }
    refuse_unconnected_tasks(size_, under_mpirun_);
    find_host();
    find_resources();
    watch_peers();
  } catch (...) {
    MPI_Finalize();
    throw;
  }
}

MpiSession::~MpiSession() {
  peers_.reset();  // from here on a peer may end
  if (!has_mpi_) return;
  if (host_comm_ != MPI_COMM_NULL) MPI_Comm_free(&host_comm_);
  int finalized = 0;
  if (MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0) MPI_Finalize();
}

void MpiSession::find_host() {
  WINNOW_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host_comm_));
  WINNOW_MPI(MPI_Comm_set_errhandler(host_comm_, MPI_ERRORS_RETURN));
  WINNOW_MPI(MPI_Comm_rank(host_comm_, &local_rank_));
  WINNOW_MPI(MPI_Comm_size(host_comm_, &local_size_));
}

void MpiSession::watch_peers() {
  if (local_size_ == 1) return;
  const ProcessId own = ProcessId::own();
  const std::vector<std::string> ids = gather_on_host(own.to_text());
  const std::vector<std::string> ranks = gather_on_host(std::to_string(rank_));
  std::vector<LivenessMonitor::Peer> peers;
  for (std::size_t r = 0; r < ids.size(); ++r) {
    const auto id = ProcessId::from_text(ids[r]);
    // A container's numbers mean nothing outside it.
    if (static_cast<int>(r) != local_rank_ && id.name_space == own.name_space) peers.push_back({ranks[r], id.number});
  }
  const auto on_death = [this](const LivenessMonitor::Peer& peer) {
    print_error(prefix(), "rank " + peer.rank + " on " + host_ + " (process " + std::to_string(peer.process) +
                              ") has died; repeat the command to resume");
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kInternal));
  };
  peers_ = std::make_unique<LivenessMonitor>(std::move(peers), local_rank_, on_death);
}

void MpiSession::find_resources() {
  // Masks as bytes, one per possible core, from every rank of the host.
  constexpr int kMaxCores = 4096;
  const std::vector<int> cores = affinity_cores();
  std::string mine(kMaxCores, '\0');
  for (const int core : cores) {
    if (core < kMaxCores) mine[static_cast<std::size_t>(core)] = 1;
  }
  const std::vector<std::string> all = gather_on_host(mine);

  std::vector<std::vector<int>> masks(static_cast<std::size_t>(local_size_));
  int host_cores = 0;
  for (int core = 0; core < kMaxCores; ++core) {
    bool used = false;
    for (int r = 0; r < local_size_; ++r) {
      if (all[static_cast<std::size_t>(r)][static_cast<std::size_t>(core)] == 0) continue;
      masks[static_cast<std::size_t>(r)].push_back(core);
      used = true;
    }
    host_cores += used ? 1 : 0;
  }
  resources_.host_cores = host_cores;
  resources_.n_threads = share_of_cores(masks, local_rank_, group_cores());
  resources_.available_bytes = std::min(available_memory_bytes() / local_size_, unused_address_space_bytes());
}

std::string MpiSession::prefix() const {
  return size_ == 1 ? "" : "rank " + std::to_string(rank_) + " on " + host_ + ": ";
}

void MpiSession::agree(const std::function<void()>& step) {
  CaughtError error{ExitCode::kDone, ""};
  try {
    step();
  } catch (...) {
    error = describe_current_exception();
  }
  const bool is_end = timeline_.part() == Part::kLastUnits;
  const Timeline::Scope waiting(timeline_, is_end ? Part::kLastUnits : Part::kWaiting);
  const std::vector<double> codes = gather(static_cast<double>(error.code));
  const auto first = std::find_if(codes.begin(), codes.end(), [](double code) { return code != 0.0; });
  if (first == codes.end()) return;
  if (first - codes.begin() == rank_) print_error(prefix(), error.message);
  throw AgreedFailure{static_cast<ExitCode>(static_cast<int>(*first))};
}

void MpiSession::agree_on_root(const std::function<void()>& step) {
  agree([&] {
    if (is_root()) step();
  });
}

void MpiSession::run_together(const std::function<void()>& step) {
  try {
    step();
  } catch (...) {
    throw AgreedFailure{end_job()};
  }
}

ExitCode MpiSession::end_job() const {
  const CaughtError error = describe_current_exception();
  print_error(prefix(), error.message);
  if (size_ > 1) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(error.code));
  return error.code;
}

void MpiSession::broadcast(std::vector<int64_t>& values) {
  if (size_ == 1) return;
  int64_t count = static_cast<int64_t>(values.size());
  MPI_Request request = MPI_REQUEST_NULL;
  WINNOW_MPI(MPI_Ibcast(&count, 1, MPI_INT64_T, 0, MPI_COMM_WORLD, &request));
  wait_idle(&request);
  values.resize(static_cast<std::size_t>(count));
  if (count > INT_MAX) fail(ExitCode::kInternal, "a message of " + std::to_string(count) + " numbers is too long");
  WINNOW_MPI(MPI_Bcast(values.data(), static_cast<int>(count), MPI_INT64_T, 0, MPI_COMM_WORLD));
}

void MpiSession::broadcast(std::string& text) {
  if (size_ == 1) return;
  std::vector<int64_t> values(text.begin(), text.end());
  broadcast(values);
  text.clear();
  for (const int64_t value : values) text += static_cast<char>(value);
}

std::vector<std::string> MpiSession::gather(const std::string& text) {
  if (size_ == 1) return {text};
  const int mine = static_cast<int>(text.size());
  std::vector<int> sizes(static_cast<std::size_t>(size_), 0);
  WINNOW_MPI(MPI_Gather(&mine, 1, MPI_INT, sizes.data(), 1, MPI_INT, 0, MPI_COMM_WORLD));
  std::vector<int> offsets(sizes.size() + 1, 0);
  for (std::size_t r = 0; r < sizes.size(); ++r) offsets[r + 1] = offsets[r] + sizes[r];
  std::string all(static_cast<std::size_t>(offsets.back()), '\0');
  WINNOW_MPI(
      MPI_Gatherv(text.data(), mine, MPI_CHAR, all.data(), sizes.data(), offsets.data(), MPI_CHAR, 0, MPI_COMM_WORLD));
  std::vector<std::string> texts;
  if (!is_root()) return texts;
  for (std::size_t r = 0; r < sizes.size(); ++r) {
    texts.push_back(all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(sizes[r])));
  }
  return texts;
}

std::vector<double> MpiSession::gather(double value) {
  if (size_ == 1) return {value};
  std::vector<double> values(static_cast<std::size_t>(size_), 0.0);
  MPI_Request request = MPI_REQUEST_NULL;
  WINNOW_MPI(MPI_Iallgather(&value, 1, MPI_DOUBLE, values.data(), 1, MPI_DOUBLE, MPI_COMM_WORLD, &request));
  wait_idle(&request);
  return values;
}

std::vector<std::string> MpiSession::gather_on_host(const std::string& text) {
  if (local_size_ == 1) return {text};
  const int mine = static_cast<int>(text.size());
  std::vector<int> sizes(static_cast<std::size_t>(local_size_), 0);
  WINNOW_MPI(MPI_Allgather(&mine, 1, MPI_INT, sizes.data(), 1, MPI_INT, host_comm_));
  std::vector<int> offsets(sizes.size() + 1, 0);
  for (std::size_t r = 0; r < sizes.size(); ++r) offsets[r + 1] = offsets[r] + sizes[r];
  std::string all(static_cast<std::size_t>(offsets.back()), '\0');
  WINNOW_MPI(
      MPI_Allgatherv(text.data(), mine, MPI_CHAR, all.data(), sizes.data(), offsets.data(), MPI_CHAR, host_comm_));
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < sizes.size(); ++r) {
    texts.push_back(all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(sizes[r])));
  }
  return texts;
}

void MpiSession::broadcast(RankGroup group, std::span<std::byte> bytes) {
  if (size(group) == 1) return;
  const MPI_Comm comm = group == RankGroup::kJob ? MPI_COMM_WORLD : host_comm_;
  WINNOW_MPI(MPI_Bcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, 0, comm));
}

int64_t MpiSession::minimum(int64_t value) {
  if (size_ == 1) return value;
  WINNOW_MPI(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MIN, MPI_COMM_WORLD));
  return value;
}

int64_t MpiSession::maximum(int64_t value) {
  if (size_ == 1) return value;
  WINNOW_MPI(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD));
  return value;
}

void MpiSession::reduce_to_root(std::span<double> values) {
  if (size_ > 1) reduce_sum(values, MPI_DOUBLE, is_root());
}

void MpiSession::reduce_to_root(std::span<float> values) {
  if (size_ > 1) reduce_sum(values, MPI_FLOAT, is_root());
}

std::vector<std::vector<double>> MpiSession::timelines() {
  std::vector<std::vector<double>> timelines;
  for (const std::string& text : gather(Timeline::to_text(timeline_.seconds()))) {
    timelines.push_back(Timeline::from_text(text));
  }
  return timelines;
}

ExitCode in_session(const std::function<ExitCode(MpiSession&)>& run) {
  std::optional<MpiSession> session(std::in_place);
  try {
    const ExitCode code = run(*session);
    if (!session->shows_timeline()) return code;
    std::vector<std::vector<double>> timelines = session->timelines();
    const auto begin = Clock::now();
    session.reset();
    if (timelines.empty()) return code;  // rank 0 speaks
    timelines.front()[static_cast<std::size_t>(Part::kTeardown)] += seconds_since(begin);
    std::fputs(timeline_table(timelines).c_str(), stderr);
    return code;
  } catch (const AgreedFailure& failure) {
    return failure.code;
  } catch (...) {
    if (session) return session->end_job();
    throw;
  }
}

}  // namespace winnow::runtime
