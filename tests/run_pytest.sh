#!/usr/bin/env bash
# run_pytest.sh BUILD_DIR FILE...: pytest as ctest runs it. Without .venv (no network when it was to be made) the test
# counts as skipped, except in CI. Tests of label torch have WINNOW_VENV=.venv-torch, which only make test-torch makes:
# without it they are skipped, in CI too.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kSkipped=77  # SKIP_RETURN_CODE in tests/CMakeLists.txt
readonly kNoTests=5   # of pytest

export WINNOW_BUILD=$1
shift
# The tests start programs by the thousand: none of them is to compile its modules anew, or to have threads of OpenBLAS,
# which wait by spinning, where winnow multiplies on its own.
unset PYTHONDONTWRITEBYTECODE
export OPENBLAS_NUM_THREADS=1
if [ "${WINNOW_VENV:-.venv}" = .venv-torch ]; then
  if ! .venv-torch/bin/python -c 'import pytest, torch' 2>/dev/null; then
    echo "skipped: there is no .venv-torch with torch; make test-torch makes it and needs a network once"
    exit $kSkipped
  fi
  exec .venv-torch/bin/python -m pytest "$@"
fi
if ! .venv/bin/python -c 'import pytest' 2>/dev/null; then
  echo "skipped: there is no .venv with pytest; jobs/setup.sh python makes it and needs a network once"
  if [ -n "${CI:-}" ]; then exit 1; fi
  exit $kSkipped
fi
status=0
.venv/bin/python -m pytest "$@" || status=$?
# A whole file that skips itself, with its reason, leaves pytest without tests.
if [ $status -eq $kNoTests ] && [ -z "${CI:-}" ]; then exit $kSkipped; fi
exit $status
