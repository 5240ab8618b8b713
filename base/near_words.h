// Small helpers for words on the command line.
#pragma once

#include <string>
#include <vector>

namespace winnow {

// Those of `candidates` that `word` may be a slip of (few letters differ, or one begins with the other), nearest first.
std::vector<std::string> near_words(const std::string& word, const std::vector<std::string>& candidates);

// "a", "a or b", "a, b or c".
std::string join_or(const std::vector<std::string>& words);

}  // namespace winnow
