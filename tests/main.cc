// GoogleTest's main, for programs that read HDF5 files: they start themselves to do so.
#include <gtest/gtest.h>

#include "results/storage/hdf5_server.h"

int main(int argc, char** argv) {
  if (const auto code = winnow::storage::serve_if_asked(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
