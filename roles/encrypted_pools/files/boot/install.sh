#!/bin/sh
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs what unlocks datasets at boot, or removes it, and prints a line for each change.
#
#   install.sh present|absent apply|check PROGRAM UNIT RC_SCRIPT
#
# The last three are contents of files. All in one, because each module of its own would cost a host a second.

set -eu
umask 022
state=$1 mode=$2 program=$3 unit=$4 rc_script=$5
units=/etc/systemd/system
service=nasops-zfs-unlock.service
changed=no

change() {
    printf '%s\n' "$1"
    shift
    changed=yes
    [ "$mode" = check ] || "$@"
}

write() {
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "$2" >"$1.part"
    chmod "$3" "$1.part"
    mv -f "$1.part" "$1"
}

link() {
    mkdir -p "$(dirname "$1")"
    ln -sfn "$2" "$1"
}

# PATH CONTENT MODE
file() {
    if [ "$state" = absent ]; then
        [ ! -e "$1" ] || change "Remove $1" rm -f "$1"
        return
    fi
    if [ -f "$1" ] && [ "$(cat "$1")" = "$2" ] && { [ "$3" != 0755 ] || [ -x "$1" ]; }; then
        return
    fi
    change "Write $1" write "$1" "$2" "$3"
}

system=$(uname -s)
if [ "$system" = Linux ] && [ -d "$units" ]; then
    wanted=$units/zfs.target.wants/$service
    file /etc/zfs/nasops-unlock "$program" 0755
    file "$units/$service" "$unit" 0644
    if [ "$state" = absent ]; then
        [ ! -L "$wanted" ] || change "Disable $service" rm -f "$wanted"
    elif [ "$(readlink "$wanted" || true)" != "$units/$service" ]; then
        change "Enable $service" link "$wanted" "$units/$service"
    fi
    if [ "$changed" = yes ] && [ "$mode" = apply ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
elif [ "$system" = FreeBSD ]; then
    file /etc/zfs/nasops-unlock "$program" 0755
    file /etc/rc.d/nasops_zfs_unlock "$rc_script" 0755
elif [ "$state" = present ]; then
    printf '%s\n' "Datasets can be unlocked at boot by systemd on Linux and by rc on FreeBSD; this is $system without" \
        "them. Set nas_unlock_at_boot to false for this host." >&2
    exit 1
fi
