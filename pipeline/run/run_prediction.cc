// What a run predicts of itself: the time and the memory of units, rounds and prefixes.

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "pipeline/engine/sweep_price.h"
#include "pipeline/run/dry_run.h"
#include "pipeline/run/run.h"

namespace winnow::run {
namespace {

// Of a unit besides its sweep: its shard, synced to the disk, and the stamps of the files that it came from.
constexpr double kUnitSeconds = 0.004;

}  // namespace

// Requests as they will come, of a middling, the shortest and the longest example: what the rates are measured at.
std::vector<engine::SweepRequest> MeasuringRun::samples() const {
  struct Place {
    std::size_t n_tokens;
    int64_t data_set;
    int64_t example;
  };
  std::vector<Place> places;
  for (std::size_t d = 0; d < inputs_.data_sets.size(); ++d) {
    const DataSet& data = inputs_.data_sets[d];
    for (int64_t e = 0; e < data.n_wanted; ++e) {
      places.push_back({data.corpus.example(e).size(), static_cast<int64_t>(d), e});
    }
  }
  std::ranges::stable_sort(places, {}, &Place::n_tokens);
  std::set<std::size_t> chosen;
  std::vector<engine::SweepRequest> requests;
  for (const std::size_t at : {places.size() / 2, std::size_t{0}, places.size() - 1}) {
    if (places.empty() || !chosen.insert(at).second) continue;
    const MissingCells cells{
        .data_set = places[at].data_set, .example = places[at].example, .base = true, .variants = {}};
    requests.push_back(inputs_.request(cells, inputs_.wanted, options_.per_token));
    if (!has_owners() || cells.data_set != 0) continue;
    const engine::SweepRequest with_prefix = requests.back();
    if (with_prefix.prefix_rows > 0) requests.push_back(engine::prefix_request(with_prefix));
    // What the search is compared with, and verified by.
    std::vector<Variant> variants;
    for (const int64_t variant : inputs_.wanted) {
      variants.push_back(inputs_.variants[static_cast<std::size_t>(variant)]);
    }
    requests.push_back(round_request(cells.example, inputs_.settings.base_variant(), variants, Rows::kAll));
  }
  return requests;
}

// Copies of a request that fill a sweep together.
std::vector<engine::SweepRequest> MeasuringRun::together(const engine::SweepRequest& request) const {
  const int64_t n_ranks = session_.size();
  int64_t most = inputs_.data_sets.front().n_wanted / (has_owners() ? 1 : 2 * n_ranks);
  if (is_streamed_) {
    const int64_t left = memory_limit_ - inputs_.prefixes.backend_bytes - weight_bytes();
    most = std::min(most, left / engine::predict_sweep_bytes(inputs_.config, *ops_, {&request, 1}));
  }
  return engine::stacked(request, stack_rows(), most);
}

// Of one request, which shares its sweep with others of its kind where it is short.
double MeasuringRun::price(const engine::SweepRequest& request) const {
  const std::vector<engine::SweepRequest> all = together(request);
  return engine::predict_seconds(rates_, inputs_.config, *ops_, all) / static_cast<double>(all.size());
}

UnitPrices MeasuringRun::prices() const {
  return {.seconds =
              [this](const MissingCells& cells, std::span<const int64_t> group) {
                return kUnitSeconds + price(inputs_.request(cells, group, options_.per_token));
              },
          .bytes =
              [this, weights = weight_bytes()](const MissingCells& cells, std::span<const int64_t> group) {
                const engine::SweepRequest request = inputs_.request(cells, group, options_.per_token);
                return weights + engine::predict_sweep_bytes(inputs_.config, *ops_, std::span(&request, 1));
              }};
}

engine::SweepRequest MeasuringRun::round_request(int64_t example, const Variant& base,
                                                 const std::vector<Variant>& variants, Rows rows) const {
  engine::SweepRequest request =
      inputs_.request({.data_set = 0, .example = example, .base = true, .variants = {}}, {}, false);
  kernels::Window window = inputs_.window_of(0, example);
  if (rows == Rows::kAll) {
    window.first_row = 0;
    request.prefix_rows = 0;
  }
  request.base = inputs_.settings.layer_windows(base, window);
  for (const Variant& variant : variants) {
    request.variants.push_back(inputs_.settings.layer_windows(variant, window));
  }
  return request;
}

double MeasuringRun::predict_round(const Variant& base, const std::vector<Variant>& variants, Rows rows,
                                   int64_t n_examples) const {
  double seconds = 0.0;
  for (int64_t e = 0; e < n_examples; ++e) seconds += kUnitSeconds + price(round_request(e, base, variants, rows));
  return seconds / static_cast<double>(session_.size());
}

bool MeasuringRun::has_owners() const { return !inputs_.prefixes.owner.empty(); }

// 0 where there is nothing to keep, or it is there already.
double MeasuringRun::prefix_seconds(int64_t example) const {
  if (!has_owners() || has_prefix_.contains(example)) return 0.0;
  const engine::SweepRequest request =
      inputs_.request({.data_set = 0, .example = example, .base = true, .variants = {}}, {}, false);
  if (request.prefix_rows == 0) return 0.0;
  const engine::SweepRequest prefix = engine::prefix_request(request);
  return engine::predict_seconds(rates_, inputs_.config, *ops_, {&prefix, 1});
}

double MeasuringRun::predict_prefixes() const {
  double seconds = 0.0;
  for (int64_t e = 0; e < inputs_.data_sets.front().n_examples; ++e) seconds += prefix_seconds(e);
  return seconds / static_cast<double>(session_.size());
}

// The first unit of an example makes its prefix.
void MeasuringRun::charge_prefixes(std::vector<WorkUnit>& units) const {
  std::set<int64_t> charged;
  for (WorkUnit& unit : units) {
    if (unit.data_set == 0 && charged.insert(unit.example).second) unit.cost_seconds += prefix_seconds(unit.example);
  }
}

void MeasuringRun::note_prefixes() {
  if (!has_owners()) return;
  for (const WorkUnit& unit : units_) {
    if (unit.data_set == 0) has_prefix_.insert(unit.example);
  }
}

// Of the plan, until the last rank ends.
double MeasuringRun::predict_units() const {
  if (!has_owners() || units_.empty() || units_.front().data_set != 0) {
    return predict_makespan(units_, session_.size());
  }
  std::vector<double> busy(static_cast<std::size_t>(session_.size()), 0.0);
  for (const WorkUnit& unit : units_) {
    busy[static_cast<std::size_t>(inputs_.prefixes.owner[static_cast<std::size_t>(unit.example)])] += unit.cost_seconds;
  }
  return *std::ranges::max_element(busy);
}

int64_t MeasuringRun::largest_unit_bytes() const {
  const UnitPrices unit_prices = prices();
  int64_t largest = 0;
  for (const WorkUnit& unit : units_) {
    const MissingCells cells{.data_set = unit.data_set, .example = unit.example, .base = true, .variants = {}};
    largest = std::max(largest, unit_prices.bytes(cells, unit.variants));
  }
  return largest;
}

double MeasuringRun::predict_texts(std::span<const engine::GenerationRequest> requests,
                                   std::span<const int64_t> n_tokens) const {
  return engine::predict_generation_seconds(rates_, inputs_.config, *ops_, requests, n_tokens);
}

ExitCode MeasuringRun::forecast(double text_seconds) {
  gather_facts();
  session_.agree_on_root([&] {
    Forecast forecast = make_forecast(inputs_, units_, options_, session_.size());
    const std::vector<double> taken = session_.timeline().seconds();
    forecast.seconds = predict_units();
    forecast.start_seconds = std::accumulate(taken.begin(), taken.end(), 0.0);
    forecast.text_seconds = text_seconds;
    forecast.limit_bytes = memory_limit_;
    forecast.unit_bytes = largest_unit_bytes();
    if (is_streamed_) forecast.stream = stream_forecast();
    std::fputs(forecast_text(forecast, all_facts_, options_.json).c_str(), stdout);
  });
  return ExitCode::kDone;
}

}  // namespace winnow::run
