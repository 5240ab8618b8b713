# The two commands of README.md are `make demo` and `make test`; each does all set-up by itself.
#
#   make build                    the program, build/winnow
#   make demo                     calibrates the demo model and shows the result
#   make demo-evaluate            selects its layers by several rules and evaluates them on held-out data
#   make test                     builds, then runs every test
#   make test-torch               tests in Transformers itself: makes .venv-torch with PyTorch, some GB
#   make install PREFIX=DIR       the program into DIR/bin, the rest into DIR/share
#   make package                  build-package/winnow*.deb and .tar.gz, to install where there is no compiler
#   make format                   clang-format over all C++ files
#   make clean                    removes builds and the demo run; keeps .venv and .venv-torch, which need a network
#
# CMAKE_FLAGS="-DWINNOW_CUDA=OFF" and the like go to the first configuration; `make clean` forgets them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: build configure demo demo-evaluate test test-torch install package format clean help

PREFIX ?= /usr/local
CMAKE_FLAGS ?=
CLANG_FORMAT ?= clang-format
CLANG_FORMAT_VERSION := 14

# A compiler process takes up to 1.5 GB; more of them than fit would swap.
JOBS ?= $(shell awk -v cores="$$(nproc)" '/MemAvailable/ {n = int($$2 / 1572864); if (n > cores) n = cores; \
  if (n < 1) n = 1; print n}' /proc/meminfo)

build: configure
	@cmake --build build --parallel $(JOBS)

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

test: build
	@jobs/setup.sh browser
	@jobs/setup.sh python
	@jobs/setup.sh slurm
	@ctest --test-dir build --output-on-failure --parallel $$(nproc)

test-torch: build
	@jobs/setup.sh torch
	@ctest --test-dir build --output-on-failure -L torch

install: build
	@cmake --build build --target manual
	@cmake --install build --prefix "$(PREFIX)"

package:
	@jobs/setup.sh system
	@packaging/make_packages.sh $(CMAKE_FLAGS)

format:
	@$(CLANG_FORMAT) --version 2>/dev/null | grep -q "version $(CLANG_FORMAT_VERSION)\." || { \
	  echo "make format needs clang-format $(CLANG_FORMAT_VERSION), others format differently: apt-get install" \
	    "clang-format-$(CLANG_FORMAT_VERSION), then make format CLANG_FORMAT=clang-format-$(CLANG_FORMAT_VERSION)" >&2; \
	  exit 69; }
	@git ls-files -z '*.h' '*.cc' '*.cuh' '*.cu' | xargs -0 $(CLANG_FORMAT) -i

clean:
	@rm -rf build build-debug build-sanitize build-fuzz build-package demo-run demo-evaluate

help:
	@sed -n '/^#   make/s/^#   //p' Makefile
