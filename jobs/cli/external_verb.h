// Runs verbs that are programs of their own, as in git: `winnow VERB ...` runs `winnow-VERB ...`.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace winnow::cli {

// Finds the executable winnow-VERB in `own_directory`, else in a directory of `search_path` (separated by colons, as
// PATH).
std::optional<std::filesystem::path> find_external_verb(const std::string& verb,
                                                        const std::filesystem::path& own_directory,
                                                        const std::string& search_path);

// Becomes winnow-VERB with those arguments (the verb not among them) and winnow's version in WINNOW_VERSION; does not
// return. Throws Error(kUsage) that names near verbs where there is no such program, Error(kUnavailable) when it cannot
// be started.
[[noreturn]] void run_external_verb(const std::string& verb, const std::vector<std::string>& arguments,
                                    const std::vector<std::string>& built_in_verbs);

}  // namespace winnow::cli
