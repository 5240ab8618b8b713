#include "results/storage/own_hdf5.h"

#include "base/error.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"

namespace winnow::storage {

bool is_own_hdf5(const std::filesystem::path& path, const std::string& format) {
  try {
    return File::open(path).root().string_attribute(".", "format") == format;
  } catch (const Error&) {
    return false;
  }
}

Output results_output(const std::string& flag, const std::filesystem::path& path) {
  return {.flag = flag, .path = path, .what = "a result", .is_own = [](const std::filesystem::path& old) {
            return is_own_hdf5(old, kResultsFormat);
          }};
}

}  // namespace winnow::storage
