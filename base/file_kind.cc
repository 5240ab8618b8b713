#include "base/file_kind.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace winnow {

namespace {

using namespace std::string_view_literals;  // marks have zeros within

struct Kind {
  std::size_t at;  // of the mark in the file
  std::string_view mark;
  std::string_view words;
};

constexpr std::string_view kPickle =
    "a file of PyTorch (pickle), which winnow never reads: save the model as safetensors";
constexpr std::string_view kCompressed = "a compressed file: unpack it first";
constexpr std::string_view kPage =
    "a web page or XML, such as a server's error message: download the file again, with access to it";

constexpr std::array kKinds = {
    Kind{0, "version https://git-lfs"sv,
         "a Git LFS pointer, not the file itself: run git lfs pull where it was cloned, or download it again"},
    Kind{0, "GGUF"sv, "a GGUF file of llama.cpp: give the folder of the original checkpoint"},
    Kind{0, "PK\3\4"sv,
         "a zip file, as PyTorch writes it (pickle), which winnow never reads: save the model as "
         "safetensors"},
    Kind{0, "\x80\2"sv, kPickle},
    Kind{0, "\x80\3"sv, kPickle},
    Kind{0, "\x80\4"sv, kPickle},
    Kind{0, "\x80\5"sv, kPickle},
    Kind{0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file: save the model as safetensors"},
    Kind{0, "\x93NUMPY"sv, "an array of NumPy: save the model as safetensors"},
    Kind{0, "\x1f\x8b"sv, kCompressed},
    Kind{0, "\x28\xb5\x2f\xfd"sv, kCompressed},
    Kind{0, "\xfd\x37zXZ\0"sv, kCompressed},
    Kind{0, "BZh"sv, kCompressed},
    Kind{257, "ustar"sv, "a tar file: unpack it first"},
    Kind{0, "\x7f\x45LF"sv, "a program or library"},
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace

std::optional<std::string> file_kind(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 512));
  for (const Kind& kind : kKinds) {
    if (text.size() >= kind.at && text.substr(kind.at).starts_with(kind.mark)) return std::string(kind.words);
  }
  std::string_view page = text;
  if (page.starts_with("\xef\xbb\xbf")) page.remove_prefix(3);
  page.remove_prefix(static_cast<std::size_t>(std::ranges::find_if_not(page, is_space) - page.begin()));
  if (page.starts_with('<')) return std::string(kPage);
  // Eight of them are the length of an empty header.
  if (text.size() > 8 && std::ranges::all_of(text, [](char c) { return c == '\0'; })) {
    return "zeros where its content should be, as an interrupted download leaves them: download it again";
  }
  return std::nullopt;
}

}  // namespace winnow
