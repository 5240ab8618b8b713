// Selections on disk, and patterns as the command line names them.
#include "results/selection/selection.h"
#include "results/selection/pattern.h"

#include <fstream>
#include <functional>

#include "tests/scratch.h"

namespace winnow::selection {
namespace {

using Layers = std::vector<int64_t>;

Selection some_selection() {
  Selection s;
  s.method = "nll";
  s.keep = 3;
  s.layers = {1, 4, 5};
  s.n_layers = 12;
  s.window = 96;
  s.window_keys = 96;
  s.sinks = 4;
  s.decode = "windowed";
  s.model = "/models/with \"quotes\" and \xC3\xBC";
  s.model_type = "qwen3";
  s.checkpoint_sha256 = std::string(64, 'a');
  s.provenance.set("results", std::string("run/results.h5"), "");
  s.provenance.set("n_examples", int64_t{64}, "");
  s.provenance.set("share", 0.25, "");
  return s;
}

std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Selection, ReadsWhatItWrote) {
  const ScratchDirectory scratch;
  const std::filesystem::path path = scratch.path() / "s.json";
  write_selection(path, some_selection());
  const Selection read = read_selection(path);
  EXPECT_EQ(to_json(read), to_json(some_selection()));
  EXPECT_EQ(read.layers, (Layers{1, 4, 5}));
  EXPECT_EQ(read.model, some_selection().model);
  EXPECT_EQ(read.provenance.text("results"), "run/results.h5");
  EXPECT_EQ(read.windowed(),
            (std::vector<bool>{true, false, true, true, false, false, true, true, true, true, true, true}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path()), {}), 1);
  // One key a line: a list of layers does not fill a page.
  EXPECT_NE(read_all(path).find("\n  \"layers\": [1,4,5],\n"), std::string::npos) << read_all(path);
}

TEST(Selection, KeepsNoneOrAll) {
  Selection s = some_selection();
  s.keep = 0;
  s.layers.clear();
  EXPECT_EQ(parse_selection(to_json(s), "s").windowed(), std::vector<bool>(12, true));
  s.keep = 12;
  for (int64_t layer = 0; layer < 12; ++layer) s.layers.push_back(layer);
  EXPECT_EQ(parse_selection(to_json(s), "s").windowed(), std::vector<bool>(12, false));
}

TEST(Selection, KeepsTheWindowsThatLayersHaveOfTheirOwn) {
  Selection s = some_selection();
  EXPECT_EQ(to_json(s).find("native"), std::string::npos);
  EXPECT_EQ(to_json(s).find("positions"), std::string::npos);
  s.native_layers = {0, 7};
  s.native_window = 40;
  s.positions = kByType;
  const Selection read = parse_selection(to_json(s), "s");
  EXPECT_EQ(to_json(read), to_json(s));
  EXPECT_EQ(read.windows()[7], (evaluation::ServedWindow{.keys = 40})) << "without sinks";
  EXPECT_EQ(read.windows()[8], (evaluation::ServedWindow{.keys = 96, .sinks = 4}));
  EXPECT_FALSE(read.windows()[4].is_windowed());
  s.native_layers = {0, 4};
  expect_error([&] { parse_selection(to_json(s), "s"); }, ExitCode::kBadData,
               {"native_window_layers", "none of them in layers"});
  s.native_layers = {0, 12};
  expect_error([&] { parse_selection(to_json(s), "s"); }, ExitCode::kBadData, {"native_window_layers"});
  s.native_layers = {0};
  s.native_window = 0;
  expect_error([&] { parse_selection(to_json(s), "s"); }, ExitCode::kBadData, {"native_window"});
  s.native_window = 40;
  s.positions = "by layer";
  expect_error([&] { parse_selection(to_json(s), "s"); }, ExitCode::kBadData, {"positions", "by type"});
}

TEST(Selection, APlanHasWindowsOfItsOwn) {
  Selection s = some_selection();
  s.layer_windows = {96, 0, 8, 96, 0, 0, 8, 8, 200, 96, 96, 96};
  EXPECT_NE(to_json(s).find("\"format_version\": 2"), std::string::npos);
  EXPECT_NE(to_json(s).find("\"layer_windows\": [96,null,8,"), std::string::npos);
  Selection read = parse_selection(to_json(s), "s");
  EXPECT_EQ(to_json(read), to_json(s));
  EXPECT_EQ(read.windows()[8], (evaluation::ServedWindow{.keys = 200, .sinks = 4}));
  EXPECT_FALSE(read.windows()[4].is_windowed());
  // A layer with full attention, one without, one too few, and a window of a layer's own.
  for (const auto& [layer, keys] : {std::pair{0, 0}, std::pair{1, 8}}) {
    Selection wrong = s;
    wrong.layer_windows[static_cast<std::size_t>(layer)] = keys;
    expect_error([&] { parse_selection(to_json(wrong), "s"); }, ExitCode::kBadData, {"layer_windows", "null"});
  }
  Selection wrong = s;
  wrong.layer_windows.pop_back();
  expect_error([&] { parse_selection(to_json(wrong), "s"); }, ExitCode::kBadData, {"layer_windows", "12 layers"});
  s.native_layers = {0};
  s.native_window = 40;
  expect_error([&] { parse_selection(to_json(s), "s"); }, ExitCode::kBadData, {"layer_windows", "40"});
  s.layer_windows[0] = 40;
  EXPECT_EQ(parse_selection(to_json(s), "s").windows()[0], (evaluation::ServedWindow{.keys = 40}));
}

TEST(Selection, WindowsOfLayersHaveOneName) {
  const std::vector<int64_t> windows = {8, 0, 200};
  EXPECT_EQ(windows_name(windows), "windows:8,full,200");
  EXPECT_TRUE(is_windows_name("windows:8"));
  EXPECT_FALSE(is_windows_name("windowed"));
  EXPECT_EQ(layers_of_name("windows:8,full,200", 3).windows, windows);
  for (const char* name : {"windows:8,full", "windows:8,0,200", "windows:8,,200", "windows:08,full,200", "windows:"}) {
    expect_error([&] { layers_of_name(name, 3); }, ExitCode::kUsage, {name, "3 layers"});
  }
}

struct Damage {
  const char* from;
  const char* to;
  std::vector<std::string> words;
};

TEST(Selection, RefusesDamageNamingFileAndKey) {
  const std::vector<Damage> damages = {
      {"\"format\": \"winnow-selection\"", "\"format\": \"winnow-results\"", {"format", "winnow-results"}},
      {"\"format\": \"winnow-selection\",", "", {"format", "no such key"}},
      {"\"format_version\": 1", "\"format_version\": 5", {"format_version", "expected 1 to 4", "found 5"}},
      {"\"format_version\": 1", "\"format_version\": 2", {"layer_windows", "each of 12 layers"}},
      {"\"format_version\": 1", "\"format_version\": 1.0", {"format_version", "found 1.0"}},
      {"\"keep\": 3", "\"keep\": 13", {"keep", "from 0 to 12", "13"}},
      {"\"keep\": 3", "\"keep\": -1", {"keep", "-1"}},
      {"\"keep\": 3", "\"keep\": 3.5", {"keep", "whole number", "3.5"}},
      {"\"keep\": 3", "\"keep\": 18446744073709551615", {"keep", "18446744073709551615"}},
      {"\"keep\": 3", "\"keep\": 4", {"layers", "4 rising layer indices"}},
      {"\"keep\": 3", "\"keep\": 3, \"keep\": 3", {"keep", "twice"}},
      {"[1,4,5]", "[1,5,4]", {"layers", "rising"}},
      {"[1,4,5]", "[1,4,4]", {"layers", "rising"}},
      {"[1,4,5]", "[1,4,12]", {"layers", "0 to 11"}},
      {"[1,4,5]", "[1,4,-1]", {"layers"}},
      {"[1,4,5]", "[1,4,\"5\"]", {"layers"}},
      {"[1,4,5]", "\"1,4,5\"", {"layers"}},
      {"\"n_layers\": 12", "\"n_layers\": 0", {"n_layers"}},
      {"\"n_layers\": 12", "\"n_layers\": 1000000000000", {"n_layers"}},
      {"\"window\": 96", "\"window\": 0", {"window"}},
      {"\"window_keys\": 96", "\"window_keys\": 97", {"window_keys", "96"}},
      {"\"sinks\": 4", "\"sinks\": null", {"sinks", "null"}},
      {"\"decode\": \"windowed\"", "\"decode\": \"half\"", {"decode", "half"}},
      {"\"target\": \"\"", "\"target\": \"onnx\"", {"target", "onnx", "swaa-vllm"}},
      {"aaaa\"", "aaa\"", {"checkpoint_sha256", "64"}},
      {"\"method\": \"", "\"method\": \"\\n\\u001b[31m", {"method", "one line"}},
      {"\"n_examples\": 64", "\"n_examples\": [64]", {"provenance"}},
      {"{", "[", {"JSON"}},
  };
  for (const Damage& damage : damages) {
    std::string text = to_json(some_selection());
    const std::size_t at = text.find(damage.from);
    ASSERT_NE(at, std::string::npos) << damage.from;
    text.replace(at, std::string(damage.from).size(), damage.to);
    std::vector<std::string> words = damage.words;
    words.emplace_back("bad.json");
    expect_error([&] { parse_selection(text, "bad.json"); }, ExitCode::kBadData, words);
  }
  for (const char* text : {"", "null", "[]", "3", "\xff"}) {
    expect_error([&] { parse_selection(text, "bad.json"); }, ExitCode::kBadData, {"bad.json"});
  }
  expect_error([] { read_selection("/nowhere/s.json"); }, ExitCode::kNoInput, {"/nowhere/s.json"});
}

TEST(Selection, IsForOneModel) {
  const Selection s = some_selection();
  check_selection_model(s, "s.json", {12, std::string(64, 'a')});
  check_selection_model(s, "s.json", {12, ""});
  expect_error(
      [&] {
        check_selection_model(s, "s.json", {36, ""});
      },
      ExitCode::kConfigMismatch, {"s.json", "12 layers", "36"});
  expect_error(
      [&] {
        check_selection_model(s, "s.json", {12, std::string(64, 'b')});
      },
      ExitCode::kConfigMismatch, {"s.json", "aaaa", "bbbb"});
}

Layers full_layers(const std::string& text, int64_t n_layers = 8) {
  return parse_pattern(text, {n_layers, ""}, "--pattern").full_layers;
}

TEST(Pattern, NamesLayers) {
  EXPECT_EQ(full_layers("full", 3), (Layers{0, 1, 2}));
  EXPECT_EQ(full_layers("windowed"), (Layers{}));
  EXPECT_EQ(full_layers("periodic:4@0"), (Layers{0, 4}));
  EXPECT_EQ(full_layers("periodic:4@3"), (Layers{3, 7}));
  EXPECT_EQ(full_layers("periodic:1@0", 3), (Layers{0, 1, 2}));
  EXPECT_EQ(full_layers("periodic:3@1", 8), (Layers{1, 4, 7}));
  EXPECT_EQ(full_layers("periodic:4"), (Layers{0, 4}));
  EXPECT_EQ(full_layers("first:2"), (Layers{0, 1}));
  EXPECT_EQ(full_layers("first:0"), (Layers{}));
  EXPECT_EQ(full_layers("last:3"), (Layers{5, 6, 7}));
  EXPECT_EQ(full_layers("last:8").size(), 8U);
  EXPECT_EQ(full_layers("list:5,1,4-5"), (Layers{1, 4, 5}));
  const NamedPattern pattern = parse_pattern("list:2,0", {3, ""}, "--pattern");
  EXPECT_EQ(pattern.name, "list:0,2");
  EXPECT_EQ(pattern.windowed, (std::vector<bool>{false, true, false}));
  EXPECT_FALSE(pattern.selection.has_value());
}

TEST(Pattern, RandomIsReproducibleAndFair) {
  EXPECT_EQ(full_layers("random:7:3"), full_layers("random:7:3"));
  EXPECT_EQ(full_layers("random:3"), full_layers("random:0:3"));
  EXPECT_NE(full_layers("random:1:4", 36), full_layers("random:2:4", 36));
  std::vector<int> hits(12, 0);
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    const Layers layers = random_layers(seed, 3, 12);
    ASSERT_EQ(layers.size(), 3U);
    ASSERT_TRUE(layers[0] < layers[1] && layers[1] < layers[2]);
    for (const int64_t layer : layers) ++hits[static_cast<std::size_t>(layer)];
  }
  // 6000 * 3 / 12 = 1500, standard deviation 34: five of them.
  for (const int n : hits) EXPECT_NEAR(n, 1500, 170);
}

TEST(Pattern, RefusesWhatIsNone) {
  for (const char* bad : {"",
                          "half",
                          "periodic:9",
                          "periodic:4@",
                          "periodic:0@0",
                          "periodic:4@4",
                          "periodic:9@0",
                          "periodic:4@-1",
                          "periodic:a@b",
                          "first:",
                          "first:9",
                          "first:-1",
                          "last:x",
                          "random:9",
                          "random:-1:3",
                          "random:1:9",
                          "random:1:",
                          "list:",
                          "list:8",
                          "list:a",
                          "nll:3",
                          ":",
                          "full:1",
                          "99999999999999999999"}) {
    expect_error([&] { parse_pattern(bad, {8, ""}, "--pattern"); }, ExitCode::kUsage, {"--pattern"});
  }
}

TEST(Pattern, ReadsSelections) {
  const ScratchDirectory scratch;
  const std::string path = (scratch.path() / "s.json").string();
  write_selection(path, some_selection());
  const NamedPattern pattern = parse_pattern(path, {12, std::string(64, 'a')}, "--pattern");
  EXPECT_EQ(pattern.name, "nll:3");
  EXPECT_EQ(pattern.full_layers, (Layers{1, 4, 5}));
  EXPECT_EQ(pattern.selection.value().window, 96);
  expect_error(
      [&] {
        parse_pattern(path, {12, std::string(64, 'b')}, "--pattern");
      },
      ExitCode::kConfigMismatch, {path});
  expect_error([&] { parse_pattern("nowhere.json", {12, ""}, "--pattern"); }, ExitCode::kNoInput, {"nowhere.json"});
}

}  // namespace
}  // namespace winnow::selection
