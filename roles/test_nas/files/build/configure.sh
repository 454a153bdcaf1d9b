#!/usr/bin/env bash
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# configure.sh ROOT OVERLAY LABEL: turns a bare Debian tree into the NAS: only files are written, nothing of the tree
# is run, so it works below fakeroot.

set -euo pipefail
root="$1" overlay="$2" label="$3"

cp -R --no-preserve=ownership "$overlay/." "$root/"
chown -R 0:0 "$root/etc/ssh" "$root/etc/systemd" "$root/etc/udev" "$root/etc/modprobe.d" "$root/etc/modules-load.d"

# What only costs time on a machine that lives for an hour. Everything of ZFS, LVM, md and udev stays as Debian has it.
for unit in \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer logrotate.timer man-db.timer mdcheck_start.timer mdcheck_continue.timer mdmonitor-oneshot.timer \
    getty@tty1.service getty-static.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-logind.service systemd-networkd-wait-online.service systemd-pstore.service \
    systemd-network-generator.service systemd-udev-load-credentials.service systemd-tpm2-setup.service \
    systemd-tpm2-setup-early.service systemd-battery-check.service systemd-journal-catalog-update.service \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# generators are programs that run at every boot before anything else does; these have nothing to generate here
mkdir -p "$root/etc/systemd/system-generators"
for generator in systemd-ssh-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator \
    systemd-integritysetup-generator systemd-veritysetup-generator systemd-tpm2-generator systemd-bless-boot-generator \
    systemd-rc-local-generator systemd-getty-generator systemd-debug-generator systemd-import-generator; do
    ln -sf /dev/null "$root/etc/systemd/system-generators/$generator"
done
# auditd is there for whoever wants to record what runs; starting it is up to them
rm -f "$root/etc/systemd/system/multi-user.target.wants/auditd.service"

enable() {
    mkdir -p "$root/etc/systemd/system/$2.wants"
    ln -sf "$1" "$root/etc/systemd/system/$2.wants/$(basename "$1")"
}
enable /usr/lib/systemd/system/systemd-networkd.service multi-user.target
enable /etc/systemd/system/test-nas-ready.service multi-user.target

# every VM brings its own (see the seed in test_nas/seed.py)
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/etc/hostid"
mkdir -p "$root/var/log/journal"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
echo "LABEL=$label / ext4 rw,noatime,noinit_itable 0 0" >"$root/etc/fstab"
sed -i 's/^root:[^:]*:/root:*:/' "$root/etc/shadow"
# keeps systemd from doing at the first boot what an update of /usr would need
touch "$root/etc/.updated" "$root/var/.updated"
