#!/usr/bin/env bash
# make_packages.sh [CMAKE FLAG]...: a .tar.gz and a .deb of winnow in build-package. `make package` calls it.
#
# The build is one of its own: release, stripped, without tests, and without CUDA unless -DWINNOW_CUDA=ON is given. The
# same commit, compiler and folder give the same bytes: dates are SOURCE_DATE_EPOCH, else that of the commit.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly build=build-package
readonly kUnavailable=69
readonly kSoftware=70

say() { echo "package: $*"; }

# An archive of the sources is no work tree of git, so its own date has to do.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CMakeLists.txt)}"
export SOURCE_DATE_EPOCH

configure() {
  cmake --fresh --preset release -B $build -DWINNOW_PACKAGE=ON -DWINNOW_CUDA=OFF -DWINNOW_TESTS=OFF "$@"
  if grep -qx 'WINNOW_CUDA:[A-Z]*=OFF' $build/CMakeCache.txt; then
    local nvcc
    nvcc=$(command -v nvcc) || nvcc=
    say "the CPU program, which runs without CUDA${nvcc:+; nvcc is here, but not used}." \
      "With the CUDA backend: make package CMAKE_FLAGS=-DWINNOW_CUDA=ON"
  else
    say "with the CUDA backend; the target needs NVIDIA's libraries, in /usr/local/cuda/lib64 or LD_LIBRARY_PATH"
  fi
}

make_manual() {
  # The Python programs print their help with their packages only.
  if ! $build/winnow-prepare --help >/dev/null 2>&1; then jobs/setup.sh python; fi
  packaging/manual.py --all $build/winnow $build/manual || {
    say "no packages without all manual pages; .venv or WINNOW_PYTHON must have the packages of pyproject.toml" >&2
    exit $kUnavailable
  }
}

# CPack takes the files of an archive in the folder's order and gives them their builder's user.
sort_archive() {
  local archive=$1 name
  name=$(basename "$archive" .tar.gz)
  tar --create --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=root:0 --group=root:0 \
    --directory "$build/_CPack_Packages/Linux/TGZ" "$name" | gzip -9 --no-name >"$archive.part"
  mv "$archive.part" "$archive"
}

# A path of this machine would send the program into folders that others may own on the target.
check_runpath() {
  local program runpath
  program=$(mktemp)
  tar -xzOf "$1" --wildcards '*/bin/winnow' >"$program"
  runpath=$(readelf -d "$program" | sed -n 's/.*(R\(UN\)\?PATH).*\[\(.*\)\]/\2/p')
  rm "$program"
  if [ -n "$runpath" ] && [ "$runpath" != /usr/local/cuda/lib64 ]; then
    say "the program looks for libraries in $runpath, folders of this machine; give no CUDNN_ROOT or NCCL_ROOT" >&2
    exit $kSoftware
  fi
}

configure "$@"
cmake --build $build --parallel "${JOBS:-$(nproc)}"
make_manual
rm -f $build/winnow*.deb $build/winnow*.tar.gz
(cd $build && cpack)
sort_archive $build/winnow*.tar.gz
check_runpath $build/winnow*.tar.gz
say "made, of the date $(date -u -d "@$SOURCE_DATE_EPOCH" +%F):"
ls -l $build/winnow*.deb $build/winnow*.tar.gz 2>/dev/null | awk '{print "  " $5 " bytes  " $NF}'
