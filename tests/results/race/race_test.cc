// Races on deltas whose end can be worked by hand, and their record in a file.
#include "results/race/race.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "results/race/store.h"
#include "results/race/text.h"
#include "results/stats/bounds.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::race {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Layers that cost 4, 1 and next to nothing; the noise is theirs together, so that their differences are sharper.
stats::Table<double> deltas(int64_t n_examples, double own_noise = 0.01) {
  stats::Table<double> table(n_examples, 4);
  const double means[] = {1.0, 4.0, 0.02, 0.01};
  for (int64_t e = 0; e < n_examples; ++e) {
    const double shared = 0.05 * static_cast<double>((e * 5) % 7 - 3);
    for (int64_t l = 0; l < 4; ++l) {
      table(e, l) = means[l] + shared + own_noise * static_cast<double>((e * 3 + l * 2) % 5 - 2);
    }
  }
  return table;
}

RaceOptions options(std::vector<int64_t> budget, Tolerance tolerance = {.value = 0.01, .is_share = true}) {
  return {.confidence = 0.95, .tolerance = tolerance, .budget = std::move(budget), .n_races = 1};
}

TEST(Race, LooksGrowByHalfOrAThird) {
  const std::vector<int64_t> first = {16, 24, 32, 48, 64, 96, 128, 192};
  for (std::size_t k = 0; k < first.size(); ++k) EXPECT_EQ(look_examples(static_cast<int64_t>(k)), first[k]);
  EXPECT_GT(look_examples(200), 0);  // no overflow
}

TEST(Race, ALayerWhosePlaceIsCertainIsLeftOut) {
  // Of K = 1 and 2 all is certain at once; K = 3 is between layers 2 and 3, which differ by less than their noise, and
  // by more than the tolerance.
  Race race(4, options({1, 2, 3}, {.value = 1e-4, .is_share = false}));
  race.look(deltas(16));
  const Look& look = race.looks().back();
  EXPECT_TRUE(look.is_settled(0));
  EXPECT_TRUE(look.is_settled(1));
  EXPECT_FALSE(look.is_settled(2));
  EXPECT_EQ(race.needs(), (std::vector<bool>{false, false, true, true}));
  EXPECT_EQ(race.place(0, 1), Place::kKept);
  EXPECT_EQ(race.place(0, 0), Place::kWindowed);
  EXPECT_EQ(race.place(1, 0), Place::kKept);
  EXPECT_EQ(race.place(2, 3), Place::kOpen);
  EXPECT_EQ(look.n_open, (std::vector<int64_t>{0, 0, 2}));
  EXPECT_FALSE(race.is_settled());
  // The next look has no figures of the others, and does not look at them.
  stats::Table<double> more = deltas(24);
  for (int64_t e = 0; e < 24; ++e) more(e, 0) = more(e, 1) = kNan;
  race.look(more);
  EXPECT_EQ(race.layer_examples(), (std::vector<int64_t>{16, 16, 24, 24}));
  EXPECT_EQ(race.place(0, 1), Place::kKept);
}

TEST(Race, ATieWithinTheToleranceIsSettled) {
  Race race(4, options({3}));  // 1 % of some 5 nats
  race.look(deltas(16));
  EXPECT_TRUE(race.is_settled());
  EXPECT_EQ(race.place(0, 3), Place::kOpen);
  EXPECT_EQ(race.needs(), std::vector<bool>(4, false));
  EXPECT_GT(race.looks().back().exchange[0], 0.0);
  EXPECT_LE(race.looks().back().exchange[0], race.looks().back().tolerance_nats);
  EXPECT_NEAR(race.looks().back().tolerance_nats, 0.05, 0.005);
}

TEST(Race, TheBoundOfAnExchangeIsThatOfTheDifference) {
  Race race(4, options({3}, {.value = 0.0, .is_share = false}));
  const stats::Table<double> table = deltas(16);
  race.look(table);
  std::vector<double> difference;
  for (int64_t e = 0; e < 16; ++e) difference.push_back(table(e, 2) - table(e, 3));
  // Half of 5 % at the first look; 5 * 4 / 2 pairs, the layer that costs nothing among them, with two bounds each.
  const stats::OneMeanBounds bounds = stats::student_bounds(difference, 0.025 / 20.0);
  EXPECT_DOUBLE_EQ(race.looks().back().exchange[0], -bounds.lower);
  EXPECT_NEAR(race.looks().back().error, 0.025, 1e-15);
  race.look(deltas(24));
  EXPECT_NEAR(race.looks().back().error, 0.05 / 6.0, 1e-15);
}

TEST(Race, EqualValuesDecideNothing) {
  // Examples that the window does not reach have deltas of 0 in all layers; the next one may be another.
  Race race(3, options({1, 2}));
  race.look(stats::Table<double>(16, 3));
  EXPECT_FALSE(race.is_settled());
  EXPECT_EQ(race.needs(), std::vector<bool>(3, true));
  EXPECT_TRUE(std::isinf(race.looks().back().exchange[0]));
}

TEST(Race, OneExampleDecidesNothing) {
  Race race(4, options({1}));
  race.look(deltas(1));
  EXPECT_FALSE(race.is_settled());
}

TEST(Race, BudgetsAreOfTheLayers) { EXPECT_THROW(Race(4, options({5})), Error); }

TEST(Race, OptionsAreRead) {
  EXPECT_DOUBLE_EQ(parse_confidence("97.5%", "--until"), 0.975);
  for (const char* bad : {"95", "0.95", "100%", "49%", "nan%", "%", "", "95%%"}) {
    EXPECT_THROW(parse_confidence(bad, "--until"), Error) << bad;
  }
  EXPECT_DOUBLE_EQ(parse_tolerance("2.5%", "--t").value, 0.025);
  EXPECT_FALSE(parse_tolerance("0.01", "--t").is_share);
  for (const char* bad : {"-1%", "101%", "-0.1", "inf", "x", "", "%"}) {
    EXPECT_THROW(parse_tolerance(bad, "--t"), Error) << bad;
  }
}

TEST(Race, AShareMayBeOfWhatOtherLayersCost) {
  Race own(4, options({3}));
  own.look(deltas(16));
  const double least = own.least_cost();
  EXPECT_DOUBLE_EQ(own.looks().back().tolerance_nats, 0.01 * least);
  EXPECT_NEAR(least, 5.0, 0.5);
  Race other(4, options({3}));
  other.look(deltas(16), 100.0);
  EXPECT_DOUBLE_EQ(other.looks().back().tolerance_nats, 1.0);
  Race nats(4, options({3}, {.value = 0.25, .is_share = false}));
  nats.look(deltas(16), 100.0);
  EXPECT_DOUBLE_EQ(nats.looks().back().tolerance_nats, 0.25);
}

std::filesystem::path file_of_test() {
  return std::filesystem::temp_directory_path() / ("winnow_race_" + std::to_string(::getpid()) + ".h5");
}

TEST(Race, ARecordOfTypesNamesThem) {
  const auto path = file_of_test();
  std::vector<Race> races(3, Race(4, options({1, 3}, {.value = 1e-4, .is_share = false})));
  for (int64_t n : {16, 24}) races[1].look(deltas(n));
  races[0].look(deltas(16, 1e-6));
  races[2].look(deltas(16, 1e-6));
  const std::vector<RacedSetting> settings = {
      {.window = 64}, {.window = 64, .kv = KvType::kFp8}, {.window = 0, .kv = KvType::kFp8}};
  const RaceRecord record = record_of(races, {0, 2, 4, 6}, settings, "0.0001");
  storage::File file = storage::File::create(path);
  write_race(file.root().create_group("race"), record);
  file.commit();
  const storage::File written = storage::File::open(path);
  RaceRecord found = read_race(written.root().group("race"));
  found.layer_examples = record.layer_examples;  // /calibration has them
  const std::vector<std::string> names = {"64 keys in bf16", "64 keys in fp8", "full attention in fp8"};
  EXPECT_EQ(names_of(found.setting), names);
  const std::string block = to_block(found);
  EXPECT_NE(block.find("64 keys in bf16, top 3: settled after 16 examples"), std::string::npos) << block;
  EXPECT_NE(block.find("64 keys in fp8, top 3: open"), std::string::npos) << block;
  EXPECT_NE(block.find("full attention in fp8, top 3: settled after 16 examples"), std::string::npos) << block;
  const Json shown = to_object(found);
  EXPECT_EQ(shown["windows"][2]["window"], 0);
  EXPECT_EQ(shown["windows"][2]["kv"], "fp8");
  std::filesystem::remove(path);
}

TEST(Race, ATypeThatIsNoneIsRefused) {
  const auto path = file_of_test();
  storage::File file = storage::File::create(path);
  storage::Group group = file.root().create_group("race");
  group.make_dimension("window", 2);
  const std::vector<std::string> types = {"fp8", "fp9"};
  storage::write_variable(group, {"window_kv", {"window"}, {2}}, types, {storage::kText, "types"});
  file.commit();
  try {
    storage::read_kv_types(storage::File::open(path).root().group("race"), "window_kv", {2});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadData);
    EXPECT_NE(std::string(error.what()).find("\"fp9\""), std::string::npos) << error.what();
  }
  std::filesystem::remove(path);
}

TEST(Race, ARecordComesBackFromItsFile) {
  const auto path = file_of_test();
  std::vector<Race> races(2, Race(4, options({1, 3}, {.value = 1e-4, .is_share = false})));
  for (int64_t n : {16, 24}) races[0].look(deltas(n));
  races[1].look(deltas(16, 1e-6));
  const RaceRecord record = record_of(races, {0, 2, 4, 6}, {{.window = 64}, {.window = 128}}, "0.0001");
  EXPECT_EQ(record.look_examples, (std::vector<int64_t>{16, 24}));
  EXPECT_EQ(record.settled_examples(0, 0), 16);
  EXPECT_EQ(record.settled_examples(0, 1), 0);
  EXPECT_EQ(record.settled_examples(1, 1), 16);
  EXPECT_FALSE(record.is_settled());
  EXPECT_TRUE(std::isnan(record.tolerance_nats(1, 1)));
  storage::File file = storage::File::create(path);
  write_race(file.root().create_group("race"), record);
  file.commit();
  const storage::File read = storage::File::open(path);
  EXPECT_FALSE(read.root().group("race").contains("window_kv"));
  EXPECT_FALSE(to_object(record)["windows"][0].contains("kv"));
  const RaceRecord found = read_race(read.root().group("race"));
  EXPECT_EQ(found.confidence, record.confidence);
  EXPECT_EQ(names_of(found.setting), (std::vector<std::string>{"window 64", "window 128"}));
  EXPECT_EQ(found.settled_examples.values, record.settled_examples.values);
  EXPECT_EQ(found.place.values, record.place.values);
  EXPECT_EQ(found.n_open.values, record.n_open.values);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace winnow::race
