#include "kernels/cpu/cpu.h"

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/kernel_variants.h"

namespace winnow::cpu {

std::unique_ptr<kernels::Ops> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

std::string cpu_kernels() { return chosen_kernels().name; }

}  // namespace winnow::cpu
