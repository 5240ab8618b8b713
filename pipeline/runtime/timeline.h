// Where the time of a command goes: from the start of its process on, each instant lies in exactly one part, so that
// the parts add up to the whole.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"

namespace winnow::runtime {

// What the main thread does. Work of other threads beside it is in none: it takes no time but what is waited for.
enum class Part : std::size_t {
  kProcess,
  kMpi,
  kInputs,
  kDevice,
  kLibraries,
  kHash,
  kRunDirectory,
  kExchange,
  kWeights,
  kRates,
  kPlanning,
  kFirstUnit,
  kMeasuring,
  kAsking,
  kWaiting,
  kLastUnits,
  kSums,
  kProfile,
  kStatistics,
  kResults,
  kTeardown,
  kOther,
};
inline constexpr std::size_t kParts = static_cast<std::size_t>(Part::kOther) + 1;
struct PartName {
  const char* name;  // in files
  const char* what;
};
// Returns a part's names, in the order of Part.
const std::array<PartName, kParts>& part_names();

// Returns the seconds since this process was started, by the kernel's clock of 10 ms.
double seconds_since_process_start();

// Of one thread, the main one.
class Timeline {
 public:
  // Begins in kProcess, `elapsed` seconds ago, and is in kOther from now on. now: seconds from any origin.
  using Now = std::function<double()>;
  static double clock_seconds() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }
  explicit Timeline(double elapsed = 0.0, Now now = clock_seconds);
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  // Is in a part until it goes, then in the former one again: parts may be nested, and the inner one counts.
  class Scope {
   public:
    Scope(Timeline& timeline, Part part) : timeline_(timeline), former_(timeline.part_) { timeline.enter(part); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { timeline_.enter(former_); }

   private:
    Timeline& timeline_;
    Part former_;
  };
  // Ends the part at hand and begins another, which lasts until the next call.
  void enter(Part part);
  Part part() const { return part_; }
  // Returns true if any time was spent in a part that has ended.
  bool has(Part part) const { return seconds_[static_cast<std::size_t>(part)] > 0.0; }
  // Returns the seconds of each part so far, (kParts).
  std::vector<double> seconds();

  // For messages between ranks: the seconds, and back. A text that is none gives zeros.
  static std::string to_text(std::span<const double> seconds);
  static std::vector<double> from_text(const std::string& text);

 private:
  Now now_;
  double last_;
  Part part_ = Part::kOther;
  std::array<double, kParts> seconds_{};
};

// Returns a line for each part that took any time: rank 0's seconds, and the most of any rank. ranks: seconds by part,
// of each rank, rank 0 first.
std::string timeline_table(const std::vector<std::vector<double>>& ranks);

}  // namespace winnow::runtime
