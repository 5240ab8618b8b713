// results.h5: what is written comes back, and a file that does not fit the schema is refused by name.
#include "results/calibration/store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"
#include "tests/results/calibration/example_results.h"

namespace winnow::calibration {
namespace {

namespace fs = std::filesystem;

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    directory_ = fs::temp_directory_path() / ("winnow_store_" + name + "_" + std::to_string(::getpid()));
    fs::create_directory(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  fs::path at(const std::string& name) const { return directory_ / name; }

  fs::path directory_;
};

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Bit for bit, so that NaN equals NaN and -0.0 does not equal 0.0.
template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <typename T>
bool same_bits(const stats::Table<T>& a, const stats::Table<T>& b) {
  return a.rows == b.rows && a.cols == b.cols && same_bits(a.values, b.values);
}

void expect_equal(const Measurement& a, const Measurement& b) {
  EXPECT_EQ(a.example_id, b.example_id);
  EXPECT_EQ(a.source, b.source);
  EXPECT_EQ(a.answer_tokens, b.answer_tokens);
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
  EXPECT_EQ(a.layer, b.layer);
  EXPECT_EQ(a.layer_windowed_in_base, b.layer_windowed_in_base);
  EXPECT_TRUE(same_bits(a.nll_base, b.nll_base));
  EXPECT_EQ(a.exact_match_base, b.exact_match_base);
  EXPECT_TRUE(same_bits(a.token_accuracy_base, b.token_accuracy_base));
  EXPECT_TRUE(same_bits(a.nll, b.nll));
  EXPECT_TRUE(same_bits(a.exact_match, b.exact_match));
  EXPECT_TRUE(same_bits(a.token_accuracy, b.token_accuracy));
  EXPECT_TRUE(same_bits(a.token_nll_base, b.token_nll_base));
  EXPECT_TRUE(same_bits(a.token_nll, b.token_nll));
  ASSERT_EQ(a.signals.size(), b.signals.size());
  for (const auto& [variable, table] : a.signals) EXPECT_TRUE(same_bits(table, b.signals.at(variable))) << variable;
}

void expect_refused(const fs::path& path, ExitCode code, const std::vector<std::string>& words) {
  try {
    read_results(path);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << '"' << word << "\" in: " << error.what();
    }
  }
}

TEST_F(StoreTest, ReadThenWriteGivesTheSameFile) {
  const Results written = example_results();
  write_results(at("a.h5"), written);
  const Results read = read_results(at("a.h5"));
  expect_equal(written.calibration, read.calibration);
  ASSERT_EQ(read.controls.size(), 2U);
  expect_equal(written.controls.at("short"), read.controls.at("short"));
  expect_equal(written.controls.at("no-effect_0.1"), read.controls.at("no-effect_0.1"));
  EXPECT_EQ(written.provenance.entries(), read.provenance.entries());
  EXPECT_EQ(read.statistics.options.seed, 7U);
  EXPECT_EQ(read.statistics.options.top_k, 3);
  EXPECT_EQ(read.statistics.ranking.rank, written.statistics.ranking.rank);
  EXPECT_TRUE(same_bits(read.statistics.ranking.p_top_k, written.statistics.ranking.p_top_k));
  const Deconfounding& d = read.statistics.deconfounding.at("no-effect_0.1");
  EXPECT_FALSE(d.spearman_rho.value.defined());
  EXPECT_EQ(d.spearman_rho.value.status,
            written.statistics.deconfounding.at("no-effect_0.1").spearman_rho.value.status);
  ASSERT_TRUE(read.statistics.signals.has_value());
  EXPECT_EQ(read.statistics.signals->signal, written.statistics.signals->signal);
  EXPECT_TRUE(same_bits(read.statistics.signals->rho, written.statistics.signals->rho));
  EXPECT_TRUE(same_bits(read.statistics.signals->transfer, written.statistics.signals->transfer));
  EXPECT_FALSE(read.statistics.ranking.signal_means.at("lazy_ratio").empty());
  // The rest in one step: the bytes of the file are a function of the content.
  write_results(at("b.h5"), read);
  EXPECT_EQ(bytes_of(at("a.h5")), bytes_of(at("b.h5")));
}

TEST_F(StoreTest, StatisticsOfTheFileAreThoseOfItsTables) {
  write_results(at("a.h5"), example_results());
  Results read = read_results(at("a.h5"));
  read.statistics = compute_statistics(read.calibration, read.controls, read.statistics.options);
  write_results(at("b.h5"), read);
  EXPECT_EQ(bytes_of(at("a.h5")), bytes_of(at("b.h5")));
}

// Two layers under two settings on three examples; the second layer has the first two alone.
Measurement raced_measurement() {
  Measurement m = example_measurement(3, 2, 1.0, false);
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  m.layer_examples = {3, 2};
  m.by_setting.window = {64, 0};
  m.by_setting.kv = {KvType::kStored, KvType::kFp8};
  m.by_setting.nll = stats::Table<double>(6, 2, 1.5);
  m.by_setting.exact_match = stats::Table<uint8_t>(6, 2, 1);
  m.by_setting.token_accuracy = stats::Table<double>(6, 2, 0.5);
  m.nll(2, 1) = m.token_accuracy(2, 1) = kNan;
  m.exact_match(2, 1) = kNotMeasured;
  for (int64_t setting = 0; setting < 2; ++setting) {
    m.by_setting.nll(5, setting) = m.by_setting.token_accuracy(5, setting) = kNan;
    m.by_setting.exact_match(5, setting) = kNotMeasured;
  }
  return m;
}

TEST_F(StoreTest, SettingsOfALayerThatWasLeftOutComeBack) {
  Results results;
  results.calibration = raced_measurement();
  results.calibration.signals.clear();
  results.statistics = compute_statistics(results.calibration, {}, {});
  write_results(at("a.h5"), results);
  const Measurement found = read_results(at("a.h5")).calibration;
  EXPECT_TRUE(same_bits(found.by_setting.nll, results.calibration.by_setting.nll));
  EXPECT_TRUE(same_bits(found.by_setting.exact_match, results.calibration.by_setting.exact_match));
  EXPECT_EQ(found.by_setting.kv, results.calibration.by_setting.kv);
  const storage::File file = storage::File::open(at("a.h5"));
  for (const char* name : {"nll_by_setting", "delta_nll_by_setting", "exact_match_by_setting"}) {
    EXPECT_TRUE(file.root().group("calibration").string_attribute(name, "status").has_value()) << name;
  }
}

TEST(Measurement, ASettingMustHaveFiguresWhereItsLayerWasMeasured) {
  Measurement m = raced_measurement();
  m.signals.clear();
  EXPECT_NO_THROW(check_measurement(m, "here"));
  m.by_setting.nll(3, 1) = std::numeric_limits<double>::quiet_NaN();  // the second example's second layer
  try {
    check_measurement(m, "here");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("full attention in fp8"), std::string::npos) << error.what();
  }
}

TEST_F(StoreTest, OneExampleWithoutControls) {
  Results results;
  results.calibration = example_measurement(1, 4, 1.0, false);
  results.statistics = compute_statistics(results.calibration, {}, {});
  write_results(at("a.h5"), results);
  const Results read = read_results(at("a.h5"));
  EXPECT_EQ(read.statistics.ranking.spread_status, "one example");
  EXPECT_TRUE(read.controls.empty());
  EXPECT_TRUE(read.calibration.token_nll.values.empty());
  write_results(at("b.h5"), read);
  EXPECT_EQ(bytes_of(at("a.h5")), bytes_of(at("b.h5")));
}

TEST_F(StoreTest, DeltaIsStoredWithItsSign) {
  const Results results = example_results();
  write_results(at("a.h5"), results);
  const storage::Array<double> delta = storage::File::open(at("a.h5")).root().read<double>("calibration/delta_nll", 2);
  const int64_t last = results.calibration.n_layers() - 1;  // windowed in the base
  EXPECT_EQ(delta.shape, (std::vector<int64_t>{8, 12}));
  EXPECT_EQ(delta.values[static_cast<std::size_t>(last)],
            results.calibration.nll_base[0] - results.calibration.nll(0, last));
  EXPECT_GT(delta.values[static_cast<std::size_t>(last)], 0.0);
}

TEST_F(StoreTest, WhatIsNoResultIsRefused) {
  expect_refused(at("absent.h5"), ExitCode::kNoInput, {"absent.h5"});
  storage::File file = storage::File::create(at("other.h5"));
  file.root().set_attribute<std::string>(".", "format", "winnow-calibration");
  file.commit();
  expect_refused(at("other.h5"), ExitCode::kBadData, {"other.h5", "\"winnow-results\"", "\"winnow-calibration\""});
  storage::File bare = storage::File::create(at("bare.h5"));
  bare.root().set_attribute<std::string>(".", "format", storage::kResultsFormat);
  bare.root().set_attribute<int64_t>(".", "format_version", storage::kResultsVersion);
  bare.commit();
  expect_refused(at("bare.h5"), ExitCode::kBadData, {"/calibration", "expected a group"});
}

TEST_F(StoreTest, NamesAndTablesThatDoNotFitAreNotWritten) {
  Results results = example_results();
  results.controls["a/b"] = results.controls["short"];
  EXPECT_THROW(write_results(at("a.h5"), results), Error);
  results = example_results();
  results.provenance.set("a/b", int64_t{1}, "");
  EXPECT_THROW(write_results(at("a.h5"), results), Error);
  results = example_results();
  results.statistics.ranking.layer.pop_back();
  EXPECT_THROW(write_results(at("a.h5"), results), Error);
  EXPECT_TRUE(fs::is_empty(directory_));
}

TEST(Provenance, KeepsOrderAndReplacesInPlace) {
  storage::Provenance p;
  p.set("b", int64_t{1}, "first");
  p.set("a", std::string("x"), "second");
  p.set("b", 2.5, "third", "s");
  ASSERT_EQ(p.entries().size(), 2U);
  EXPECT_EQ(p.entries()[0].name, "b");
  EXPECT_EQ(std::get<double>(p.entries()[0].value), 2.5);
  EXPECT_EQ(p.entries()[0].units, "s");
  EXPECT_EQ(p.entries()[1].units, "text");
  EXPECT_EQ(p.text("a"), "x");
  EXPECT_EQ(p.text("b"), "");
  EXPECT_EQ(p.find("c"), nullptr);
}

TEST(Names, AreSafeInPaths) {
  for (const char* name : {"short", "a.b-C_9", "..."}) EXPECT_TRUE(storage::is_valid_name(name)) << name;
  for (const char* name : {"", ".", "..", "a/b", "a b", "\xC3\xA9"}) EXPECT_FALSE(storage::is_valid_name(name)) << name;
}

}  // namespace
}  // namespace winnow::calibration
