// The one error type: what went wrong, where, what to do, and the exit code that a script sees.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace winnow {

// Exit codes of the program, those of BSD's sysexits.h. Part of the command line's contract.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 64,        // flags that make no sense, alone or together
  kBadData = 65,      // checkpoint, calibration file, or a non-finite NLL
  kNoInput = 66,      // an input is missing or unreadable
  kUnavailable = 69,  // no usable GPU
  kInternal = 70,     // a bug, or a dead peer
  kOutOfMemory = 71,
  kCannotCreate = 73,    // output cannot be created
  kIoError = 74,         // disk full, read or write error
  kInterrupted = 75,     // stopped and resumable, or the run directory is locked by a live job
  kConfigMismatch = 78,  // the run directory was made with other settings
};

// Whether a terminal obeys these bytes, or shows the rest of a line in another order: U+0080 to U+009F, U+200E, U+200F,
// U+2028 to U+202E, U+2066 to U+2069 in UTF-8. Returns how many bytes it has, 0 where it is none of them.
inline std::size_t terminal_control_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  if (byte(0) == 0xC2 && byte(1) >= 0x80 && byte(1) < 0xA0) return 2;
  const bool is_mark = byte(0) == 0xE2 && ((byte(1) == 0x80 && (byte(2) == 0x8E || byte(2) == 0x8F)) ||
                                           (byte(1) == 0x80 && byte(2) >= 0xA8 && byte(2) <= 0xAE) ||
                                           (byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9));
  return is_mark ? 3 : 0;
}

// Bytes of the UTF-8 character that the text begins with, by its form alone; 0: it begins with none.
inline std::size_t character_bytes_at(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t n = lead < 0x80 ? 1 : lead < 0xC0 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 0;
  if (n > text.size()) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) return 0;
  }
  return n;
}

// Text for a terminal: what it would obey, ends of lines excepted, becomes "?". Names out of files may hold anything.
// Bytes from 0x80 to 0x9F that are no part of a character are controls of an 8-bit terminal.
inline std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text[0]);
    const std::size_t control = terminal_control_bytes(text);
    const std::size_t n = control > 0 ? control : std::max<std::size_t>(1, character_bytes_at(text));
    const bool is_stray = n == 1 && c >= 0x80 && c < 0xA0;
    if (control > 0 || is_stray || (c < 0x20 && c != '\n') || c == 0x7f) {
      result += '?';
    } else {
      result += text.substr(0, n);
    }
    text.remove_prefix(n);
  }
  return result;
}

// The same on one line: a name within it cannot pass for a line of its own.
inline std::string one_line(std::string_view text) {
  std::string result = printable(text);
  for (char& c : result) {
    if (c == '\n') c = '?';
  }
  return result;
}

// Thrown for everything that a user can cause or cure. The message is one line: what, where, what to do.
// It is printed once, by the catch in jobs/main.cc, which adds rank and host.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(one_line(message)), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

[[noreturn]] inline void fail(ExitCode code, const std::string& message) { throw Error(code, message); }

}  // namespace winnow
