#include "kernels/tensor.h"

#include "base/error.h"

namespace winnow::kernels {

void fail_type(DType found, DType wanted) {
  fail(ExitCode::kInternal, std::string("memory of ") + dtype_name(found) + " taken for " + dtype_name(wanted));
}

void fail_range(int64_t first, int64_t n, int64_t n_rows) {
  fail(ExitCode::kInternal, "rows [" + std::to_string(first) + ", " + std::to_string(first + n) + ") of " +
                                std::to_string(n_rows) + " rows");
}

}  // namespace winnow::kernels
