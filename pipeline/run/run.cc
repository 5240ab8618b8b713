#include "pipeline/run/run.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory_limits.h"
#include "base/node.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "kernels/cpu/cpu.h"
#include "kernels/profiled_ops.h"
#include "pipeline/engine/sweep_layout.h"
#include "pipeline/run/profile_report.h"
#include "pipeline/run/progress.h"

namespace winnow::run {
namespace {

// Of the memory that is free: the rest is for the map of the weights, HDF5 and the host's other needs.
constexpr double kMemoryShare = 0.8;
// Of the host's memory, which a GPU's cached keys and values may lock.
constexpr double kHostShare = 0.5;

}  // namespace

MeasuringRun::MeasuringRun(runtime::MpiSession& session, const RunOptions& options)
    : session_(session), options_(options), signals_(session.under_mpirun()) {
  start_log(session.is_root());
}

void MeasuringRun::set_up(const std::function<Inputs()>& load) {
  if (options_.profile) session_.show_timeline();
  // A driver takes its time to start, which the inputs take as well.
  const std::future<void> driver = wake_driver(options_);
  session_.agree([&] {
    const auto part = in(Part::kInputs);
    inputs_ = load();
    n_threads_ = choose_threads(options_, session_.resources());
    if (session_.is_root()) hash_.emplace(*inputs_.checkpoint);
  });
  session_.agree_on_root([&] { check_run_outputs(options_.out, inputs_.other_outputs, inputs_.read_paths(options_)); });
  const auto part = in(Part::kDevice);
  if (driver.valid()) driver.wait();
  gpu_ = choose_gpu(options_, session_);
  // All that may fail on one rank alone comes before the first step in which ranks wait for each other's weights.
  session_.agree([&] {
    ops_ = make_backend(options_, gpu_, n_threads_, inputs_.config.checkpoint_dtype);
    require_model(inputs_.config, ops_->device());
    if (ops_->device().activation_dtype() == kernels::DType::kBf16 &&
        inputs_.config.checkpoint_dtype != kernels::DType::kBf16) {
      inputs_.warnings.push_back(
          "the checkpoint is not bfloat16: the GPU computes with its weights rounded to bfloat16");
    }
    prepare_attention();
    for (const DataSet& data : inputs_.data_sets) {
      int64_t token_slots = 0;
      for (int64_t e = 0; options_.per_token && e < data.n_examples; ++e) {
        token_slots = std::max(token_slots, data.n_answer(e));
      }
      cells_.emplace_back(data.n_examples, static_cast<int64_t>(inputs_.variants.size()), token_slots,
                          inputs_.signal_layout());
    }
  });
  make_weights();
  log_set_up();
}

// The longest example is likely the first: what its attention needs is made ready while the weights load.
void MeasuringRun::prepare_attention() {
  const auto part = in(Part::kLibraries);
  MissingCells longest;
  std::size_t n_tokens = 0;
  for (std::size_t d = 0; d < inputs_.data_sets.size(); ++d) {
    const DataSet& data = inputs_.data_sets[d];
    for (int64_t e = 0; e < data.n_examples; ++e) {
      if (data.corpus.example(e).size() <= n_tokens) continue;
      n_tokens = data.corpus.example(e).size();
      longest = {.data_set = static_cast<int64_t>(d), .example = e, .base = true, .variants = {}};
    }
  }
  const engine::SweepRequest request = inputs_.request(longest, inputs_.wanted, options_.per_token);
  ops_->prepare_attention(engine::attention_shapes(inputs_.config, request, ops_->device().row_tile()),
                          inputs_.config.heads);
}

void MeasuringRun::log_set_up() const {
  const Settings& settings = inputs_.settings;
  spdlog::info("{}: {} layers, {}", options_.model.string(), inputs_.config.n_layers, ops_->device().description());
  spdlog::info("attention: {}; residual stream: {}", ops_->device().attention_path(inputs_.config.heads),
               kernels::dtype_name(ops_->device().residual_dtype()));
  for (const DataSet& data : inputs_.data_sets) {
    spdlog::info("{}: {} examples of {}", data.name, data.n_examples, data.corpus.path.string());
  }
  spdlog::info("{} rank(s), {} thread(s) on this one; a windowed layer sees {} keys and {} sinks, answers decode {}{}",
               session_.size(), n_threads_, settings.window_keys, settings.sinks, settings.decode_name(),
               settings.tail_rows ? fmt::format(", last {} prompt rows only", *settings.tail_rows) : "");
  if (!settings.other_window_keys.empty()) {
    spdlog::info("every layer under each window of {}", joined(settings.windows()));
  }
  if (settings.per_kv_head) {
    spdlog::info("every key head of every layer alone, too: {} lanes an example", inputs_.wanted.size());
  }
  if (!settings.kv_types.empty()) {
    spdlog::info("every layer with keys and values in each of bf16, {}", joined_names(settings.kv_types));
  }
  for (const std::string& warning : inputs_.warnings) spdlog::info("warning: {}", warning);
  const auto online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const bool is_default_binding = session_.under_mpirun() && std::getenv("SLURM_JOB_ID") == nullptr;
  if (is_default_binding && options_.threads == 0 && session_.resources().host_cores < online) {
    spdlog::info(
        "warning: mpirun bound the ranks of this host to {} of its {} cores; mpirun --bind-to none lets them "
        "share all",
        session_.resources().host_cores, online);
  }
}

void MeasuringRun::open(const std::function<void(const RunIdentity&)>& check) {
  const auto part = in(Part::kRunDirectory);
  session_.agree_on_root([&] {
    session_.timeline().enter(Part::kHash);
    const std::string sha256 = hash_->get();
    hash_.reset();
    session_.timeline().enter(Part::kRunDirectory);
    identity_ = identity_of(inputs_, *ops_, sha256);
    measurement_ = identity_.hash();
    if (check) check(identity_);
    if (options_.dry_run) {
      RunRecord record = RunRecord::read(options_.out);
      record.adopt(identity_, control_hashes(inputs_.data_sets));
    } else {
      directory_ = std::make_unique<RunDirectory>(options_.out, session_.host(), identity_, inputs_.data_sets);
    }
    NumberVariant number;
    if (inputs_.names_variants()) {
      number = [this](const std::string& name) { return inputs_.number_of_name(name); };
    }
    const BadShards bad = options_.dry_run ? BadShards::kLeave : BadShards::kSetAside;
    for (const std::string& note : load_shards(options_.out, measurement_, inputs_.data_sets, cells_, bad, number)) {
      spdlog::warn("{}", note);
    }
  });
  session_.broadcast(measurement_);
  watch_ = watch_checkpoint(inputs_, session_, identity_.checkpoint_sha256);
  share_variants();
  // Every rank must see what rank 0 has made: a directory that is local to a host would lose its shards.
  session_.agree([&] {
    if (options_.dry_run || std::filesystem::is_directory(UnitStore::shards(options_.out).folder())) return;
    fail(ExitCode::kCannotCreate, options_.out.string() +
                                      ": the run directory that rank 0 made is not visible here; "
                                      "use one on a file system that all hosts share");
  });
}

// Patterns that only the shards knew get their numbers on rank 0: the others take them over.
void MeasuringRun::share_variants() {
  std::string names;
  for (const std::string& name : inputs_.variant_names) names += name + '\n';
  session_.broadcast(names);
  std::istringstream lines(names);
  for (std::string name; std::getline(lines, name);) inputs_.number_of_name(name);
}

bool MeasuringRun::plan() {
  const auto part = in(Part::kPlanning);
  for (ScoreTable& cells : cells_) cells.grow(static_cast<int64_t>(inputs_.variants.size()));
  units_.clear();
  std::vector<MissingCells> missing;
  session_.agree_on_root([&] { missing = find_missing(inputs_.data_sets, cells_, inputs_.wanted); });
  std::vector<int64_t> is_work{missing.empty() ? 0 : 1};
  session_.broadcast(is_work);
  if (is_work[0] == 0) {
    gather_facts();
    return false;
  }
  prepare();
  // Examples that belong to a rank are not cut so that others can help.
  const PlanLimits limits{.n_ranks = has_owners() ? 1 : session_.size(),
                          .max_bytes = memory_limit_ - inputs_.prefixes.backend_bytes};
  units_ = share_plan<WorkUnit>(
      session_,
      [&] {
        std::vector<WorkUnit> units = plan_units(missing, prices(), limits);
        charge_prefixes(units);
        return units;
      },
      encode_units, decode_units);
  return true;
}

// Once: the weights, the memory, the speed of this machine.
void MeasuringRun::prepare() {
  if (is_prepared_) return;
  load_weights();
  memory_limit_ = session_.minimum(options_.max_memory_bytes().value_or(default_memory_limit()));
  if (keeps_prefixes_) plan_prefixes_to_keep();
  session_.agree([&] {
    const auto part = in(Part::kRates);
    rates_ = engine::measure_rates(*ops_, inputs_.config, *weights_, samples(), inputs_.kv_types);
    ops_->device().reset_peak();
  });
  is_prepared_ = true;
}

// Kept is what is left beside the weights and the largest sweep: one over the tail with a lane for every layer, or one
// that makes a prefix, or, for an example without room, one over all rows with a single lane.
void MeasuringRun::plan_prefixes_to_keep() {
  const model::ModelConfig& config = inputs_.config;
  inputs_.row_tile = ops_->device().row_tile();
  const auto n_layers = static_cast<std::size_t>(config.n_layers);
  Variant fullest{.windowed = engine::Pattern(n_layers, true),
                  .window_keys = std::vector(n_layers, inputs_.settings.window_keys)};
  // A sweep has a copy of the base's keys for each type that any of its layers has.
  for (std::size_t l = 0; l < n_layers && !inputs_.kv_types.empty(); ++l) {
    fullest.kv.push_back(inputs_.kv_types[l % inputs_.kv_types.size()]);
  }
  std::vector<int64_t> sizes;
  int64_t largest = 0;
  for (int64_t e = 0; e < inputs_.data_sets.front().n_examples; ++e) {
    engine::SweepRequest request =
        inputs_.request({.data_set = 0, .example = e, .base = true, .variants = {}}, {}, false);
    const kernels::Window window = inputs_.window_of(0, e);
    request.variants = {inputs_.settings.layer_windows(fullest, window)};
    largest = std::max(largest, engine::predict_sweep_bytes(config, *ops_, std::span(&request, 1)));
    const auto n_tokens = static_cast<int64_t>(request.tokens.size());
    request.prefix_rows = engine::cached_rows(n_tokens, inputs_.narrowest_of(window), inputs_.row_tile);
    sizes.push_back(engine::CachedPrefix::size_bytes(config, *ops_, request.prefix_rows));
    if (request.prefix_rows == 0) continue;
    largest = std::max(
        largest, engine::CachedPrefix::workspace_bytes(config, *ops_, request, engine::CachedPrefix::Place::kHost));
    request.variants.assign(n_layers, request.variants.front());
    largest = std::max(largest, engine::predict_sweep_bytes(config, *ops_, std::span(&request, 1)));
  }
  const int64_t taken = weight_bytes() + largest;
  const bool has_own_memory = ops_->device().free_bytes().has_value();
  const int64_t staged = staged_ ? weights_->staged_bytes() / session_.local_size() : 0;
  const auto on_host =
      static_cast<int64_t>(kHostShare * static_cast<double>(session_.resources().available_bytes - staged));
  inputs_.prefixes = engine::plan_prefixes(sizes, session_.size(),
                                           {.backend_bytes = std::max<int64_t>(0, memory_limit_ - taken),
                                            .host_bytes = session_.minimum(has_own_memory ? on_host : 0)});
  prefixes_ = std::make_unique<engine::PrefixCache>(*ops_, config, *weights_);
  const auto count = [&](engine::CachedPrefix::Place place) {
    return std::count(inputs_.prefixes.place.begin(), inputs_.prefixes.place.end(), std::optional(place));
  };
  spdlog::info("keys and values before the tail: kept for {} of {} examples{}, up to {} a rank",
               count(engine::CachedPrefix::Place::kBackend) + count(engine::CachedPrefix::Place::kHost), sizes.size(),
               inputs_.prefixes.host_bytes == 0
                   ? ""
                   : fmt::format(", for {} of them in the host's memory", count(engine::CachedPrefix::Place::kHost)),
               format_bytes(inputs_.prefixes.backend_bytes + inputs_.prefixes.host_bytes));
}

void MeasuringRun::drop_prefixes() {
  keeps_prefixes_ = false;
  prefixes_.reset();
  has_prefix_.clear();
  inputs_.prefixes = {};
}

// What this rank may use: of the memory that is free, and that it has taken already.
int64_t MeasuringRun::default_memory_limit() const {
  const std::optional<int64_t> device = ops_->device().free_bytes();
  const int64_t sharers = std::max(gpu_.n_sharers, 1);
  // Backend and threads have mapped memory of their own since the session began.
  const int64_t of_host = std::min(session_.resources().available_bytes, unused_address_space_bytes());
  const int64_t available = device ? *device / sharers + ops_->device().allocated_bytes() : of_host;
  return static_cast<int64_t>(kMemoryShare * static_cast<double>(available));
}

bool MeasuringRun::measure() {
  const double expected = predict_units();
  Progress progress(units_, expected);
  if (session_.is_root()) {
    int64_t n_cells = 0;
    int64_t n_missing = 0;
    for (const DataSet& data : inputs_.data_sets) {
      n_cells += data.n_wanted * (static_cast<int64_t>(data.wanted_of(inputs_.wanted).size()) + 1);
    }
    for (const WorkUnit& unit : units_) n_missing += unit.n_cells();
    progress.keep_in(options_.out, n_cells - n_missing, n_cells);
    spdlog::info("{} unit(s), about {}, {} of memory a rank (--max-memory is {})", units_.size(),
                 format_duration(expected), format_bytes(largest_unit_bytes()), format_bytes(memory_limit_));
  }
  kernels::ProfiledOps profiled(*ops_);
  const MeasureContext context{.inputs = inputs_,
                               .ops = options_.profile ? profiled : *ops_,
                               .weights = *weights_,
                               .watch = *watch_,
                               .shards = UnitStore::shards(options_.out).folder(),
                               .measurement = measurement_,
                               .made_by = "rank " + std::to_string(session_.rank()) + " on " + session_.host(),
                               .per_token = options_.per_token,
                               .max_bytes = memory_limit_ - inputs_.prefixes.backend_bytes,
                               .weight_bytes = weight_bytes(),
                               .stack_rows = stack_rows(),
                               .n_ranks = session_.size(),
                               .rank = session_.rank(),
                               .prefixes = prefixes_.get()};
  WorkLoop loop(session_, signals_, options_.grace_seconds, static_cast<int64_t>(units_.size()),
                [&](std::optional<int64_t> unit, double) {
                  if (unit) {
                    progress.done(*unit);
                  } else {
                    progress.tick();
                  }
                });
  const auto begin = Clock::now();
  const MeasureReport report = measure_units(context, units_, loop, cells_);
  measured_seconds_ += seconds_since(begin);
  predicted_seconds_ += expected;
  report_.units += report.units;
  report_.busy_seconds += report.busy_seconds;
  report_.predicted_bytes = std::max(report_.predicted_bytes, report.predicted_bytes + inputs_.prefixes.backend_bytes);
  units_done_ = loop.n_done();
  note_prefixes();
  std::vector<int64_t> done{progress.cells_done()};
  session_.broadcast(done);
  cells_done_ = done[0];
  gather_facts();
  session_.agree_on_root([&] {
    if (options_.profile) {
      const auto part = in(Part::kProfile);
      if (!ceilings_) ceilings_ = engine::measure_ceilings(*ops_);
      const kernels::Profile profile = profiled.profile();
      profile_ = profile_json(profile, *ceilings_);
      std::fputs(profile_table(profile, *ceilings_).c_str(), stderr);
    }
    note_run();
  });
  return units_done_ == static_cast<int64_t>(units_.size());
}

void MeasuringRun::sum() {
  const auto part = in(Part::kSums);
  for (ScoreTable& cells : cells_) {
    exchange_->sum(cells.statistics());
    exchange_->sum(cells.tokens());
  }
  session_.agree_on_root([&] {
    const bool is_consistent =
        std::all_of(cells_.begin(), cells_.end(), [](const ScoreTable& c) { return c.is_consistent(); });
    const auto missing = find_missing(inputs_.data_sets, cells_, inputs_.wanted);
    if (!is_consistent || !missing.empty()) {
      fail(ExitCode::kInternal, "the ranks' tables do not add up to the plan; the shards are kept: repeat the command");
    }
    for (const DataSet& data : inputs_.data_sets) check_unchanged(data.corpus);
  });
  if (options_.profile) timelines_ = session_.timelines();
  // What is on rank 0 now must not be added once more after another round.
  if (session_.is_root()) return;
  for (ScoreTable& cells : cells_) cells.clear();
}

ExitCode MeasuringRun::interrupted() const {
  if (session_.is_root()) say_stopped(signals_.name(), units_done_, units_.size(), "units of this run", options_.out);
  return ExitCode::kInterrupted;
}

RankFacts MeasuringRun::facts() const {
  return {.host = session_.host(),
          .processor = processor_name(),
          .kernels = ops_->device().name() == "cpu" ? cpu::cpu_kernels() : "",
          .backend = ops_->device().description(),
          .threads = n_threads_,
          .available_bytes = session_.resources().available_bytes,
          .predicted_bytes = report_.predicted_bytes,
          .peak_allocated_bytes = ops_->device().peak_allocated_bytes(),
          .peak_resident_bytes = peak_resident_bytes(),
          .reduction = exchange_ ? exchange_->reduction() : "",
          .load_bytes = loaded_.was_read_here ? loaded_.size_bytes : 0,
          .load_seconds = loaded_.seconds,
          .units = report_.units,
          .busy_seconds = report_.busy_seconds};
}

void MeasuringRun::gather_facts() {
  all_facts_.clear();
  for (const std::string& text : session_.gather(json_text(facts().to_json(), -1))) {
    all_facts_.push_back(RankFacts::from_json(nlohmann::json::parse(text)));
  }
}

// Where the time of all ranks went until they last met, and that of this one until now.
nlohmann::json MeasuringRun::timeline() const {
  if (timelines_.empty()) return nullptr;
  std::vector<std::vector<double>> ranks = timelines_;
  ranks.front() = session_.timeline().seconds();
  return timeline_json(ranks);
}

void MeasuringRun::show_memory() const {
  const RankFacts most = largest_memory(all_facts_);
  spdlog::info("memory of a rank: {} predicted, {} at the peak of winnow's allocations, {} at the peak of the process",
               format_bytes(most.predicted_bytes), format_bytes(most.peak_allocated_bytes),
               format_bytes(most.peak_resident_bytes));
}

void MeasuringRun::note_run() {
  nlohmann::json run = {{"command", options_.command},
                        {"ranks", session_.size()},
                        {"is_complete", units_done_ == static_cast<int64_t>(units_.size())},
                        {"units_done", units_done_},
                        {"cells_done", cells_done_},
                        {"wall_seconds", seconds_since(begin_)},
                        {"predicted_seconds", predicted_seconds_},
                        {"measured_seconds", measured_seconds_},
                        {"rank", nlohmann::json::array()}};
  if (!profile_.is_null()) run["profile"] = profile_;
  for (const RankFacts& rank : all_facts_) run["rank"].push_back(rank.to_json());
  nlohmann::json& informative = directory_->record().informative();
  std::set<std::string> processors;
  std::set<std::string> kernels;  // a record may be older than the field
  const auto note = [&](const RankFacts& rank) {
    processors.insert(rank.processor);
    if (!rank.kernels.empty()) kernels.insert(rank.kernels);
  };
  for (const RankFacts& rank : all_facts_) note(rank);
  for (const nlohmann::json& past : informative["runs"]) {
    for (const nlohmann::json& rank : past["rank"]) note(RankFacts::from_json(rank));
  }
  if (processors.size() > 1 || kernels.size() > 1) {
    inputs_.warnings.push_back(processors.size() > 1
                                   ? "measured on processors of different types, whose last bits may differ"
                                   : "measured with kernels for different processors, whose last bits differ");
    spdlog::warn("warning: {}", inputs_.warnings.back());
  }
  for (const auto& [name, path] :
       {std::pair("model", options_.model.string()), std::pair("data", options_.data.string())}) {
    informative[name] = to_utf8(path);
    if (!is_utf8(path)) informative[std::string(name) + "_encoded"] = encoded_path(path);
  }
  informative["window"] = inputs_.settings.given_window;
  informative["target"] = options_.target;
  informative["warnings"] = inputs_.warnings;
  nlohmann::json& runs = informative["runs"];
  if (is_noted_) {
    for (const char* sum : {"units_done", "cells_done"}) {
      run[sum] = run[sum].get<int64_t>() + runs.back().value(sum, int64_t{0});
    }
    run["wall_seconds"] = run["wall_seconds"].get<double>() + runs.back().value("wall_seconds", 0.0);
    runs.erase(runs.size() - 1);
  }
  runs.push_back(run);
  is_noted_ = true;
  directory_->write_record();
  begin_ = Clock::now();
}

}  // namespace winnow::run
