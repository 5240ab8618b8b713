// Random numbers that are the same on every machine: no part of the standard library's distributions is used, and a
// stream is a pure function of (seed, stream, index), so that neither threads nor ranks nor the order of calls matter.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <utility>

namespace winnow {

// Purposes of streams, which are part of their keys. Changing a number changes every interval.
inline constexpr uint64_t kResampleStream = 1;         // bootstrap of the calibration examples
inline constexpr uint64_t kControlResampleStream = 2;  // bootstrap of calibration and control examples together
inline constexpr uint64_t kPermutationStream = 3;      // permutations of layers
inline constexpr uint64_t kSplitStream = 4;            // halves of the calibration examples
inline constexpr uint64_t kSelectionStream = 16;       // layers of a random pattern
inline constexpr uint64_t kSearchStream = 32;          // examples of a search's intervals, patterns to verify
inline constexpr uint64_t kModelResampleStream = 48;   // bootstrap of the models of a sweep
inline constexpr uint64_t kSubsetStream = 49;  // orders of the calibration examples, of which the first n are taken

// Generator of Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t state) : state_(state) {}

  uint64_t next() { return mix(state_ += kGamma); }

 protected:
  static constexpr uint64_t kGamma = 0x9E3779B97F4A7C15U;

  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// The same generator, started at a hash of its key.
class RandomStream : public SplitMix64 {
 public:
  RandomStream(uint64_t seed, uint64_t stream, uint64_t index)
      : SplitMix64(mix(mix(mix(seed + kGamma) + stream + kGamma) + index + kGamma)) {}

  // Returns a uniform number in [0, n), n >= 1, without bias: it draws as many high bits as n - 1 has until they are
  // below n.
  int64_t below(int64_t n) {
    const auto n_bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(n - 1)));
    if (n_bits == 0) return 0;
    for (;;) {
      const auto value = static_cast<int64_t>(next() >> (64 - n_bits));
      if (value < n) return value;
    }
  }

  // Shuffles by Fisher and Yates, from the end.
  template <typename T>
  void shuffle(std::span<T> values) {
    for (int64_t i = static_cast<int64_t>(values.size()) - 1; i > 0; --i) {
      std::swap(values[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(below(i + 1))]);
    }
  }
};

}  // namespace winnow
