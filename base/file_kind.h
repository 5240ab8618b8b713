// What a file is that lies where something else is expected.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace winnow {

// What the first bytes of a file say that it is, and what to do about it, as the end of a sentence: "a Git LFS pointer,
// not the file itself: ...". Nothing where they say nothing. It is for files that could not be read as what they should
// be: a header of safetensors may begin with any byte.
std::optional<std::string> file_kind(std::span<const std::byte> bytes);

}  // namespace winnow
