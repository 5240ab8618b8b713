// Reads results.h5 of a run directory that is finished already.
#pragma once

#include <spdlog/spdlog.h>

#include <filesystem>
#include <optional>

#include "base/error.h"

namespace winnow::verbs {

// Returns what `read` makes of the file, where the file is there and `is_wanted`: `winnow stats --in-place` may have
// changed it since. A damaged file counts as none, with a warning: it is made anew from the shards. Throws Error other
// than kBadData.
template <typename Read, typename IsWanted>
auto finished_results(const std::filesystem::path& path, const Read& read, const IsWanted& is_wanted)
    -> std::optional<decltype(read(path))> {
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    auto known = read(path);
    if (is_wanted(known)) return known;
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadData) throw;
    spdlog::warn("{}: written anew", error.what());
  }
  return std::nullopt;
}

}  // namespace winnow::verbs
