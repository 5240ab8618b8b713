// write_example_results FILE: writes the made-up result of example_results.h, for tests/python/test_schema.py.
#include <cstdio>
#include <exception>

#include "results/store.h"
#include "tests/example_results.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_example_results FILE\n");
    return 64;
  }
  try {
    winnow::write_results(argv[1], winnow::example_results());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_example_results: %s\n", error.what());
    return 74;
  }
  return 0;
}
