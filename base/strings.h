// Words and lists of them, as a person, a flag or a shell reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace winnow {

// "a, b, c"; "" for none.
std::string joined(const std::vector<std::string>& words, const char* separator = ", ");
std::string joined(const std::vector<int64_t>& numbers, const char* separator = ", ");

// "a", "a or b", "a, b or c".
std::string join_or(const std::vector<std::string>& words);
// Those of `candidates` that `word` may be a slip of (few letters differ, or one begins with the other), nearest first.
std::vector<std::string> near_words(const std::string& word, const std::vector<std::string>& candidates);

// Two hexadecimal digits a byte, in lower case.
std::string to_hex(std::string_view bytes);
// The whole text as a number, or none.
std::optional<int64_t> parse_number(std::string_view text);

// Throws Error(kUsage), naming the flag, its value and what it may be.
void require_one_of(const std::string& flag, const std::string& value, const std::vector<std::string>& allowed);

// Whether a word has letters, digits and a few marks only, which neither a shell nor sbatch takes for anything else.
bool is_plain_word(const std::string& word);
// A word that a shell takes as it is: in single quotes, whatever it holds.
std::string shell_quoted(const std::string& word);
// The same, in quotes only where it needs them: for lines that people read.
std::string shell_word(const std::string& word);

// "12 s", "3 min 20 s", "2 h 05 min".
std::string format_duration(double seconds);
// "512 B", "1.50 MiB", "3.20 GiB".
std::string format_bytes(int64_t bytes);

}  // namespace winnow
