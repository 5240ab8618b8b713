#include "pipeline/runtime/stop.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace winnow::runtime {
namespace {

// The only thing a handler may touch. The last signal wins, except that nothing takes back a stop.
volatile std::sig_atomic_t received_signal = 0;

extern "C" void remember_signal(int number) { received_signal = number; }

void install(int number, void (*handler)(int), struct sigaction* former) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(number, &action, former) != 0) {
    fail(ExitCode::kInternal, "sigaction failed for signal " + std::to_string(number));
  }
}

}  // namespace

void remember_stop_signals() {
  for (const int number : kStopSignals) install(number, remember_signal, nullptr);
}

int take_remembered_signal() {
  const int number = received_signal;
  received_signal = 0;
  return number;
}

StopSignals::StopSignals(bool under_mpirun) : under_mpirun_(under_mpirun) {
  for (std::size_t i = 0; i < std::size(kStopSignals); ++i) install(kStopSignals[i], remember_signal, &former_[i]);
}

StopSignals::~StopSignals() {
  for (std::size_t i = 0; i < std::size(kStopSignals); ++i) sigaction(kStopSignals[i], &former_[i], nullptr);
  received_signal = 0;
}

StopKind StopSignals::kind() const {
  switch (received_signal) {
    case SIGUSR1:
      return StopKind::kGrace;
    case SIGTERM:
      return under_mpirun_ ? StopKind::kNow : StopKind::kGrace;
    case SIGINT:
      return StopKind::kNow;
    default:
      return StopKind::kNone;
  }
}

std::string StopSignals::name() const {
  switch (received_signal) {
    case SIGUSR1:
      return "SIGUSR1";
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    default:
      return "";
  }
}

bool must_drop_unit(StopKind kind, double remaining_grace, double elapsed, double predicted) {
  if (kind == StopKind::kNone) return false;
  if (kind == StopKind::kNow || remaining_grace <= 0.0) return true;
  return std::max(0.0, predicted - elapsed) > remaining_grace;
}

}  // namespace winnow::runtime
