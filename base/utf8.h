// Makes text safe to store and to show. Files hold UTF-8 only; command lines and file names may hold any bytes, and a
// terminal obeys some of them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace winnow {

bool is_utf8(std::string_view text);
// Returns the length in bytes of the character that a text, which is not empty, begins with; 0 where that is not one by
// RFC 3629: overlong forms, surrogates and what is above U+10FFFF are not.
std::size_t utf8_character_bytes(std::string_view text);

// Replaces every byte that is not part of valid UTF-8 by U+FFFD.
std::string to_utf8(std::string_view text);

// Encode the bytes of a path in ASCII as RFC 3986 has it ("%20"), with "/" left as it is, and decode them. A path that
// is read back from JSON or HDF5 needs it where it is not UTF-8. decoded_path() leaves everything else as it is.
std::string encoded_path(std::string_view path);
std::string decoded_path(std::string_view text);

// Returns the length in bytes of a character, at the beginning of the text, that a terminal obeys or that changes the
// order of a line: U+0080 to U+009F, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069; 0 for any other.
std::size_t terminal_control_bytes(std::string_view text);
// Replaces what a terminal would obey, ends of lines excepted, by "?": names out of files may hold anything.
std::string printable(std::string_view text);
// Does the same to ends of lines, so that a name cannot pass for a line of its own.
std::string one_line(std::string_view text);

}  // namespace winnow
