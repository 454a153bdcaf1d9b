#!/usr/bin/env bash
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Debian's cloud kernel with the OpenZFS modules compiled for it, in a root folder that is thrown away afterwards:
# the compiler and the kernel's headers never get into the image. Started by build_image.sh in an empty directory.
#
# Leaves: vmlinuz, modules.tar (usr/lib/modules/VERSION), version.

set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# No initial RAM disk is wanted from the kernel package: build/image.sh makes one of a tenth of the size.
# shellcheck disable=SC2016  # $1 is the hook's
no_initrd='mkdir -p "$1/etc/initramfs-tools"; echo update_initramfs=no >"$1/etc/initramfs-tools/update-initramfs.conf"'

# Debug information and type data would be made for each of some 300 small trial modules and stripped or left unused in the
# end. make reads auto.conf; the C code's configuration (autoconf.h), and with it the modules' layout, stays as it is.
# shellcheck disable=SC2016
compile='
set -eu
sed -i "/^CONFIG_DEBUG_INFO/d" "$1"/usr/src/linux-headers-*-cloud-amd64/include/config/auto.conf
chroot "$1" apt-get install --yes zfs-dkms
'

# The modules are stored uncompressed: unpacking them costs seconds on an emulated CPU.
# shellcheck disable=SC2016
collect='
set -eu
cd "$1"
version="$(ls usr/lib/modules | sort -V | tail -n 1)"
modules="usr/lib/modules/$version"
if ! ls "$modules/updates/dkms/zfs.ko"*; then
    cat var/lib/dkms/zfs/*/build/make.log || true
    echo "the OpenZFS modules were not built for kernel $version" >&2
    exit 1
fi
rm -f "$modules/build" "$modules/source"
chroot . sh -c "unxz -f /$modules/updates/dkms/*.xz; depmod $version"
mkdir stage
echo "$version" >stage/version
cp "boot/vmlinuz-$version" stage/vmlinuz
chmod 0644 stage/vmlinuz
tar -cf stage/modules.tar --owner=0 --group=0 "$modules"
'

bootstrap --variant=minbase --format=null \
    --dpkgopt=force-confold \
    --include=linux-image-cloud-amd64,linux-headers-cloud-amd64,dkms,libc6-dev \
    --essential-hook="$no_initrd" \
    --customize-hook="$compile" \
    --customize-hook="$collect" \
    --customize-hook="download /stage/version $(printf %q "$PWD/version")" \
    --customize-hook="download /stage/vmlinuz $(printf %q "$PWD/vmlinuz")" \
    --customize-hook="download /stage/modules.tar $(printf %q "$PWD/modules.tar")" \
    /dev/null
