// Files hold UTF-8 only; command lines and file names may hold any bytes.
#pragma once

#include <string>
#include <string_view>

namespace winnow {

bool is_utf8(std::string_view text);

// The text with every byte that is no part of valid UTF-8 replaced by U+FFFD.
std::string to_utf8(std::string_view text);

}  // namespace winnow
