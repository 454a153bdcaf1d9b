#!/usr/bin/env bash
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds what a test NAS boots from, each part once, kept in the cache under a hash of what went into it:
#   kernel/KEY     Debian's cloud kernel and its modules, with the OpenZFS modules compiled for it
#   userland/KEY   everything else, as a tar archive
#   image/KEY      root.qcow2 (backing file of every VM), vmlinuz, initrd.img, image.json
#   tools/KEY      QEMU from the same suite, unpacked, where the machine's own is missing or older than 9
#
# Prints JSON on stdout, the progress on stderr.
#
#   build_image.sh build    make what is missing
#   build_image.sh check    make nothing, say whether anything would be made
#   build_image.sh needs    the Debian packages that this machine lacks for a build, one a line
#
# Environment: TEST_NAS_CACHE, TEST_NAS_SUITE, TEST_NAS_MIRROR, TEST_NAS_PACKAGES (extra packages, blank-separated),
# TEST_NAS_ROOT_SIZE (default 8G), TEST_NAS_PYTHON (default python3).
# Runs as root, or as a user with subordinate ids (/etc/subuid) and user namespaces.

set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${TEST_NAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nasops-encryption/test_nas}"
minimum_qemu=9
export TEST_NAS_SUITE="${TEST_NAS_SUITE:-trixie}"
export TEST_NAS_ROOT_SIZE="${TEST_NAS_ROOT_SIZE:-8G}"
export TEST_NAS_PYTHON="${TEST_NAS_PYTHON:-python3}"
export TEST_NAS_ALL_PACKAGES TEST_NAS_QEMU_IMG

packages=(
    auditd busybox-static cryptsetup-bin dmsetup dosfstools e2fsprogs gdisk iproute2 kmod less lvm2 mdadm mount
    openssh-server openssl parted procps python3 rsync sedutil strace systemd-sysv udev util-linux zfsutils-linux
)
read -r -a extra_packages <<<"${TEST_NAS_PACKAGES:-}"
TEST_NAS_ALL_PACKAGES="${packages[*]}${extra_packages[*]:+ ${extra_packages[*]}}"

say() { printf '%s test_nas: %s\n' "$(date +%T)" "$*" >&2; }

die() {
    printf 'test_nas: %s\n' "$*" >&2
    exit 1
}

# --- keys -----------------------------------------------------------------------------------------------------------

hash_of() { printf '%s\n' "$@" | sha256sum | cut -c1-16; }

# hash_of_files PATH... : of the names and contents of these files and trees below the role's files. A changed comment is
# no reason to compile for minutes.
hash_of_files() {
    (
        cd "$here"
        find "$@" -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 grep -HvE '^[[:space:]]*(#|$)'
    ) | sha256sum | cut -c1-16
}

tools_key="$(hash_of "$TEST_NAS_SUITE" "$(hash_of_files build/common.sh build/tools.sh)")"
kernel_key="$(hash_of "$TEST_NAS_SUITE" "$(hash_of_files build/common.sh build/kernel.sh)")"
userland_key="$(hash_of "$TEST_NAS_SUITE" "$TEST_NAS_ALL_PACKAGES" "$(hash_of_files build/common.sh build/userland.sh)")"
image_key="$(hash_of "$kernel_key" "$userland_key" "$TEST_NAS_ROOT_SIZE" \
    "$(hash_of_files build/image.sh build/configure.sh build/init guest nasvm/cpio.py nasvm/initrd.py)")"

# --- QEMU -----------------------------------------------------------------------------------------------------------

major_version() { "$1" --version 2>/dev/null | sed -n 's/^.* version \([0-9]*\)\..*/\1/p' | head -n 1; }

# The machine's own QEMU will do from version 9 on; 7.2 hangs a Debian 13 guest without KVM.
host_qemu_will_do() {
    local program version
    for program in qemu-system-x86_64 qemu-img; do
        command -v "$program" >/dev/null || return 1
        version="$(major_version "$program")"
        [ "${version:-0}" -ge "$minimum_qemu" ] || return 1
    done
}

if host_qemu_will_do; then
    own_qemu=false
    qemu="$(command -v qemu-system-x86_64)"
    TEST_NAS_QEMU_IMG="$(command -v qemu-img)"
else
    own_qemu=true
    qemu="$cache/tools/$tools_key/bin/qemu-system-x86_64"
    TEST_NAS_QEMU_IMG="$cache/tools/$tools_key/bin/qemu-img"
fi

# --- what this machine must have ------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null || [ -x "/sbin/$1" ] || [ -x "/usr/sbin/$1" ]; }

parts_missing() {
    [ ! -d "$cache/image/$image_key" ] || { "$own_qemu" && [ ! -d "$cache/tools/$tools_key" ]; }
}

needs() {
    has ssh-keygen || echo openssh-client
    parts_missing || return 0
    has mmdebstrap || echo mmdebstrap
    has mke2fs || echo e2fsprogs
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
    if [ "$(id -u)" -ne 0 ]; then
        has newuidmap || echo uidmap
        has fakeroot || echo fakeroot
    fi
}

# --- stages ---------------------------------------------------------------------------------------------------------

# Never removes through a mount: what a killed build left mounted has to be unmounted by hand first.
remove_tree() {
    [ -e "$1" ] || return 0
    ! grep -qF " $1/" /proc/self/mounts || die "something is still mounted below $1: unmount it, then run this again"
    rm -rf --one-file-system -- "$1"
}

# stage KIND KEY COMMAND... : leaves the directory $cache/KIND/KEY, made by COMMAND in the current directory. It appears in
# one rename, so a killed build leaves nothing that looks finished; a second build of the same stage waits for the
# first one's lock and then finds the work done.
stage() {
    local kind="$1" key="$2" target work log began=$SECONDS
    shift 2
    target="$cache/$kind/$key"
    log="$cache/log/$kind-$key.log"
    [ ! -d "$target" ] || return 0
    mkdir -p "$cache/$kind" "$cache/log"
    exec {lock}>"$cache/$kind/.$key.lock"
    flock "$lock"
    if [ ! -d "$target" ]; then
        say "$kind: building, log in $log"
        for work in "$cache/$kind/.$key."*.tmp; do
            remove_tree "$work"
        done
        work="$cache/$kind/.$key.$$.tmp"
        mkdir "$work"
        # the lock is not inherited: a stray child of a killed build would hold it
        if ! (cd "$work" && exec "$@" {lock}>&- </dev/null >"$log" 2>&1); then
            tail -n 30 "$log" >&2
            remove_tree "$work"
            die "building the $kind failed, the end of its log is above, the whole of it in $log"
        fi
        # the contents must be on the disk before the name is
        sync -f "$work"
        mv -T "$work" "$target"
        say "$kind: ready after $((SECONDS - began)) s"
    fi
    exec {lock}>&-
}

build() {
    local missing userland
    local -a privileges=()
    parts_missing || return 0
    missing="$(needs | sort -u | paste -s -d ' ')"
    [ -z "$missing" ] || die "these Debian packages are needed to build the image: apt-get install $missing"
    [ "$(id -u)" -eq 0 ] || privileges=(fakeroot)
    # the small stages beside the big one: configuring the ZFS modules leaves a core idle
    (
        ! "$own_qemu" || stage tools "$tools_key" bash "$here/build/tools.sh"
        stage userland "$userland_key" bash "$here/build/userland.sh"
    ) &
    userland=$!
    # a failed kernel must not leave the other stages building behind the caller's back
    trap wait EXIT
    stage kernel "$kernel_key" bash "$here/build/kernel.sh"
    wait "$userland" || die "see the error above"
    stage image "$image_key" "${privileges[@]}" bash "$here/build/image.sh" \
        "$cache/kernel/$kernel_key" "$cache/userland/$userland_key"
}

if parts_missing; then changed=true; else changed=false; fi
case "${1:-}" in
    needs)
        needs | sort -u
        exit 0
        ;;
    check) ;;
    build) build ;;
    *) die "usage: build_image.sh build|check|needs" ;;
esac

"$TEST_NAS_PYTHON" - "$changed" "$cache/image/$image_key" "$qemu" "$TEST_NAS_QEMU_IMG" <<'PYTHON'
import json, sys
names = ("image", "qemu", "qemu_img")
print(json.dumps(dict(zip(names, sys.argv[2:]), changed=sys.argv[1] == "true")))
PYTHON
