#include "pipeline/run/run_directory.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "base/atomic_file.h"
#include "base/own_files.h"
#include "pipeline/run/shards.h"
#include "results/selection/pattern.h"
#include "tests/scratch.h"

namespace winnow::run {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLayers = 3;

RunIdentity some_identity() {
  return {.checkpoint_sha256 = "c0ffee",
          .data_sha256 = "da7a",
          .window_keys = 96,
          .sinks = 4,
          .decode = "windowed",
          .tail_rows = {},
          .base = "full",
          .residual_dtype = "fp32",
          .compute_dtype = "fp32",
          .backend = "cpu",
          .attention_path = "cpu-blocked"};
}

// Two examples of 6 tokens with answers of 2.
std::vector<DataSet> some_data() {
  DataSet data{.name = "calibration", .corpus = {}, .n_examples = 2, .n_wanted = 2};
  data.corpus.path = "calibration.h5";
  data.corpus.tokens.assign(12, 1);
  data.corpus.offsets = {0, 6, 12};
  data.corpus.answer_start = {4, 4};
  data.corpus.example_id = {"first", "second"};
  data.corpus.sha256 = "da7a";
  return {data};
}

Shard some_shard(int64_t example = 0, bool tokens = false) {
  Shard shard{.data_set = "calibration",
              .example = example,
              .example_id = example == 0 ? "first" : "second",
              .variants = {kBaseVariant, 2},
              .names = {},
              .scores = {{0.5, true, 1.0, {}}, {std::nextafter(1.25, 2.0), false, 0.5, {}}},
              .n_tokens = 2,
              .seconds = 1.5,
              .made_by = "rank 0 on here"};
  if (tokens) {
    shard.scores[0].token_nll_nats = {0.25F, 0.75F};
    shard.scores[1].token_nll_nats = {1.F, 1.5F};
  }
  return shard;
}

ShardIdentity own_identity() { return {.measurement = some_identity().hash(), .data_sha256 = "da7a"}; }

class RunDirectoryTest : public ::testing::Test {
 protected:
  RunDirectoryTest() { fs::create_directories(shards()); }

  fs::path run() const { return scratch_.path() / "run"; }
  fs::path shards() const { return UnitStore::shards(run()).folder(); }
  void write(const Shard& shard) { write_shard(shards(), shard, own_identity()); }
  fs::path only_shard() const {
    const auto all = UnitStore::shards(run()).files();
    EXPECT_EQ(all.size(), 1U);
    return all.front();
  }
  std::vector<std::string> load(std::vector<ScoreTable>& cells) {
    return load_shards(run(), some_identity().hash(), some_data(), cells, BadShards::kSetAside);
  }
  static std::vector<ScoreTable> empty_cells(int64_t token_slots = 0) { return {ScoreTable(2, kLayers, token_slots)}; }

  ScratchDirectory scratch_;
};

TEST_F(RunDirectoryTest, ShardsComeBackBitForBit) {
  write(some_shard(1, true));
  const ShardFile file = read_shard(only_shard());
  EXPECT_EQ(file.identity.measurement, some_identity().hash());
  EXPECT_EQ(file.identity.data_sha256, "da7a");
  const Shard expected = some_shard(1, true);
  EXPECT_EQ(file.shard.data_set, expected.data_set);
  EXPECT_EQ(file.shard.example, 1);
  EXPECT_EQ(file.shard.example_id, "second");
  EXPECT_EQ(file.shard.variants, expected.variants);
  ASSERT_EQ(file.shard.scores.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(file.shard.scores[i].nll_nats, expected.scores[i].nll_nats);
    EXPECT_EQ(file.shard.scores[i].exact_match, expected.scores[i].exact_match);
    EXPECT_EQ(file.shard.scores[i].token_accuracy, expected.scores[i].token_accuracy);
    EXPECT_EQ(file.shard.scores[i].token_nll_nats, expected.scores[i].token_nll_nats);
  }
}

TEST_F(RunDirectoryTest, SignalsComeBackBitForBit) {
  Shard shard = some_shard();
  shard.has_kl = true;
  shard.signals = engine::SignalLayout({.names = {"sensitivity", "mass", "lazy", "angular"}}, 2);
  shard.scores[1].kl_nats = std::nextafter(0.25, 1.0);
  const char* kMass = "attention_mass_outside_kv_head";
  shard.scores[1].signals = {
      {"nll_removed", {2.5}}, {kMass, {0.125, std::nextafter(0.5, 1.0)}}, {"angular_distance", {0.75}}};
  write(shard);
  std::vector<ScoreTable> cells = {ScoreTable(2, kLayers, 0, shard.signals)};
  EXPECT_TRUE(load_shards(run(), own_identity().measurement, some_data(), cells, BadShards::kSetAside).empty());
  const engine::Score score = cells[0].get(0, 2, 2);
  EXPECT_EQ(score.kl_nats, shard.scores[1].kl_nats);
  EXPECT_EQ(score.signals.at("nll_removed"), std::vector<double>{2.5});
  EXPECT_EQ(score.signals.at(kMass), shard.scores[1].signals.at(kMass));
  EXPECT_EQ(score.signals.at("angular_distance"), std::vector<double>{0.75}) << "which has a table of its own";
  EXPECT_TRUE(std::isnan(score.signals.at("lazy_ratio").front())) << "an example that is too short";
  // A table without places for signals takes the rest.
  std::vector<ScoreTable> plain = empty_cells();
  EXPECT_TRUE(load_shards(run(), own_identity().measurement, some_data(), plain, BadShards::kSetAside).empty());
  EXPECT_EQ(plain[0].get(0, 2, 2).nll_nats, shard.scores[1].nll_nats);
}

TEST_F(RunDirectoryTest, AnotherSetOfSignalsIsAnotherMeasurement) {
  RunRecord record;
  record.adopt(some_identity(), {});
  RunIdentity with = some_identity();
  with.signals = "kl";
  EXPECT_NE(with.hash(), some_identity().hash());
  EXPECT_FALSE(some_identity().to_json().contains("signals")) << "as records had it before there were any";
  try {
    record.adopt(with, {});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfigMismatch);
    EXPECT_NE(std::string(error.what()).find("signals is none in this run directory, but kl"), std::string::npos)
        << error.what();
  }
}

TEST_F(RunDirectoryTest, FinishedCellsAreNotMissing) {
  write(some_shard());
  auto cells = empty_cells();
  EXPECT_TRUE(load(cells).empty());
  const std::vector<int64_t> layers = {0, 2};
  const auto missing = find_missing(some_data(), cells, layers);
  ASSERT_EQ(missing.size(), 2U);
  EXPECT_EQ(missing[0].example, 0);
  EXPECT_FALSE(missing[0].base);
  EXPECT_EQ(missing[0].variants, (std::vector<int64_t>{0}));
  EXPECT_EQ(missing[1].example, 1);
  EXPECT_TRUE(missing[1].base);
  EXPECT_EQ(missing[1].variants, layers);
}

TEST_F(RunDirectoryTest, TokenNllsThatAreAskedForMustBeInTheShard) {
  write(some_shard());
  auto cells = empty_cells(2);
  EXPECT_TRUE(load(cells).empty());
  EXPECT_FALSE(cells[0].has(0, kBaseVariant));
  write(some_shard(0, true));
  EXPECT_EQ(UnitStore::shards(run()).files().size(), 2U);
  EXPECT_TRUE(load(cells).empty());
  EXPECT_TRUE(cells[0].has(0, kBaseVariant));
  EXPECT_EQ(cells[0].get(0, 2, 2).token_nll_nats, (std::vector<float>{1.F, 1.5F}));
  auto plain = empty_cells();
  EXPECT_TRUE(load(plain).empty());
  EXPECT_TRUE(plain[0].has(0, 2));
}

TEST_F(RunDirectoryTest, DamagedShardsAreSetAside) {
  write(some_shard());
  const fs::path whole = only_shard();
  const auto size = static_cast<int64_t>(fs::file_size(whole));
  std::ifstream in(whole, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  // Cut at several places, empty, and with one flipped bit in the NLL of the second cell.
  std::vector<std::string> damaged;
  for (const int64_t cut : {int64_t{0}, int64_t{7}, size / 3, size / 2, size - 100, size - 1}) {
    damaged.push_back(bytes.substr(0, static_cast<std::size_t>(cut)));
  }
  const double nll = std::nextafter(1.25, 2.0);
  const auto place = bytes.find(std::string(reinterpret_cast<const char*>(&nll), sizeof(nll)));
  ASSERT_NE(place, std::string::npos);
  damaged.push_back(bytes);
  damaged.back()[place] = static_cast<char>(damaged.back()[place] ^ 4);
  for (const std::string& content : damaged) {
    SCOPED_TRACE(content.size());
    std::ofstream(whole, std::ios::binary) << content;
    auto cells = empty_cells();
    const auto notes = load(cells);
    ASSERT_EQ(notes.size(), 1U);
    EXPECT_NE(notes[0].find(whole.filename().string()), std::string::npos);
    EXPECT_FALSE(cells[0].has(0, kBaseVariant));
    EXPECT_FALSE(fs::exists(whole));
  }
  EXPECT_TRUE(UnitStore::shards(run()).files().empty());
  EXPECT_TRUE(fs::exists(whole.string() + ".bad"));
  EXPECT_TRUE(fs::exists(whole.string() + ".7.bad"));
}

TEST_F(RunDirectoryTest, ForeignShardsAreSetAside) {
  const auto expect_foreign = [&](const Shard& shard, const ShardIdentity& identity, const std::string& reason) {
    SCOPED_TRACE(reason);
    write_shard(shards(), shard, identity);
    auto cells = empty_cells();
    const auto notes = load(cells);
    ASSERT_EQ(notes.size(), 1U);
    EXPECT_NE(notes[0].find(reason), std::string::npos) << notes[0];
    EXPECT_EQ(find_missing(some_data(), cells, std::vector<int64_t>{2}).size(), 2U);
    EXPECT_TRUE(UnitStore::shards(run()).files().empty());
  };
  expect_foreign(some_shard(), {.measurement = "other", .data_sha256 = "da7a"}, "other settings");
  expect_foreign(some_shard(), {.measurement = some_identity().hash(), .data_sha256 = "0"}, "other data");
  Shard shard = some_shard();
  shard.example_id = "stranger";
  expect_foreign(shard, own_identity(), "stranger");
  shard = some_shard();
  shard.example = 2;
  expect_foreign(shard, own_identity(), "example 2");
  shard = some_shard();
  shard.variants[1] = kLayers;
  expect_foreign(shard, own_identity(), "variant 3");
  shard = some_shard();
  shard.n_tokens = 3;
  expect_foreign(shard, own_identity(), "answer tokens");
}

// Numbers follow from a command's order, names do not.
TEST_F(RunDirectoryTest, NamedVariantsTakeTheNumbersOfThisCommand) {
  Shard shard = some_shard();
  shard.variants = {kBaseVariant, 0, 1};
  shard.names = {"", "list:1", "windowed"};
  shard.scores.push_back({3.0, false, 0.25, {}});
  write(shard);
  Inputs inputs;
  inputs.config.n_layers = kLayers;
  inputs.number_of(selection::pattern_of_name("windowed", kLayers, "--pattern"));
  const NumberVariant number = [&](const std::string& name) { return inputs.number_of_name(name); };
  std::vector<ScoreTable> cells = {ScoreTable(2, 1, 0)};
  const auto load_named = [&] {
    return load_shards(run(), some_identity().hash(), some_data(), cells, BadShards::kSetAside, number);
  };
  EXPECT_TRUE(load_named().empty());
  EXPECT_EQ(inputs.variant_names, (std::vector<std::string>{"windowed", "list:1"}));
  EXPECT_EQ(cells[0].get(0, 0, 2).nll_nats, 3.0);
  EXPECT_EQ(cells[0].get(0, 1, 2).nll_nats, some_shard().scores[1].nll_nats);
  EXPECT_EQ(cells[0].get(0, kBaseVariant, 2).nll_nats, 0.5);
  EXPECT_FALSE(cells[0].has(1, 1));
  // The same cells get the same file, whatever their numbers.
  shard.variants = {kBaseVariant, 1, 0};
  write(shard);
  EXPECT_EQ(UnitStore::shards(run()).files().size(), 1U);
  for (const char* name : {"list:7", "list:2,1", "half", "list:"}) {
    SCOPED_TRACE(name);
    shard.names[1] = name;
    write(shard);
    const auto notes = load_named();
    ASSERT_EQ(notes.size(), 1U);
    EXPECT_NE(notes[0].find("pattern"), std::string::npos) << notes[0];
  }
  // Without names a shard belongs to another kind of run.
  write(some_shard(1));
  EXPECT_EQ(load_named().size(), 1U);
}

TEST_F(RunDirectoryTest, AnotherVerbIsRefusedFirst) {
  { const RunDirectory first(run(), "here", some_identity(), some_data()); }
  RunIdentity identity = some_identity();
  identity.kind = "evaluate";
  identity.sinks = 0;
  expect_error([&] { const RunDirectory other(run(), "here", identity, some_data()); }, ExitCode::kConfigMismatch,
               {"kind is calibrate", "evaluate"});
  EXPECT_FALSE(some_identity().to_json().contains("kind"));
}

TEST_F(RunDirectoryTest, ShardsOfOtherControlsAndBeyondTheLimitAreKept) {
  Shard control = some_shard();
  control.data_set = "control/short";
  write(control);
  write(some_shard(1));
  auto data = some_data();
  data[0].n_examples = data[0].n_wanted = 1;
  std::vector<ScoreTable> cells = {ScoreTable(1, kLayers, 0)};
  EXPECT_TRUE(load_shards(run(), some_identity().hash(), data, cells, BadShards::kSetAside).empty());
  EXPECT_EQ(UnitStore::shards(run()).files().size(), 2U);
}

TEST_F(RunDirectoryTest, ADryRunLeavesBadShardsWhereTheyAre) {
  std::ofstream(shards() / "calibration.e000000.0123456789ab.h5") << "no HDF5";
  auto cells = empty_cells();
  const auto notes = load_shards(run(), some_identity().hash(), some_data(), cells, BadShards::kLeave);
  EXPECT_EQ(notes.size(), 1U);
  EXPECT_EQ(UnitStore::shards(run()).files().size(), 1U);
}

TEST_F(RunDirectoryTest, OpeningRemovesLeftoversOfDeadWritersAlone) {
  std::ofstream(shards() / new_temporary_name()) << "half";
  std::ofstream(run() / new_temporary_name()) << "half";
  const std::vector<fs::path> foreign = {run() / "movie.iso.part", run() / "results.h5.part",
                                         shards() / "calibration.e000000.0123456789ab.h5.part"};
  for (const fs::path& file : foreign) std::ofstream(file) << "theirs";
  const RunDirectory directory(run(), "here", some_identity(), some_data());
  for (const fs::path& file : foreign) EXPECT_EQ(fs::file_size(file), 6U) << file;
  EXPECT_EQ(std::distance(fs::directory_iterator(shards()), {}), 1);
  EXPECT_EQ(std::distance(fs::directory_iterator(run()), {}), 5);  // two of them, lock, run.json, shards
}

TEST_F(RunDirectoryTest, FilesOfOthersAmongTheShardsAreLeftAlone) {
  write(some_shard(0));
  const std::vector<std::string> foreign = {"long.h5", "calibration.e0.h5", "calibration.e000000.0123456789AB.h5",
                                            "calibration.e000000.0123456789ab.h5.bad"};
  for (const std::string& name : foreign) std::ofstream(shards() / name) << "theirs";
  fs::create_symlink(shards() / "long.h5", shards() / "calibration.e000001.0123456789ab.h5");
  fs::create_symlink("nowhere", shards() / "calibration.e000002.0123456789ab.h5.bad");
  std::ofstream(shards() / "calibration.e000002.0123456789ab.h5") << "ours, damaged";
  auto cells = empty_cells();
  const auto notes = load(cells);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes.front().find("calibration.e000002.0123456789ab.h5.2.bad"), std::string::npos) << notes.front();
  for (const std::string& name : foreign) EXPECT_EQ(fs::file_size(shards() / name), 6U) << name;
  EXPECT_TRUE(fs::is_symlink(shards() / "calibration.e000001.0123456789ab.h5"));
  EXPECT_TRUE(fs::is_symlink(shards() / "calibration.e000002.0123456789ab.h5.bad"));
}

TEST_F(RunDirectoryTest, WhatIsInTheWayIsRefusedBeforeAnythingIsMeasured) {
  check_run_outputs(run(), {}, {});
  check_run_outputs(scratch_.path() / "new" / "run", {}, {});
  const auto refused = [&](const fs::path& place, const std::vector<std::string>& words) {
    SCOPED_TRACE(place.string());
    expect_error([&] { check_run_outputs(run(), {}, {}); }, ExitCode::kCannotCreate, words);
    fs::remove(place);
  };
  std::ofstream(scratch_.path() / "victim") << "precious";
  for (const char* name : {"results.h5", "run.json", "progress.json"}) {
    std::ofstream(run() / name) << "theirs";
    refused(run() / name, {name, "of winnow's"});
    fs::create_directory(run() / name);
    refused(run() / name, {name, "is a directory"});
    ASSERT_EQ(::mkfifo((run() / name).c_str(), 0600), 0);
    refused(run() / name, {name, "no regular file"});
    fs::create_symlink(scratch_.path() / "victim", run() / name);
    refused(run() / name, {name, "is a link"});
  }
  for (const char* name : {"shards", "texts"}) {
    fs::remove_all(run() / name);
    std::ofstream(run() / name) << "theirs";
    expect_error([&] { check_run_outputs(run(), {}, {}); }, ExitCode::kCannotCreate, {name, "a file is in its place"});
    fs::remove(run() / name);
    fs::create_directory_symlink(scratch_.path(), run() / name);
    expect_error([&] { check_run_outputs(run(), {}, {}); }, ExitCode::kCannotCreate, {name, "is a link"});
    fs::remove(run() / name);
    fs::create_directory(run() / name);
  }
}

TEST_F(RunDirectoryTest, InputsAreNotWrittenOver) {
  for (const char* name : {"results.h5", "run.json", "progress.json", "lock"}) {
    std::ofstream(run() / name) << "data";
    expect_error([&] { check_run_outputs(run(), {}, {.files = {run() / name}, .checkpoints = {}}); }, ExitCode::kUsage,
                 {name, "this command needs"});
    fs::remove(run() / name);
  }
  expect_error([&] { check_run_outputs(run(), {}, {.files = {shards() / "x.h5"}, .checkpoints = {}}); },
               ExitCode::kUsage, {"keeps for itself"});
  const fs::path temporary = run() / new_temporary_name();
  expect_error([&] { check_run_outputs(run(), {}, {.files = {temporary}, .checkpoints = {}}); }, ExitCode::kUsage,
               {"a temporary file"});
  expect_error([&] { check_run_outputs(run(), {responses_output("--responses", run() / "lock")}, {}); },
               ExitCode::kUsage, {"another of its outputs"});
  expect_error([&] { check_run_outputs(run(), {responses_output("--responses", shards() / "x")}, {}); },
               ExitCode::kUsage, {"keeps for itself"});
}

TEST_F(RunDirectoryTest, NoLinkAndNoFileOfOthersIsTakenForTheLock) {
  const fs::path victim = scratch_.path() / "victim";
  std::ofstream(victim) << "precious";
  const auto refused = [&] {
    expect_error([&] { const runtime::RunLock lock(run(), "here"); }, ExitCode::kCannotCreate,
                 {"lock", "no lock file"});
    EXPECT_FALSE(runtime::is_locked(run() / "lock", "here"));
    EXPECT_EQ(fs::file_size(victim), 8U);
    EXPECT_TRUE(fs::exists(fs::symlink_status(run() / "lock")));
    fs::remove(run() / "lock");
  };
  fs::create_symlink(victim, run() / "lock");
  refused();
  fs::create_symlink("nowhere", run() / "lock");
  refused();
  fs::create_hard_link(victim, run() / "lock");
  refused();
  std::ofstream(run() / "lock") << "somebody's notes";
  refused();
  ASSERT_EQ(::mkfifo((run() / "lock").c_str(), 0600), 0);
  refused();
  fs::create_directory(run() / "lock");
  expect_error([&] { const runtime::RunLock lock(run(), "here"); }, ExitCode::kCannotCreate, {"lock"});
  fs::remove(run() / "lock");
  std::ofstream(run() / "lock") << "elsewhere 1 2\n";  // of a dead job
  { const runtime::RunLock lock(run(), "here"); }
  EXPECT_FALSE(fs::exists(run() / "lock"));
}

TEST_F(RunDirectoryTest, OtherSettingsAreRefusedByName) {
  { const RunDirectory first(run(), "here", some_identity(), some_data()); }
  { const RunDirectory again(run(), "here", some_identity(), some_data()); }
  const auto refuse = [&](const std::function<void(RunIdentity&)>& change, const std::vector<std::string>& words) {
    RunIdentity identity = some_identity();
    change(identity);
    expect_error([&] { const RunDirectory other(run(), "here", identity, some_data()); }, ExitCode::kConfigMismatch,
                 words);
  };
  refuse([](RunIdentity& i) { i.window_keys = 128; }, {"run.json", "window_keys", "96", "128"});
  refuse([](RunIdentity& i) { i.sinks = 0; }, {"sinks", "4", "0"});
  refuse([](RunIdentity& i) { i.decode = "full"; }, {"decode", "windowed", "full"});
  refuse([](RunIdentity& i) { i.tail_rows = 32; }, {"tail_rows", "none", "32"});
  refuse([](RunIdentity& i) { i.base = "list:1"; }, {"base", "full", "list:1"});
  refuse([](RunIdentity& i) { i.checkpoint_sha256 = "bad"; }, {"checkpoint_sha256", "c0ffee", "bad"});
  refuse([](RunIdentity& i) { i.data_sha256 = "bad"; }, {"data_sha256", "da7a", "bad"});
  refuse([](RunIdentity& i) { i.backend = "cuda"; }, {"backend", "cpu", "cuda"});
}

TEST_F(RunDirectoryTest, ControlsMayGrowButNotChange) {
  auto data = some_data();
  { const RunDirectory first(run(), "here", some_identity(), data); }
  data.push_back(data[0]);
  data[1].name = "control/short";
  data[1].corpus.sha256 = "5407";
  { const RunDirectory grown(run(), "here", some_identity(), data); }
  { const RunDirectory without(run(), "here", some_identity(), some_data()); }
  data[1].corpus.sha256 = "other";
  expect_error([&] { const RunDirectory changed(run(), "here", some_identity(), data); }, ExitCode::kConfigMismatch,
               {"control short", "5407", "other"});
}

TEST_F(RunDirectoryTest, AForeignRecordIsRefused) {
  for (const char* text : {"", "{", "[]", "{\"format\": \"winnow-run\"}",
                           "{\"format\": \"winnow-run\", \"format_version\": 9, \"identity\": {}}"}) {
    SCOPED_TRACE(text);
    std::ofstream(run() / "run.json") << text;
    expect_error([&] { const RunDirectory other(run(), "here", some_identity(), some_data()); }, ExitCode::kBadData,
                 {"run.json"});
  }
}

TEST_F(RunDirectoryTest, AFileInPlaceOfTheDirectoryIsRefused) {
  std::ofstream(scratch_.path() / "file") << "x";
  expect_error([&] { const RunDirectory bad(scratch_.path() / "file", "here", some_identity(), some_data()); },
               ExitCode::kCannotCreate, {"file"});
  expect_error([&] { const RunDirectory bad(scratch_.path() / "file" / "sub", "here", some_identity(), some_data()); },
               ExitCode::kCannotCreate, {"sub"});
}

TEST_F(RunDirectoryTest, TheLockKeepsOthersOutAndNamesItsHolder) {
  {
    const runtime::RunLock lock(run(), "here");
    expect_error([&] { const runtime::RunLock second(run(), "here"); }, ExitCode::kInterrupted,
                 {"in use", "here", std::to_string(::getpid())});
  }
  EXPECT_FALSE(fs::exists(run() / "lock"));
  const runtime::RunLock again(run(), "here");
}

TEST_F(RunDirectoryTest, TheLockOfAKilledProcessIsFree) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const runtime::RunLock lock(run(), "here");
    const char byte = 1;
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  expect_error([&] { const runtime::RunLock second(run(), "here"); }, ExitCode::kInterrupted, {std::to_string(child)});
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(fs::exists(run() / "lock"));
  const runtime::RunLock again(run(), "here");
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace winnow::run
