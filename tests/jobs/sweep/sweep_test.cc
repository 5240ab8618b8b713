// Sweeps without running one: what a sweep file says and what is wrong with it, cells and their names, states, prices.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/node.h"
#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/cells.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/executors/local/executor.h"
#include "jobs/sweep/files.h"
#include "jobs/sweep/price.h"
#include "jobs/sweep/report.h"
#include "jobs/sweep/submission.h"
#include "jobs/sweep/sweep_schema.h"
#include "pipeline/engine/sweep_plan.h"
#include "pipeline/runtime/lock.h"
#include "tests/scratch.h"

namespace winnow::sweep {
namespace {

namespace fs = std::filesystem;

// A folder with models a and b, which have a config.json, and calibration files that are only looked for.
class SweepFolder : public ::testing::Test {
 protected:
  SweepFolder() {
    for (const char* model : {"a", "b"}) {
      fs::create_directories(root() / "models" / model);
      std::ofstream(root() / "models" / model / "config.json") << "{}";
      fs::create_directories(root() / "data" / model);
      for (const char* data : {"long.h5", "code.h5", "short.h5"}) std::ofstream(root() / "data" / model / data) << "x";
    }
  }

  const fs::path& root() const { return scratch_.path(); }

  fs::path write(const std::string& text, const std::string& name = "night.yaml") const {
    std::ofstream(root() / name) << text;
    return root() / name;
  }

  Sweep read(const std::string& more) const { return read_sweep(write(kGood + more)); }

  // The lines of the refusal, without the path; empty when there is none.
  std::vector<std::string> problems(const std::string& text, ExitCode code = ExitCode::kUsage) const {
    const fs::path path = write(text, "bad.yaml");
    try {
      read_sweep(path);
    } catch (const SweepFileError& error) {
      EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
      std::vector<std::string> lines;
      for (const std::string& line : error.lines()) {
        EXPECT_TRUE(line.starts_with(path.string() + ":")) << line;
        lines.push_back(line.substr(path.string().size() + 1));
      }
      return lines;
    }
    return {};
  }

  static std::set<std::string> names(const Sweep& sweep) {
    std::set<std::string> found;
    for (const SweepCell& cell : sweep.cells) found.insert(cell.cell.name);
    return found;
  }

  const std::string kGood =
      "name: night\noutput: out\n"
      "models:\n- {name: a, path: models/a, ranks_per_node: 2}\n- {name: b, path: models/b}\n"
      "datasets:\n- {name: long, data: 'data/{model}/long.h5'}\n- {name: code, data: 'data/{model}/code.h5'}\n"
      "windows: [64, 128]\n";

  ScratchDirectory scratch_;
};

void expect_line(const std::vector<std::string>& lines, const std::string& begin) {
  const bool is_there = std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
    return line.starts_with(begin) && (line.find("expected") != std::string::npos);
  });
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  EXPECT_TRUE(is_there) << begin << " in\n" << all;
}

// ---- what is wrong with a file --------------------------------------------------------------------------------------

TEST_F(SweepFolder, MalformedYamlHasAPlace) {
  expect_line(problems("name: [1, 2\nmodels: }"), "2:");
  expect_line(problems("just text"), "1:1: a sweep is 'just text'");
  expect_line(problems(""), "1:1: a sweep is nothing");
}

TEST_F(SweepFolder, EverythingWrongIsSaidAtOnceInOrder) {
  const std::vector<std::string> lines = problems(
      "name: 'two words'\n"                                    // 1
      "output: out\n"                                          // 2
      "modles: []\n"                                           // 3
      "models:\n"                                              // 4
      "- {name: a, path: models/a, ranks_per_node: two}\n"     // 5
      "- {name: a, path: models/b, gpus: 1, time: soon}\n"     // 6
      "- {path: nowhere}\n"                                    // 7
      "datasets:\n"                                            // 8
      "- {name: long, data: 'x/{model}.h5', controls: [s]}\n"  // 9
      "windows: 64\n"                                          // 10
      "sinks: [-1, \"2\", 07]\n"                               // 11
      "targets: [hf, vlm]\n"                                   // 12
      "decode: [full]\n"                                       // 13
      "seeds: [1, 1]\n"                                        // 14
      "per_token: maybe\n"                                     // 15
      "exclude: [{model: c}, {}]\n"                            // 16
      "overrides: [{match: {window: 3}, set: {limit: 0}}]\n"   // 17
      "windows: [2]\n"                                         // 18
      "layers: [1, 2]\n"                                       // 19
      "limit:\n");                                             // 20
  expect_line(lines, "1:7: name is 'two words'");
  expect_line(lines, "3:1: unknown key 'modles'");
  expect_line(lines, "5:45: ranks_per_node is 'two'");
  expect_line(lines, "6:10: there are two models named a");
  expect_line(lines, "6:29: unknown key 'gpus' in a model; expected gpus_per_node");
  expect_line(lines, "6:44: time is 'soon'");
  expect_line(lines, "7:3: a model has no 'name'");
  expect_line(lines, "7:10: model : there is no");
  expect_line(lines, "9:22: dataset long has no file for model a");
  expect_line(lines, "9:48: controls is a list");
  expect_line(lines, "10:10: windows is '64'");
  expect_line(lines, "11:9: sinks is '-1'");
  expect_line(lines, "11:13: sinks is '2'");
  expect_line(lines, "11:18: sinks is '07'");
  expect_line(lines, "12:15: targets is 'vlm'");
  expect_line(lines, "13:9: targets fix how answers decode");
  expect_line(lines, "14:12: seeds has '1' twice");
  expect_line(lines, "15:12: per_token is 'maybe'");
  expect_line(lines, "16:19: no cell has model c");
  expect_line(lines, "16:23: an empty selection");
  expect_line(lines, "17:30: no cell has window 3");
  expect_line(lines, "17:47: limit is '0'");
  expect_line(lines, "18:1: windows is given twice");
  expect_line(lines, "19:9: layers is a list");
  expect_line(lines, "20:1: limit has no value");
  std::vector<int> order;
  for (const std::string& line : lines) order.push_back(std::stoi(line));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(SweepFolder, WrongKindsAtTheTopAreNoCrash) {
  for (const char* key : {"name", "output", "winnow", "models", "datasets", "windows", "sinks", "targets", "decode",
                          "seeds", "defaults", "exclude", "overrides", "max_parallel", "tail_rows", "base", "layers"}) {
    for (const char* value : {"", "{a: 1}", "[1, [2]]", "[{}]", "text", "[[]]", "~"}) {
      std::string text = kGood;
      const std::size_t at = text.find(std::string(key) + ":");
      if (at == 0 || (at != std::string::npos && text[at - 1] == '\n')) text.insert(at, "old_");
      const fs::path path = write(text + key + ": " + value + "\n");
      try {
        read_sweep(path);
      } catch (const SweepFileError& error) {
        EXPECT_FALSE(error.lines().empty());
      }
    }
  }
}

TEST_F(SweepFolder, MissingFilesAloneAreMissingInput) {
  fs::remove(root() / "data/b/code.h5");
  const std::vector<std::string> lines = problems(kGood + "winnow: nothing/here\n", ExitCode::kNoInput);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(lines[0].starts_with("8:22: dataset code has no file for model b: ")) << lines[0];
  EXPECT_TRUE(lines[1].starts_with("10:9: winnow: ")) << lines[1];
  EXPECT_TRUE(problems(kGood + "exclude: [{model: b, dataset: code}]\n").empty());
  expect_error([&] { read_sweep(root() / "none.yaml"); }, ExitCode::kNoInput, {"none.yaml"});
}

TEST_F(SweepFolder, ContradictionsAndNothingLeft) {
  const auto lines = problems(kGood + "targets: [hf, swaa-hf]\nsinks: [0, 4]\n");
  expect_line(lines, "11:8: model=a dataset=long window=64 sinks=4 target=hf: --sinks 4 contradicts --target hf");
  EXPECT_TRUE(problems(kGood + "targets: [hf, swaa-hf]\nsinks: [0, 4]\nexclude: [{target: hf, sinks: 4}]\n").empty());
  expect_line(problems(kGood + "exclude: [{model: [a, b]}]\n"), "10:11: every cell is excluded");
  expect_line(problems(kGood + "tail_rows: 0\ndecode: [full]\n"), "1:1: model=a");
}

// ---- cells ----------------------------------------------------------------------------------------------------------

TEST_F(SweepFolder, AllCombinationsWithTheirArguments) {
  const Sweep sweep = read("sinks: [0, 4]\nlimit: 3\nseeds: [0, 5]\ndefaults: {time: 01:00:00, threads: 2}\n");
  ASSERT_EQ(sweep.cells.size(), 2u * 2u * 2u * 2u);
  EXPECT_EQ(names(sweep).size(), sweep.cells.size());
  const Cell& cell = sweep.cells[1].cell;
  EXPECT_EQ(describe(cell), "model=a dataset=long window=64 sinks=4 decode=windowed");
  EXPECT_EQ(cell.run_directory, root() / "out/runs" / cell.name);
  EXPECT_TRUE(cell.name.starts_with("a-long-w64-s4-windowed-")) << cell.name;
  const std::vector<std::string> expected = {"calibrate",
                                             "--model=" + (root() / "models/a").string(),
                                             "--data=" + (root() / "data/a/long.h5").string(),
                                             "--out=" + cell.run_directory.string(),
                                             "--window=64",
                                             "--sinks=4",
                                             "--decode=windowed",
                                             "--limit=3",
                                             "--threads=2"};
  EXPECT_EQ(cell.calibrate_arguments, expected);
  EXPECT_EQ(cell.seeds, (std::vector<uint64_t>{0, 5}));
  EXPECT_EQ(cell.resources.time, "01:00:00");
  EXPECT_EQ(cell.resources.ranks(), 2);
  EXPECT_EQ(sweep.cells.back().cell.resources.ranks(), 1);
  EXPECT_EQ(cell.results(0), cell.run_directory / "results.h5");
  EXPECT_EQ(cell.results(5), cell.run_directory / "seeds/5/results.h5");
}

TEST_F(SweepFolder, ExcludeAndOverrides) {
  const Sweep sweep = read(
      "limit: 9\nexclude:\n- {model: a, window: 128}\n- {dataset: code, model: b}\n"
      "overrides:\n- {match: {window: [64]}, set: {limit: 2, time: 10}}\n"
      "- {match: {model: b, window: 64}, set: {limit: 7, ranks_per_node: 3}}\n");
  std::vector<std::string> found;
  for (const SweepCell& cell : sweep.cells) {
    found.push_back(cell.cell.model + " " + cell.cell.dataset + " " + std::to_string(cell.cell.window) + " limit " +
                    std::to_string(*cell.options.limit) + " time " + cell.cell.resources.time + " ranks " +
                    std::to_string(cell.cell.resources.ranks()));
  }
  const std::vector<std::string> expected = {"a long 64 limit 2 time 10 ranks 2", "a code 64 limit 2 time 10 ranks 2",
                                             "b long 64 limit 7 time 10 ranks 3", "b long 128 limit 9 time  ranks 1"};
  EXPECT_EQ(found, expected);
}

TEST_F(SweepFolder, GpusGiveRanksAndDevice) {
  const Sweep sweep = read("defaults: {gpus_per_node: 4}\nexclude: [{window: 128}, {dataset: code}]\n");
  ASSERT_EQ(sweep.cells.size(), 2u);
  EXPECT_EQ(sweep.cells[0].cell.resources.ranks_per_node, 2);  // the model says so
  EXPECT_EQ(sweep.cells[1].cell.resources.ranks_per_node, 4);
  EXPECT_EQ(sweep.cells[1].options.device, "cuda");
}

// What the name must not depend on: names in the file, seeds, resources, the place and spelling of the file.
TEST_F(SweepFolder, TheNameIsTheMeasurement) {
  const std::set<std::string> before = names(read(""));
  fs::create_directories(root() / "elsewhere");
  fs::create_directory_symlink(root() / "models", root() / "elsewhere/linked");
  const std::string other =
      "name: other\noutput: ../out\n"
      "models:\n- {name: b, path: linked/b, memory: 3G}\n- {name: a, path: ../models/../models/a/}\n"
      "datasets:\n- {name: words, data: '../data/{model}/long.h5'}\n- {name: code, data: '../data/{model}/code.h5'}\n"
      "windows: [128, 64]\nseeds: [9]\nmax_attempts: 2\nbase: full\n";
  EXPECT_EQ(names(read_sweep(write(other, "elsewhere/other.yaml"))), before);
}

TEST_F(SweepFolder, TheNameChangesWithTheMeasurement) {
  const std::set<std::string> before = names(read(""));
  for (const char* change : {"limit: 3\n", "layers: 0-3\n", "per_token: true\n", "tail_rows: 9\n", "base: windowed\n",
                             "device: cpu\n", "residual: fp32\n", "sinks: [2]\n", "decode: [full]\n"}) {
    const std::set<std::string> after = names(read(change));
    std::vector<std::string> common;
    std::set_intersection(before.begin(), before.end(), after.begin(), after.end(), std::back_inserter(common));
    EXPECT_EQ(after.size(), before.size()) << change;
    EXPECT_TRUE(common.empty()) << change;
  }
  EXPECT_EQ(names(read("layers: 0-2\n")), names(read("layers: 2,0,1\n")));
  EXPECT_EQ(names(read("base: list:1,4\n")), names(read("base: list:4,1\n")));
}

TEST_F(SweepFolder, TargetsThatMeanTheSameRunOnce) {
  const Sweep sweep = read("targets: [hf, vllm, swaa-hf, swaa-vllm]\n");
  ASSERT_EQ(sweep.cells.size(), 8u * 3u);
  EXPECT_EQ(sweep.cells[0].cell.target, "hf,vllm");
  EXPECT_EQ(sweep.notes.size(), 8u);
  EXPECT_EQ(sweep.cells[2].cell.decode, "full");
  EXPECT_NE(sweep.cells[2].cell.name.find("-w65-"), std::string::npos);  // swaa-vllm sees one key more
}

// ---- schema ---------------------------------------------------------------------------------------------------------

TEST(SweepSchema, TheCommittedFileIsThisOne) {
  std::ifstream in(std::string(WINNOW_TESTS_DIR) + "/../jobs/sweep/sweep.schema.json");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  EXPECT_EQ(text, json_schema()) << "make it anew: build/winnow sweep schema > jobs/sweep/sweep.schema.json";
}

// ---- submissions ----------------------------------------------------------------------------------------------------

TEST_F(SweepFolder, ASubmissionReadsBack) {
  const Sweep sweep = read("defaults: {sbatch: ['--comment=a \"b\" $c', --x], memory: 4G, nodes: 2}\nseeds: [3]\n");
  std::vector<Cell> cells;
  for (const SweepCell& cell : sweep.cells) cells.push_back(cell.cell);
  const fs::path submission = write_submission(sweep.file.output, cells, submission_record(sweep));
  const std::vector<Cell> back = read_submission(submission);
  ASSERT_EQ(back.size(), cells.size());
  for (std::size_t i = 0; i < cells.size(); ++i) EXPECT_EQ(cell_json(back[i]), cell_json(cells[i]));
  EXPECT_TRUE(changes_since_submission(sweep).empty());
  const std::vector<std::string> changes =
      changes_since_submission(read("seeds: [3]\nsinks: [0, 1]\nexclude: [{model: b}]\n"));
  ASSERT_GE(changes.size(), 2u);
  EXPECT_NE(changes[0].find("4 new cells, 4 no longer in it, 4 with other"), std::string::npos) << changes[0];
  expect_error([&] { read_submission(root()); }, ExitCode::kNoInput, {"cells.json"});
  write_file_atomically(submission / "cells.json", "{}");
  expect_error([&] { read_submission(submission); }, ExitCode::kBadData, {"cells.json", "submit"});
}

// ---- states ---------------------------------------------------------------------------------------------------------

class CellStates : public SweepFolder {
 protected:
  CellStates() {
    cell_.name = "cell";
    cell_.run_directory = root() / "out/runs/cell";
    cell_.seeds = {0, 7};
    fs::create_directories(cell_.run_directory / "attempts");
  }

  CellStatus state(const std::map<std::string, QueueEntry>& queue = {}) const { return cell_status(cell_, queue); }
  CellState after(std::optional<int> code, int of_submission = 1) const {
    AttemptRecord record;
    record.of_submission = of_submission;
    record.started = "now";
    record.exit_code = code;
    if (code) record.ended = "now";
    write_file_atomically(attempt_record(cell_.run_directory, 1), dump_json(record.to_json(), 2));
    return state().state;
  }
  void touch(const fs::path& path) const {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "x";
  }

  Cell cell_;
};

TEST_F(CellStates, FollowTheLastAttempt) {
  EXPECT_EQ(state().state, CellState::kWaiting);
  EXPECT_EQ(after(std::nullopt), CellState::kInterrupted);
  EXPECT_EQ(after(75), CellState::kInterrupted);
  EXPECT_EQ(after(137), CellState::kInterrupted);
  EXPECT_EQ(after(70), CellState::kInterrupted);
  EXPECT_EQ(after(65), CellState::kFailed);
  EXPECT_EQ(after(75, 5), CellState::kFailed);
  EXPECT_NE(state().last_error.find("given up after 5 attempts"), std::string::npos);
  EXPECT_EQ(after(std::nullopt, 5), CellState::kFailed);
}

TEST_F(CellStates, DoneIsEverySeed) {
  after(65);
  touch(cell_.results(0));
  EXPECT_EQ(state().state, CellState::kFailed);
  touch(cell_.results(7));
  EXPECT_EQ(state().state, CellState::kDone);
  EXPECT_TRUE(state().last_error.empty());
}

TEST_F(CellStates, TheQueueAndTheLockWin) {
  after(65);
  EXPECT_EQ(state({{"cell", {CellState::kQueued, "12_0", "Priority"}}}).state, CellState::kQueued);
  EXPECT_EQ(state({{"cell", {CellState::kRunning, "12_0", ""}}}).job, "12_0");
  after(std::nullopt);
  {
    const runtime::RunLock lock(cell_.run_directory, host_name(), "cell.lock");
    EXPECT_EQ(state().state, CellState::kRunning);
    write_file_atomically(cell_.run_directory / "progress.json",
                          R"({"cells_done": 3, "cells_total": 12, "eta_seconds": 8.5})");
    EXPECT_DOUBLE_EQ(state().progress, 0.25);
    EXPECT_EQ(state().eta_seconds, 8.5);
  }
  EXPECT_EQ(state().state, CellState::kInterrupted);
  EXPECT_FALSE(state().eta_seconds.has_value());
  touch(cell_.run_directory / "cell.lock");  // of a process that died
  EXPECT_EQ(state().state, CellState::kInterrupted);
  write_file_atomically(attempt_record(cell_.run_directory, 1), "[1, 2");
  write_file_atomically(cell_.run_directory / "progress.json", "[]");
  EXPECT_EQ(state().state, CellState::kInterrupted);
}

// Somebody edited them, a disk was full, another program uses the names: one cell of many, and never a reason to stop.
TEST_F(CellStates, FilesOfAnyShapeAreNoReasonToStop) {
  const std::vector<std::string> shapes = {
      "",
      "null",
      "[]",
      "3",
      "\"text\"",
      "{",
      "\xff",
      "{\"attempt\": []}",
      std::string(5000, '['),
      R"({"cells_done": "3", "cells_total": {}, "eta_seconds": []})",
      R"({"cells_done": 1e308, "cells_total": 1e-308})",
      R"({"exit_code": 1e30, "ended": 5, "error": {"a": 1}, "of_submission": "x", "command": "y"})",
      R"({"exit_code": 99999999999999999999, "of_submission": -99999999999, "failed_launches": 18446744073709551615, "ended": "now"})"};
  for (const std::string& shape : shapes) {
    write_file_atomically(attempt_record(cell_.run_directory, 1), shape);
    write_file_atomically(cell_.run_directory / "progress.json", shape);
    const CellStatus status = state();
    EXPECT_TRUE(status.state == CellState::kInterrupted || status.state == CellState::kFailed) << shape;
    EXPECT_FALSE(status.last_error.empty()) << shape;
    EXPECT_GE(status.progress, 0.0);
    EXPECT_LE(status.progress, 1.0);
  }
  write_file_atomically(attempt_record(cell_.run_directory, 1), "[1]");
  EXPECT_NE(state().last_error.find("1.json is no record of an attempt"), std::string::npos) << state().last_error;
  write_file_atomically(attempt_record(cell_.run_directory, 1),
                        R"({"ended": "now", "exit_code": 65, "error": "a\u001b[31mred\n\u202eb"})");
  EXPECT_EQ(state().last_error, "a?[31mred??b");
  // Names that are no numbers of attempts, and what is no file.
  for (const char* name : {"-3.json", "0.json", "99999999999.json", "2147483647.json", "x.json"}) {
    write_file_atomically(cell_.run_directory / "attempts" / name, "{}");
  }
  fs::create_directories(cell_.run_directory / "attempts/2.json");
  ASSERT_EQ(::mkfifo((cell_.run_directory / "attempts/2.log").c_str(), 0600), 0);
  EXPECT_EQ(list_attempts(cell_.run_directory), (std::vector<int>{1, 2}));
  EXPECT_EQ(state().attempts, 2);
  EXPECT_EQ(last_error_line(cell_.run_directory / "attempts/2.log"), "");
}

TEST_F(CellStates, TheErrorIsWinnowsOwnLine) {
  const fs::path log = root() / "log";
  std::ofstream(log) << "winnow 10:00:00 starting\nwinnow: rank 0: bad weights\n--------\nmpirun has exited\n";
  EXPECT_EQ(last_error_line(log), "rank 0: bad weights");
  std::ofstream(log) << "slots are missing\n-----\n";
  EXPECT_EQ(last_error_line(log), "slots are missing");
  EXPECT_EQ(last_error_line(root() / "none"), "");
  std::ofstream(log) << "winnow: \x1b]0;title\x07" << std::string(10'000, 'a') << "\n";
  EXPECT_TRUE(last_error_line(log).starts_with("?]0;title?aaa"));
  EXPECT_LT(last_error_line(log).size(), 1100u);
}

TEST_F(CellStates, TheErrorOfALauncherIsWhatItSaysFirst) {
  const fs::path log = root() / "log";
  const std::string rule = std::string(74, '-') + "\n";
  const std::string refusal = rule + "mpirun has detected an attempt to run\nas root.\n\nRunning as root is bad.\n\n" +
                              "We reiterate our advice against doing so.\n" + rule;
  const std::string news = rule + "One process returned a non-zero exit code.\n" + rule;
  std::ofstream(log) << refusal;
  EXPECT_EQ(last_error_line(log), "mpirun has detected an attempt to run as root.");
  std::ofstream(log) << news << refusal << news;
  EXPECT_EQ(last_error_line(log), "mpirun has detected an attempt to run as root.");
  std::ofstream(log) << "what a program says\n" << news;
  EXPECT_EQ(last_error_line(log), "One process returned a non-zero exit code.");
  std::ofstream(log) << refusal << "winnow: bad weights\n" << news;
  EXPECT_EQ(last_error_line(log), "bad weights");
}

// ---- prices ---------------------------------------------------------------------------------------------------------

// The closed form against the plan that the sweep itself follows, with a row tile of 1.
TEST(SweepPrice, IsThatOfThePlan) {
  model::ModelConfig config;
  config.n_layers = 6;
  config.hidden = 32;
  config.ffn = 64;
  config.vocab = 50;
  config.heads = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 8};
  run::RunOptions options;
  options.window = 100;
  const run::Settings settings = run::resolve_settings(options, config.n_layers);
  const std::vector<int32_t> tokens(1000, 0);
  engine::SweepRequest request{.tokens = tokens,
                               .answer_start = 980,
                               .base = engine::layer_windows_of(settings.base, settings.window_of(980)),
                               .variants = {},
                               .per_token = false};
  for (const int64_t layer : settings.layers) {
    request.variants.push_back(engine::layer_windows_of(settings.variant(layer), settings.window_of(980)));
  }
  const engine::SweepPlan plan = engine::plan_sweep(config, request, 1);
  const double planned = static_cast<double>(plan.row_layers) * 2.0 * 32 * (2 * 32 + 2 * 16 + 3 * 64) +
                         static_cast<double>(plan.attention_pairs) * 4.0 * 32;
  const double price = sweep_flops(config, settings, 1000, 980);
  EXPECT_GT(price, 0.6 * planned);
  EXPECT_LT(price, 1.6 * planned);
}

TEST(Quoted, AShellReadsItBack) {
  EXPECT_EQ(local::quoted({"a", "b c", "it's", "", "$x"}), "a 'b c' 'it'\\''s' '' '$x'");
}

}  // namespace
}  // namespace winnow::sweep
