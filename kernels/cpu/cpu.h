// The CPU as a device.
#pragma once

#include <memory>
#include <string>

#include "kernels/ops.h"

namespace winnow::cpu {

struct CpuOptions {
  int n_threads = 0;  // 0: the cores this process may run on
};
// Returns the CPU's operations. Throws Error(kUsage | kUnavailable) where the environment variable WINNOW_CPU asks for
// kernels that this build does not have, or that the processor cannot run.
std::unique_ptr<kernels::Ops> make_cpu_backend(const CpuOptions& options);
// Returns the type of processor that the CPU backend's kernels are made for, "x86-64-v4": the best that this processor
// runs, or what WINNOW_CPU names. Two types differ in the last bits. Throws as make_cpu_backend does.
std::string cpu_kernels();

}  // namespace winnow::cpu
