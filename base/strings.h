// Words and lists of them, as a person, a flag or a shell reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace winnow {

// Return "a, b, c"; "" for no words.
std::string joined(const std::vector<std::string>& words, const char* separator = ", ");
std::string joined(const std::vector<int64_t>& numbers, const char* separator = ", ");

// Returns "a", "a or b" or "a, b or c".
std::string join_or(const std::vector<std::string>& words);
// Returns those of `candidates` that `word` may be a slip of (few letters differ, or one begins with the other),
// nearest first.
std::vector<std::string> near_words(const std::string& word, const std::vector<std::string>& candidates);

// Returns two hexadecimal digits a byte, in lower case.
std::string to_hex(std::string_view bytes);
// Reads the whole text as a number; none where it is not one.
std::optional<int64_t> parse_number(std::string_view text);

// Throws Error(kUsage), naming the flag, its value and the allowed ones, where the value is not among them.
void require_one_of(const std::string& flag, const std::string& value, const std::vector<std::string>& allowed);

// Returns true if a word has only letters, digits and a few marks that neither a shell nor sbatch takes for anything
// else.
bool is_plain_word(const std::string& word);
// Returns the word in single quotes, so that a shell takes it as it is.
std::string shell_quoted(const std::string& word);
// Returns the same, in quotes only where it needs them: for lines that people read.
std::string shell_word(const std::string& word);

// Returns "12 s", "3 min 20 s" or "2 h 05 min".
std::string format_duration(double seconds);
// Returns "512 B", "1.50 MiB" or "3.20 GiB".
std::string format_bytes(int64_t bytes);
// Parses "8G", "512M" or "1024" and returns bytes; the letters are powers of 1024. Throws Error(kUsage), naming `flag`.
int64_t parse_bytes(const std::string& text, const std::string& flag);

}  // namespace winnow
