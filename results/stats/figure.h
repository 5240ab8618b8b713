// Numbers that may be undefined, always with a reason.
#pragma once

#include <limits>
#include <string>
#include <utility>

namespace winnow::stats {

// A number, or NaN and the reason why it is not defined.
struct Figure {
  double value = std::numeric_limits<double>::quiet_NaN();
  std::string status = "not computed";

  static Figure of(double value) { return {value, ""}; }
  static Figure undefined(std::string why) { return {std::numeric_limits<double>::quiet_NaN(), std::move(why)}; }
  bool defined() const { return status.empty(); }
};

// A figure with its 95 % interval; the interval may be undefined where the figure is not.
struct Estimate {
  Figure value;
  Figure ci_low;
  Figure ci_high;
};

}  // namespace winnow::stats
