#!/usr/bin/env bash
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# image.sh KERNEL USERLAND: the NAS's root disk from those two stages, made without mounting anything (tar -> directory ->
# mke2fs -d -> qcow2). Started by build_image.sh in an empty directory, as root or below fakeroot.
#
# Leaves: root.qcow2, vmlinuz, initrd.img, image.json.

set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
kernel="$1" userland="$2"
label=test-nas
PATH="$PATH:/sbin:/usr/sbin"

mkdir root
tar -x -f "$userland/root.tar" -C root --exclude='./dev/*'
tar -x -f "$kernel/modules.tar" -C root
bash "$here/build/configure.sh" root "$here/guest" "$label"
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$TEST_NAS_PYTHON" -m nasvm.initrd \
    --root root --init "$here/build/init" --output initrd.img
mke2fs -q -t ext4 -L "$label" -N 131072 -m 0 -d root root.raw "$TEST_NAS_ROOT_SIZE"
"$TEST_NAS_QEMU_IMG" convert -O qcow2 root.raw root.qcow2
rm -rf root root.raw
cp "$kernel/vmlinuz" vmlinuz
printf '{"suite": "%s", "kernel": "%s", "root_label": "%s"}\n' \
    "$TEST_NAS_SUITE" "$(cat "$kernel/version")" "$label" >image.json
