#!/bin/sh
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# connect.sh ADDRESS PORT NAME... : plugs emulated drives into this machine, by their NVMe Qualified Names, each once.
# Drives whose process was started anew have the same names on another port: those that are gone are taken away first.

set -eu
address=$1 port=$2
shift 2
modprobe nvme-tcp
for name; do
    connected=
    for controller in /sys/class/nvme/*; do
        if grep -qsxF "$name" "$controller/subsysnqn"; then
            case ",$(cat "$controller/address")," in
                *",trsvcid=$port,"*) connected=1 ;;
                *) echo 1 >"$controller/delete_controller" ;;
            esac
        fi
    done
    if [ "$connected" ]; then
        continue
    fi
    # At boot the network takes its time.
    left=60
    until printf 'nqn=%s,transport=tcp,traddr=%s,trsvcid=%s,nr_io_queues=1,keep_alive_tmo=60,reconnect_delay=1' \
        "$name" "$address" "$port" >/dev/nvme-fabrics; do
        left=$((left - 1))
        if [ "$left" -eq 0 ]; then
            echo "$name can't be reached at $address, port $port; the kernel log tells why" >&2
            exit 1
        fi
        sleep 1
    done
done
