// Tells what a file is that lies where another kind is expected.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace winnow {

// Tells by its first bytes what a file is and what to do about it, as the end of a sentence: "a Git LFS pointer, not
// the file itself: ...". None where they do not tell. Only for files that could not be read as what they should be,
// since a header of safetensors may begin with any byte.
std::optional<std::string> file_kind(std::span<const std::byte> bytes);

}  // namespace winnow
