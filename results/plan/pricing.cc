#include "results/plan/pricing.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

using serving::KvKind;
using stats::at;

constexpr int64_t kMostUnits = int64_t{1} << 60;  // beyond any memory, and sums of them stay whole numbers

std::size_t bit(KvType type) { return std::size_t{1} << static_cast<std::size_t>(type); }

std::vector<KvType> types_in(std::size_t set) {
  std::vector<KvType> types;
  for (const KvType type : kKvTypes) {
    if ((set & bit(type)) != 0) types.push_back(type);
  }
  return types;
}

// Whether the engine has one number for all windowed layers of that family.
bool has_one_window(const Service& service, std::string_view model_type) {
  if (service.engine == kIdeal) return false;
  return std::ranges::none_of(rows_of(service, model_type), [](const serving::EngineRow* row) {
    return row->form == serving::Form::kLayerWindows || row->form == serving::Form::kList;
  });
}

}  // namespace

std::vector<const serving::EngineRow*> rows_of(const Service& service, std::string_view model_type) {
  const serving::Engine* engine = serving::find_engine(service.engine);
  return engine == nullptr ? std::vector<const serving::EngineRow*>{} : serving::rows_of(*engine, model_type);
}

EngineRules rules_of(const Service& service, std::string_view model_type) {
  const std::vector<const serving::EngineRow*> rows = rows_of(service, model_type);
  const auto needs = [](const serving::EngineRow* row) { return row->limits.needs_full; };
  return {.engine = serving::find_engine(service.engine),
          .needs_full = !rows.empty() && std::ranges::all_of(rows, needs),
          .has_one_window = has_one_window(service, model_type)};
}

Pricing::Pricing(const Service& service, const EngineRules& rules, std::vector<KvKind> settings,
                 const std::vector<KvKind>& fixed)
    : rules_(rules),
      rule_(rules.engine == nullptr ? service.engine : rules.engine->name, service.shape, service.demand),
      settings_(std::move(settings)) {
  const auto place_of = [&](const KvKind& kind) {
    const auto found = std::ranges::find(fixed_, kind, &serving::KvLayers::value_type::first);
    if (found != fixed_.end()) return static_cast<int64_t>(found - fixed_.begin());
    fixed_.emplace_back(kind, 0);
    return static_cast<int64_t>(fixed_.size()) - 1;
  };
  for (const KvKind& kind : fixed) ++fixed_[at(place_of(kind))].second;
  for (const KvKind& kind : settings_) kind_.push_back(place_of(kind));

  std::set<int64_t> windows;
  for (const auto& [kind, count] : fixed_) windows.insert(kind.window);
  std::size_t fixed_types = 0;
  std::set<int64_t> fixed_windows;
  std::size_t all_types = 0;
  for (const auto& [kind, count] : fixed_) {
    all_types |= bit(kind.type);
    if (count == 0) continue;
    fixed_types |= bit(kind.type);
    fixed_windows.insert(kind.window);
  }
  for (std::size_t set = 0; set < std::size_t{1} << kKvTypes.size(); ++set) {
    runs_.push_back(rules.engine == nullptr || serving::kv_obstacle(*rules.engine, types_in(set)).empty());
  }
  windows.erase(0);
  fixed_windows.erase(0);
  // What is left out of several windows: none is a choice as well, which each of them has in it.
  std::vector<std::optional<int64_t>> choices = {std::nullopt};
  if (rules.has_one_window) {
    if (fixed_windows.size() > 1) return;
    const std::set<int64_t>& open = fixed_windows.empty() ? windows : fixed_windows;
    choices.assign(open.begin(), open.end());
    if (choices.empty()) choices.emplace_back(0);
  }
  // Sets of types that are in no greater one, and of these as many as have each type as their widest.
  const auto is_open = [&](std::size_t set) {
    return (set & ~all_types) == 0 && (set & fixed_types) == fixed_types && runs_[set];
  };
  for (std::size_t set = 1; set < runs_.size(); ++set) {
    if (!is_open(set)) continue;
    const auto is_within = [&](KvType type) { return (set & bit(type)) == 0 && is_open(set | bit(type)); };
    if (std::ranges::any_of(kKvTypes, is_within)) continue;
    const std::vector<KvType> types = types_in(set);
    KvType widest = types.front();
    for (const KvType type : types) widest = rule_.wider(widest, type);
    for (const KvType type : types) {
      if (is_sum() && type != widest) continue;
      if (std::ranges::any_of(types_in(fixed_types), [&](KvType other) { return rule_.wider(type, other) != type; })) {
        continue;
      }
      for (const std::optional<int64_t>& window : choices) add_parts(types, type, window);
    }
  }
}

// Adds the settings in these types that take no more than the widest, with this window or any.
void Pricing::add_parts(const std::vector<KvType>& types, KvType widest, std::optional<int64_t> window) {
  Part part;
  std::vector<bool> is_full;
  for (std::size_t s = 0; s < settings_.size(); ++s) {
    const KvKind& kind = settings_[s];
    if (std::ranges::find(types, kind.type) == types.end() || rule_.wider(widest, kind.type) != widest) continue;
    if (window && kind.window != 0 && kind.window != *window) continue;
    part.settings.push_back(static_cast<int64_t>(s));
    part.units.push_back(rule_.units(kind, widest));
    is_full.push_back(kind.window == 0);
  }
  bool has_full = false;
  for (const auto& [kind, count] : fixed_) {
    part.fixed_units += count * rule_.units(kind, widest);
    has_full = has_full || (count > 0 && kind.window == 0);
  }
  if (rules_.needs_full && !has_full) part.is_needed = std::move(is_full);
  if (!part.settings.empty()) parts_.push_back(std::move(part));
}

bool Pricing::is_run(const serving::KvLayers& layers) const {
  std::size_t types = 0;
  bool has_full = false;
  int64_t window = 0;
  for (const auto& [kind, count] : layers) {
    if (count == 0) continue;
    types |= bit(kind.type);
    has_full = has_full || kind.window == 0;
    if (kind.window == 0) continue;
    if (rules_.has_one_window && window != 0 && window != kind.window) return false;
    window = kind.window;
  }
  return types < runs_.size() && runs_[types] && (has_full || !rules_.needs_full);
}

std::optional<double> Pricing::price(const Counts& counts) const {
  serving::KvLayers layers = fixed_;
  for (std::size_t s = 0; s < counts.size(); ++s) layers[at(kind_[s])].second += counts[s];
  if (!is_run(layers)) return std::nullopt;
  return rule_.bytes(rule_.units(layers));
}

int64_t Pricing::units_within(double bytes) const {
  int64_t low = -1;
  int64_t high = kMostUnits;
  while (low < high) {
    const int64_t middle = high - (high - low) / 2;
    if (rule_.bytes(middle) <= bytes) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

}  // namespace winnow::plan
