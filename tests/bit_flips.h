// Flips single bits of a file, one after another, and asks whether its reader notices.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "base/error.h"

namespace winnow {

// Flips `n_flips` bits of the file, drawn from a fixed seed, and every bit of its last `n_last` bytes. `read` reads the
// file and returns all that a reader could show; a refusal is an Error(kBadData). Fails where it returns anything but
// what it returns of the whole file. Returns how many flips were refused.
template <typename Read>
int64_t flip_bits(const std::filesystem::path& path, int64_t n_flips, int64_t n_last, const Read& read) {
  const std::string whole = read();
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  std::mt19937_64 random(7);
  int64_t n_refused = 0;
  const auto put = [&](int64_t place, char byte) {
    file.seekp(place);
    file.put(byte);
    file.flush();
  };
  const auto flip = [&](int64_t place, int bit) {
    file.seekg(place);
    const auto byte = static_cast<char>(file.get());
    put(place, static_cast<char>(byte ^ (1 << bit)));
    try {
      EXPECT_EQ(read(), whole) << "byte " << place << " bit " << bit << " of " << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadData) << error.what();
      ++n_refused;
    }
    put(place, byte);
  };
  for (int64_t i = 0; i < n_flips; ++i) {
    flip(static_cast<int64_t>(random() % static_cast<uint64_t>(size)), static_cast<int>(random() % 8));
  }
  for (int64_t place = size - n_last; place < size; ++place) {
    for (int bit = 0; bit < 8; ++bit) flip(place, bit);
  }
  EXPECT_EQ(read(), whole) << "the file is as it was";
  return n_refused;
}

}  // namespace winnow
