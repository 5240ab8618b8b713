// Files hold UTF-8 only; command lines and file names may hold any bytes, and a terminal obeys some of them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace winnow {

bool is_utf8(std::string_view text);
// Bytes of the character that a text which is not empty begins with; 0 where it begins with none: RFC 3629, so without
// overlong forms, surrogates and what is above U+10FFFF.
std::size_t utf8_character_bytes(std::string_view text);

// The text with every byte that is no part of valid UTF-8 replaced by U+FFFD.
std::string to_utf8(std::string_view text);

// The bytes of a path in ASCII, as RFC 3986 percent-encodes them, "/" left as it is; and back. A path that is read back
// from JSON or HDF5 needs it where it is not UTF-8. decoded_path() leaves what is no such code as it is.
std::string encoded_path(std::string_view path);
std::string decoded_path(std::string_view text);

// Whether a terminal obeys the bytes that the text begins with, or shows the rest of a line in another order: U+0080 to
// U+009F, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069. Returns how many bytes that is, 0 where it is none of
// them.
std::size_t terminal_control_bytes(std::string_view text);
// Text for a terminal: what it would obey, ends of lines excepted, becomes "?". Names out of files may hold anything.
std::string printable(std::string_view text);
// The same on one line: a name within it cannot pass for a line of its own.
std::string one_line(std::string_view text);

}  // namespace winnow
