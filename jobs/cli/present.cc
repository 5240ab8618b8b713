#include "jobs/cli/present.h"

#include <cstdlib>

#include "results/calibration/json.h"
#include "results/calibration/table.h"

namespace winnow::cli {
namespace {

// By the environment and not by asking whether stdout is a terminal: under mpirun it never is.
bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string locale = value;
    return locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
  }
  return false;
}

}  // namespace

std::string present_results(const calibration::Results& results, bool as_json) {
  return as_json ? calibration::to_json(results) : calibration::to_table(results, {.utf8_bars = locale_is_utf8()});
}

}  // namespace winnow::cli
