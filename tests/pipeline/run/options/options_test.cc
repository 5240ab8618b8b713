#include "pipeline/run/options/options.h"

#include <cmath>
#include <functional>

#include "base/node.h"
#include "base/strings.h"
#include "pipeline/run/score_table.h"
#include "pipeline/runtime/stop.h"
#include "results/selection/pattern.h"
#include "tests/scratch.h"

namespace winnow::run {
namespace {

RunOptions some_options() {
  RunOptions options;
  options.window = 96;
  return options;
}

struct BadOption {
  const char* name;
  std::function<void(RunOptions&)> spoil;
  std::vector<std::string> words;
};

std::vector<BadOption> bad_options() {
  return {
      {"window 0", [](RunOptions& o) { o.window = 0; }, {"--window", "0"}},
      {"window -5", [](RunOptions& o) { o.window = -5; }, {"--window", "-5"}},
      {"sinks -1", [](RunOptions& o) { o.sinks = -1; }, {"--sinks", "-1"}},
      {"decode", [](RunOptions& o) { o.decode = "half"; }, {"--decode", "half", "windowed"}},
      {"target", [](RunOptions& o) { o.target = "onnx"; }, {"--target", "onnx", "swaa-vllm"}},
      {"hf has no sinks", [](RunOptions& o) { o.target = "hf", o.sinks = 4; }, {"--sinks 4", "hf"}},
      {"vllm decodes windowed", [](RunOptions& o) { o.target = "vllm", o.decode = "full"; }, {"--decode", "vllm"}},
      {"swaa decodes full",
       [](RunOptions& o) { o.target = "swaa-hf", o.decode = "windowed"; },
       {"--decode windowed", "swaa-hf"}},
      {"tail -1", [](RunOptions& o) { o.tail_rows = -1; }, {"--tail-rows", "-1"}},
      {"no row", [](RunOptions& o) { o.tail_rows = 0, o.decode = "full"; }, {"--tail-rows 0", "no row"}},
      {"no row in swaa", [](RunOptions& o) { o.tail_rows = 0, o.target = "swaa-vllm"; }, {"no row"}},
      {"limit 0", [](RunOptions& o) { o.limit = 0; }, {"--limit"}},
      {"top-k 0", [](RunOptions& o) { o.top_k = 0; }, {"--top-k"}},
      {"seed -1", [](RunOptions& o) { o.seed = -1; }, {"--seed", "-1"}},
      {"threads", [](RunOptions& o) { o.threads = -1; }, {"--threads"}},
      {"grace", [](RunOptions& o) { o.grace_seconds = -1.0; }, {"--grace"}},
      {"device", [](RunOptions& o) { o.device = "tpu"; }, {"--device", "tpu"}},
      {"residual", [](RunOptions& o) { o.residual = "int8"; }, {"--residual", "int8"}},
      {"attention", [](RunOptions& o) { o.attention = "flash"; }, {"--attention", "flash", "cudnn"}},
      {"attention without a GPU",
       [](RunOptions& o) {
         o.attention = "own";
         o.device = "cpu";
       },
       {"--attention own", "--device is cpu"}},
      {"base", [](RunOptions& o) { o.base = "half"; }, {"--base", "half"}},
      {"signals", [](RunOptions& o) { o.signals = "kl,gradient"; }, {"--signals", "gradient", "lazy"}},
      {"no signal between commas", [](RunOptions& o) { o.signals = "kl,,mass"; }, {"--signals", "\"\""}},
      {"sensitivity", [](RunOptions& o) { o.signals = "all", o.sensitivity = "head"; }, {"--sensitivity", "head"}},
      {"sensitivity unasked",
       [](RunOptions& o) { o.signals = "kl", o.sensitivity = "full"; },
       {"--sensitivity", "--signals sensitivity"}},
      {"lazy unasked", [](RunOptions& o) { o.lazy_last = 8; }, {"--lazy-last", "--signals lazy"}},
      {"lazy window", [](RunOptions& o) { o.signals = "lazy", o.lazy_recent = 0; }, {"--lazy-recent", "0"}},
      {"share-gpu", [](RunOptions& o) { o.share_gpu = true, o.device = "cpu"; }, {"--share-gpu"}},
      {"control twice",
       [](RunOptions& o) {
         o.controls = {{"a", "x"}, {"a", "y"}};
       },
       {"--control a"}},
  };
}

TEST(Options, RefusesWhatMakesNoSense) {
  EXPECT_NO_THROW(check_options(some_options()));
  for (const BadOption& bad : bad_options()) {
    SCOPED_TRACE(bad.name);
    RunOptions options = some_options();
    bad.spoil(options);
    expect_error([&] { check_options(options); }, ExitCode::kUsage, bad.words);
  }
}

TEST(Options, SignalsHaveOneName) {
  const auto name_of = [](const std::function<void(RunOptions&)>& set) {
    RunOptions options = some_options();
    set(options);
    return resolve_settings(options, 4).signals.name();
  };
  EXPECT_EQ(name_of([](RunOptions&) {}), "");
  EXPECT_EQ(name_of([](RunOptions& o) { o.signals = "none"; }), "");
  EXPECT_EQ(name_of([](RunOptions& o) { o.signals = "all"; }), "kl,sensitivity:32,mass,lazy:4:1024:32,angular");
  EXPECT_EQ(name_of([](RunOptions& o) { o.signals = "lazy,mass,kl,sensitivity"; }),
            "kl,sensitivity:32,mass,lazy:4:1024:32");
  EXPECT_EQ(name_of([](RunOptions& o) { o.signals = "sensitivity", o.tail_rows = 7; }), "sensitivity:7");
  EXPECT_EQ(name_of([](RunOptions& o) { o.signals = "sensitivity", o.sensitivity = "full"; }), "sensitivity:all");
  EXPECT_EQ(name_of([](RunOptions& o) { o.signals = "lazy", o.lazy_sinks = 0, o.lazy_recent = 64, o.lazy_last = 1; }),
            "lazy:0:64:1");
}

TEST(Options, LayersOutOfTheModelAreRefused) {
  RunOptions options = some_options();
  options.layers = "0-12";
  expect_error([&] { resolve_settings(options, 12); }, ExitCode::kUsage, {"--layers", "12", "0 to 11"});
  options.layers = "0-11";
  options.base = "list:3,40";
  expect_error([&] { resolve_settings(options, 12); }, ExitCode::kUsage, {"--base", "40"});
  options.base = "full";
  options.layers = "1,2";
  options.top_k = 3;
  expect_error([&] { resolve_settings(options, 12); }, ExitCode::kUsage, {"--top-k", "3", "2"});
}

TEST(Options, TargetsFixWindowSinksAndDecode) {
  const auto settings = [](const std::string& target, std::optional<int64_t> sinks) {
    RunOptions options = some_options();
    options.target = target;
    options.sinks = sinks;
    check_options(options);
    return resolve_settings(options, 4);
  };
  for (const char* target : {"", "hf", "vllm", "trtllm"}) {
    EXPECT_EQ(settings(target, {}).window_keys, 96);
    EXPECT_FALSE(settings(target, {}).decode_full);
    EXPECT_EQ(settings(target, 0).sinks, 0);
  }
  EXPECT_EQ(settings("swaa-hf", 4).window_keys, 96);
  EXPECT_EQ(settings("swaa-vllm", 4).window_keys, 97);
  EXPECT_TRUE(settings("swaa-hf", 4).decode_full);
  EXPECT_TRUE(settings("swaa-vllm", 4).decode_full);
  EXPECT_EQ(settings("swaa-vllm", 4).sinks, 4);
}

TEST(Options, WindowsOfExamples) {
  Settings settings;
  settings.window_keys = 10;
  settings.sinks = 2;
  EXPECT_TRUE(kernels::is_windowed(settings.window_of(50), 0));
  EXPECT_TRUE(kernels::is_windowed(settings.window_of(50), 70));
  settings.tail_rows = 3;
  EXPECT_FALSE(kernels::is_windowed(settings.window_of(50), 46));
  EXPECT_TRUE(kernels::is_windowed(settings.window_of(50), 47));
  EXPECT_TRUE(kernels::is_windowed(settings.window_of(50), 50));
  settings.decode_full = true;
  EXPECT_TRUE(kernels::is_windowed(settings.window_of(50), 49));
  EXPECT_FALSE(kernels::is_windowed(settings.window_of(50), 50));
}

TEST(Options, ReachIsExact) {
  Settings settings;
  settings.window_keys = 10;
  settings.sinks = 2;
  // Row 12 is the first to lose a key; the last computed row of T tokens is T - 2.
  EXPECT_FALSE(settings.affects(settings.window_keys, 13, 5));
  EXPECT_TRUE(settings.affects(settings.window_keys, 14, 5));
}

TEST(Options, BaseHasOneNamePerPattern) {
  const auto base = [](const std::string& text) {
    RunOptions options = some_options();
    options.base = text;
    return resolve_settings(options, 4);
  };
  EXPECT_EQ(base("full").base_name, "full");
  EXPECT_EQ(base("list:0-3").base_name, "full");
  EXPECT_EQ(base("windowed").base_name, "windowed");
  EXPECT_EQ(base("list:2,0").base_name, "list:0,2");
  EXPECT_EQ(base("list:2,0").base, (engine::Pattern{false, true, false, true}));
  EXPECT_EQ(base("list:2,0").variant(0), (engine::Pattern{true, true, false, true}));
  EXPECT_EQ(base("list:2,0").variant(1), (engine::Pattern{false, false, false, true}));
}

TEST(Options, ParsesLayersSizesAndControls) {
  EXPECT_EQ(selection::parse_layers("5,0-2,1", 8, "--layers"), (std::vector<int64_t>{0, 1, 2, 5}));
  for (const char* bad : {"", ",", "1,", "a", "3-1", "-1", "1-", "1--2", "1 2", "99999999999999999999"}) {
    SCOPED_TRACE(bad);
    expect_error([&] { selection::parse_layers(bad, 8, "--layers"); }, ExitCode::kUsage, {"--layers"});
  }
  EXPECT_EQ(parse_bytes("1024", "--max-memory"), 1024);
  EXPECT_EQ(parse_bytes("3K", "--max-memory"), 3072);
  EXPECT_EQ(parse_bytes("8GiB", "--max-memory"), int64_t{8} << 30);
  for (const char* bad : {"", "G", "-1", "1.5G", "8X", "99999999999T"}) {
    SCOPED_TRACE(bad);
    expect_error([&] { parse_bytes(bad, "--max-memory"); }, ExitCode::kUsage, {"--max-memory"});
  }
  EXPECT_EQ(parse_control("short=a=b.h5"), (std::pair<std::string, std::filesystem::path>("short", "a=b.h5")));
  for (const char* bad : {"", "short", "=x", "a=", "a/b=x", "..=x"}) {
    SCOPED_TRACE(bad);
    expect_error([&] { parse_control(bad); }, ExitCode::kUsage, {"--control"});
  }
}

TEST(Stop, AUnitIsFinishedOnlyWhenItFitsTheGraceTime) {
  EXPECT_FALSE(runtime::must_drop_unit(runtime::StopKind::kNone, -1.0, 100.0, 1.0));
  EXPECT_TRUE(runtime::must_drop_unit(runtime::StopKind::kNow, 100.0, 0.0, 0.0));
  EXPECT_FALSE(runtime::must_drop_unit(runtime::StopKind::kGrace, 100.0, 20.0, 110.0));
  EXPECT_TRUE(runtime::must_drop_unit(runtime::StopKind::kGrace, 100.0, 20.0, 130.0));
  EXPECT_FALSE(runtime::must_drop_unit(runtime::StopKind::kGrace, 1.0, 200.0, 110.0));
  EXPECT_TRUE(runtime::must_drop_unit(runtime::StopKind::kGrace, 0.0, 20.0, 110.0));
}

TEST(Stop, SignalsSetAFlagAndHandlersComeBack) {
  {
    const runtime::StopSignals signals(false);
    EXPECT_EQ(signals.kind(), runtime::StopKind::kNone);
    ASSERT_EQ(::raise(SIGUSR1), 0);
    EXPECT_EQ(signals.kind(), runtime::StopKind::kGrace);
    EXPECT_EQ(signals.name(), "SIGUSR1");
    ASSERT_EQ(::raise(SIGTERM), 0);
    EXPECT_EQ(signals.kind(), runtime::StopKind::kGrace);
  }
  {
    const runtime::StopSignals signals(true);
    EXPECT_EQ(signals.kind(), runtime::StopKind::kNone);
    ASSERT_EQ(::raise(SIGTERM), 0);
    EXPECT_EQ(signals.kind(), runtime::StopKind::kNow);
  }
  struct sigaction now {};
  ASSERT_EQ(::sigaction(SIGTERM, nullptr, &now), 0);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

TEST(Stop, ASignalThatCameBeforeIsRemembered) {
  runtime::remember_stop_signals();
  ASSERT_EQ(::raise(SIGUSR1), 0);
  {
    const runtime::StopSignals signals(false);
    EXPECT_EQ(signals.kind(), runtime::StopKind::kGrace);
  }
  EXPECT_EQ(runtime::StopSignals(false).kind(), runtime::StopKind::kNone);  // it was the other's
  ASSERT_EQ(::raise(SIGUSR1), 0);
  EXPECT_EQ(runtime::take_remembered_signal(), SIGUSR1);
  EXPECT_EQ(runtime::take_remembered_signal(), 0);
  for (const int number : {SIGUSR1, SIGTERM, SIGINT}) ::signal(number, SIG_DFL);
}

TEST(Host, CoresAreSharedWithoutOversubscription) {
  const std::vector<int> all = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(share_of_cores({all}, 0, 0.0), 8);
  EXPECT_EQ(share_of_cores({all, all, all}, 1, 0.0), 2);
  EXPECT_EQ(share_of_cores({{0}, {1}}, 0, 0.0), 1);
  EXPECT_EQ(share_of_cores({{0, 1, 2, 3}, {4, 5, 6, 7}}, 1, 0.0), 4);
  EXPECT_EQ(share_of_cores({{0}, {0}, {0}}, 2, 0.0), 1);
  EXPECT_EQ(share_of_cores({all, all}, 0, 2.5), 1);
  EXPECT_EQ(share_of_cores({all}, 0, 2.5), 2);
}

TEST(ScoreTable, KeepWhatTheyHoldWhenTheyGrow) {
  ScoreTable cells(2, 1, 2);
  cells.put(1, kBaseVariant, {0.5, true, 1.0, {1.F, 2.F}});
  cells.put(0, 0, {1.5, false, 0.25, {3.F}});
  cells.grow(3);
  cells.grow(2);
  EXPECT_EQ(cells.n_variants(), 3);
  EXPECT_EQ(cells.get(1, kBaseVariant, 2).nll_nats, 0.5);
  EXPECT_EQ(cells.get(1, kBaseVariant, 2).token_nll_nats, (std::vector<float>{1.F, 2.F}));
  EXPECT_EQ(cells.get(0, 0, 1).nll_nats, 1.5);
  EXPECT_FALSE(cells.has(0, kBaseVariant));
  EXPECT_FALSE(cells.has(0, 1));
  cells.put(0, 2, {2.5, false, 0.25, {3.F}});
  EXPECT_EQ(cells.get(0, 2, 1).nll_nats, 2.5);
  cells.clear();
  EXPECT_FALSE(cells.has(0, 2));
}

TEST(ScoreTable, AddUpExactlyAndRefuseASecondValue) {
  ScoreTable mine(2, 3, 0);
  ScoreTable yours(2, 3, 0);
  mine.put(0, kBaseVariant, {-0.0, true, 1.0, {}});
  yours.put(1, 2, {0.1, false, 0.25, {}});
  for (std::size_t i = 0; i < mine.statistics().size(); ++i) mine.statistics()[i] += yours.statistics()[i];
  EXPECT_TRUE(mine.is_consistent());
  EXPECT_TRUE(mine.has(0, kBaseVariant));
  EXPECT_FALSE(mine.has(0, 2));
  EXPECT_FALSE(std::signbit(mine.get(0, kBaseVariant, 0).nll_nats));
  EXPECT_EQ(mine.get(1, 2, 0).nll_nats, 0.1);
  EXPECT_EQ(mine.get(1, 2, 0).token_accuracy, 0.25);
  for (std::size_t i = 0; i < mine.statistics().size(); ++i) mine.statistics()[i] += yours.statistics()[i];
  EXPECT_FALSE(mine.is_consistent());
  expect_error([&] { yours.put(1, 2, {0.1, false, 0.25, {}}); }, ExitCode::kInternal, {"twice"});
  expect_error([&] { yours.put(2, 0, {}); }, ExitCode::kInternal, {"example 2"});
}

}  // namespace
}  // namespace winnow::run
