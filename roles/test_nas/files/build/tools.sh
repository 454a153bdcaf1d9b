#!/usr/bin/env bash
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# QEMU of the same suite, unpacked and never installed: its programs run from there through their own dynamic loader,
# so neither the machine's packages nor its apt sources are touched. Started by build_image.sh in an empty directory.
#
# Leaves: root/, bin/qemu-system-x86_64, bin/qemu-img.

set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# wrapper PROGRAM OPTIONS... : prints a script that starts PROGRAM of the unpacked tree.
wrapper() {
    local program="$1"
    shift
    cat <<WRAPPER
#!/bin/sh
root="\$(cd "\$(dirname "\$0")/../root/usr" && pwd)"
export QEMU_MODULE_DIR="\$root/lib/x86_64-linux-gnu/qemu"
exec "\$root/lib64/ld-linux-x86-64.so.2" --library-path "\$root/lib/x86_64-linux-gnu" "\$root/bin/$program" $* "\$@"
WRAPPER
}

# variant extract: nothing runs inside the tree, the packages are only unpacked
bootstrap --variant=extract --format=tar --include=qemu-system-x86,qemu-utils root.tar
mkdir root bin
tar -x -f root.tar -C root --no-same-owner --exclude='./dev/*'
rm root.tar
# shellcheck disable=SC2016  # $root is the wrapper's
wrapper qemu-system-x86_64 -L '"$root/share/qemu"' -L '"$root/share/seabios"' >bin/qemu-system-x86_64
wrapper qemu-img >bin/qemu-img
chmod 0755 bin/*
bin/qemu-system-x86_64 --version
bin/qemu-img --version
