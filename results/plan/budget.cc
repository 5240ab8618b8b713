#include "results/plan/budget.h"

#include <cstdlib>

#include "base/error.h"
#include "base/strings.h"

namespace winnow::plan {

int64_t check_range(const std::string& flag, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return value;
  fail(ExitCode::kUsage, flag + " is " + std::to_string(value) + ", expected 1 to " + std::to_string(most));
}

Budget parse_budget(const std::string& text) {
  const std::string flag = "--budget";
  Budget budget{.text = text, .share = {}, .max_seq_len = {}};
  const std::size_t at = text.find('@');
  const std::string amount = text.substr(0, at);
  if (at != std::string::npos) {
    const auto length = parse_number(text.substr(at + 1));
    if (!length) {
      fail(ExitCode::kUsage,
           flag + ": \"" + text + "\" has no number of tokens behind @; expected for example " + amount + "@131072");
    }
    budget.max_seq_len = check_range(flag + " " + text + ": the length", *length, kMostTokens);
  }
  if (!amount.ends_with('%')) {
    budget.bytes = parse_bytes(amount, flag);
    return budget;
  }
  char* end = nullptr;
  const std::string number = amount.substr(0, amount.size() - 1);
  const double percent = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0' || !(percent > 0.0) || percent > 100.0) {
    fail(ExitCode::kUsage, flag + ": \"" + text +
                               "\" is no share of full attention's memory; expected more than 0% and "
                               "at most 100%");
  }
  budget.share = percent / 100.0;
  return budget;
}

}  // namespace winnow::plan
