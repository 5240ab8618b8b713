#!/usr/bin/env bash
# try_deb.sh ROOT [DEB]: installs the package in a clean Debian 12 in the folder ROOT and tries it there as a user would:
# without a compiler, not as root, first without and then with the packages that it recommends, and removes it again.
#
# Needs root and debootstrap. ROOT is made where it is not there (300 MB, from MIRROR), and kept: remove it by hand. DEB is
# the one of build-package. Exit code 0: all that is checked holds; 1: it does not.
set -euo pipefail

readonly kUsage=64 kNoInput=66 kUnavailable=69
readonly mirror=${MIRROR:-http://deb.debian.org/debian}

say() { echo "try_deb: $*"; }
refuse() { say "${*:2}" >&2; exit "$1"; }

if [ $# -lt 1 ] || [ $# -gt 2 ]; then refuse $kUsage "usage: try_deb.sh ROOT [DEB]"; fi
if [ "$(id -u)" -ne 0 ]; then refuse $kUnavailable "needs root, for chroot"; fi
command -v debootstrap >/dev/null || refuse $kUnavailable "needs debootstrap: apt-get install debootstrap"
packages=("${2:-}")
if [ -z "${2:-}" ]; then packages=("$(dirname "$0")"/../build-package/winnow_*.deb); fi
readonly deb=${packages[0]} root=$(realpath -m "$1")
if [ ! -f "$deb" ]; then refuse $kNoInput "$deb: not there; make package makes it"; fi
# A folder that holds something else is not ours to change.
if [ -e "$root" ] && [ ! -e "$root/etc/debian_version" ] && [ -n "$(ls -A "$root" 2>/dev/null)" ]; then
  refuse $kUsage "$root: is neither empty nor a Debian"
fi
if [ "$root" = / ]; then refuse $kUsage "ROOT is this machine's own /"; fi

in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
as_user() { in_root setpriv --reuid=1000 --regid=1000 --clear-groups env HOME=/home/user "$@"; }
apt_install() { in_root apt-get -qq -o DPkg::Use-Pty=0 install -y "$@" >/dev/null 2>&1; }
# Installed files and those that dpkg does not know of.
files_of_winnow() { in_root find /usr /etc /opt -path '*winnow*' -not -path '/usr/share/doc/*'; }

# expect CODE WORDS COMMAND...: that the command ends with the exit code, and prints the words on stdout or stderr.
expect() {
  local code=0 output
  output=$("${@:3}" 2>&1) || code=$?
  if [ $code -ne "$1" ] || ! grep -qF -- "$2" <<<"$output"; then
    say "FAILED: ${*:4}: exit code $code, expected $1 and \"$2\":" >&2
    sed 's/^/  /' <<<"$output" >&2
    exit 1
  fi
  say "ok: ${*:4} (exit code $code, \"$2\")"
}

if [ ! -e "$root/etc/debian_version" ]; then debootstrap --variant=minbase bookworm "$root" "$mirror" >/dev/null; fi
# MPI looks at both.
mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
mount -t sysfs -o ro sysfs "$root/sys"
trap 'umount "$root/proc" "$root/sys"' EXIT
in_root id user >/dev/null 2>&1 || in_root useradd --create-home --uid 1000 user
in_root apt-get -qq update
in_root apt-get -qq purge -y winnow >/dev/null 2>&1 || true
in_root rm -rf /home/user/demo-run
cp "$deb" "$root/tmp/winnow.deb"

say "installing $(basename "$deb") without recommended packages"
apt_install --no-install-recommends /tmp/winnow.deb
for compiler in cc gcc g++ clang; do
  if in_root sh -c "command -v $compiler" >/dev/null; then refuse 1 "FAILED: there is a compiler: $compiler"; fi
done
expect 0 "Signature: " as_user winnow selftest
expect 0 "Keep full attention in layers 1, 4, 5" as_user sh -c 'cd && winnow demo'
expect 0 "Keep full attention in layers 1, 4, 5" as_user sh -c 'cd && winnow demo'  # a finished run is shown again
expect 0 "demo-run" as_user sh -c 'cd && winnow inspect demo-run'
expect 64 "expected one directory" as_user winnow demo --fast
expect 69 "WINNOW_PYTHON" as_user winnow prepare --model x
expect 69 "WINNOW_PYTHON" as_user winnow import x.gguf --out y
expect 64 "did you mean calibrate" as_user winnow calibrat

say "installing it with them, and man-db"
apt_install --reinstall /tmp/winnow.deb man-db python3 python3-venv
# Some images of Debian leave manual pages out.
expect 0 "WINNOW-CALIBRATE(1)" as_user man winnow-calibrate
expect 0 "--length-bins" as_user man winnow-prepare

in_root apt-get -qq -o DPkg::Use-Pty=0 purge -y winnow >/dev/null
if [ -n "$(files_of_winnow)" ]; then refuse 1 "FAILED: left behind: $(files_of_winnow)"; fi
say "ok: nothing is left after apt-get purge winnow"
