// What divisions of the layers among settings take on an engine, and which settings it runs side by side.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "results/serving/engines.h"
#include "results/serving/kv_allocation.h"

namespace winnow::plan {

// The engine of that name keeps what each window sees, and nothing more.
inline constexpr const char* kIdeal = "ideal";

// What is to be served, and by what.
struct Service {
  std::string engine = kIdeal;  // kIdeal, or a target of serving::engines()
  serving::KvShape shape;
  serving::KvDemand demand;
};

// What an engine makes of windows and types in single layers of a family.
struct EngineRules {
  const serving::Engine* engine = nullptr;  // null: kIdeal
  bool needs_full = false;                  // that one layer at least has full attention
  bool has_one_window = false;              // all windowed layers have the same
};
// Returns the engine's rows for a family, none of kIdeal.
std::vector<const serving::EngineRow*> rows_of(const Service& service, std::string_view model_type);
EngineRules rules_of(const Service& service, std::string_view model_type);

// Layers with each setting; (settings).
using Counts = std::vector<int64_t>;

class Pricing {
 public:
  // Settings that an engine runs side by side: all layers of a plan have settings of one part. Whatever it runs is in a
  // part, where it takes the sum of `units` over layers if is_sum(), and no less otherwise.
  struct Part {
    std::vector<int64_t> settings;  // rising
    std::vector<int64_t> units;     // (settings), of a layer
    int64_t fixed_units = 0;        // of the layers that no plan changes
    // (settings), those of which one layer at least must have one; empty: none must.
    std::vector<bool> is_needed;
  };

  Pricing() = default;  // of no settings: nothing is run
  // `settings` are what a layer may have, `fixed` what the layers have that no plan changes; windows in keys that are
  // kept.
  Pricing(const Service& service, const EngineRules& rules, std::vector<serving::KvKind> settings,
          const std::vector<serving::KvKind>& fixed);

  int64_t n_settings() const { return static_cast<int64_t>(settings_.size()); }
  // Returns what such a division of the layers takes, bytes; none where the engine does not run it.
  std::optional<double> price(const Counts& counts) const;
  // Whether the price is a sum over layers.
  bool is_sum() const { return rule_.is_sum(); }
  const std::vector<Part>& parts() const { return parts_; }
  // Returns the most units that take no more than so many bytes; less than 0 where there are none.
  int64_t units_within(double bytes) const;

 private:
  bool is_run(const serving::KvLayers& layers) const;
  void add_parts(const std::vector<KvType>& types, KvType widest, std::optional<int64_t> window);

  EngineRules rules_;
  serving::KvRule rule_;
  std::vector<serving::KvKind> settings_;
  std::vector<int64_t> kind_;  // (settings), place in fixed_
  serving::KvLayers fixed_;    // kinds that there may be, with the numbers of layers that no plan changes
  std::vector<bool> runs_;     // by set of types, a bit each: whether the engine keeps these side by side
  std::vector<Part> parts_;
};

}  // namespace winnow::plan
