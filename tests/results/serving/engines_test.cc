#include "results/serving/engines.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "model/families.h"

namespace winnow::serving {
namespace {

TEST(Engines, TheTableOfTheReadmeIsThatOfTheCode) {
  std::ifstream readme(std::string(WINNOW_TESTS_DIR) + "/../README.md");
  std::vector<std::string> found;
  for (std::string line; std::getline(readme, line);) {
    if (line.ends_with(" | run |") || line.ends_with(" | read |")) found.push_back(line);
  }
  std::string table;
  for (const std::string& line : engines_table()) table += line + "\n";
  EXPECT_TRUE(found == engines_table()) << "the rows of README.md should be\n" << table;
}

TEST(Engines, EachRowIsOfAnEngineAndOfFamiliesThatWinnowKnows) {
  std::set<std::string_view> names;
  for (const Engine& engine : engines()) {
    EXPECT_TRUE(names.insert(engine.name).second);
    EXPECT_EQ(find_engine(engine.target), &engine);
    EXPECT_FALSE(families_of(engine).empty());
  }
  EXPECT_EQ(find_engine("json"), nullptr);
  for (const EngineRow& row : engine_rows()) {
    EXPECT_TRUE(names.contains(row.engine)) << row.engine;
    int n_known = 0;
    for (const model::Family& family : model::families()) n_known += row.serves(family.model_type) ? 1 : 0;
    EXPECT_GT(n_known, 0) << row.families;
    EXPECT_FALSE(row.serves(""));
    EXPECT_FALSE(row.families != "*" && row.serves("qwen"));  // a part of a name is none
  }
}

TEST(Engines, TheFirstRowOfAFamilyIsThePreferredOne) {
  const auto first = [](const char* target, const char* family) { return rows_of(*find_engine(target), family).at(0); };
  EXPECT_EQ(first("hf", "llama")->form, Form::kMinistral);
  EXPECT_EQ(first("hf", "qwen3_moe")->form, Form::kMellum);
  EXPECT_EQ(first("vllm", "qwen3")->route, Route::kTransformers);
  EXPECT_EQ(first("sglang", "qwen2")->form, Form::kGraniteSwa);
  EXPECT_EQ(first("llamacpp", "qwen3")->form, Form::kOneExpertMellum);
  EXPECT_EQ(first("mlx", "llama")->form, Form::kTopLevelRope);
  EXPECT_EQ(first("trtllm", "anything")->form, Form::kList);
  EXPECT_TRUE(rows_of(*find_engine("mlx"), "phi3").empty());
  EXPECT_EQ(families_of(*find_engine("swaa")), "qwen3, qwen2, llama, qwen3_moe");
}

}  // namespace
}  // namespace winnow::serving
