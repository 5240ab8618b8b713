// Files hold UTF-8 only; command lines and file names may hold any bytes.
#pragma once

#include <string>
#include <string_view>

namespace winnow {

bool is_utf8(std::string_view text);

// The text with every byte that is no part of valid UTF-8 replaced by U+FFFD.
std::string to_utf8(std::string_view text);

// The bytes of a path in ASCII, as RFC 3986 percent-encodes them, "/" left as it is; and back. A path that is read back
// from JSON or HDF5 needs it where it is not UTF-8. decoded_path() leaves what is no such code as it is.
std::string encoded_path(std::string_view path);
std::string decoded_path(std::string_view text);

}  // namespace winnow
