# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# How every stage reaches Debian's archive. Sourced by the stages, never run.

# Debian's archive as this machine already reaches it, so that a local mirror is used without being named here.
archive_mirror() {
    local found=''
    if [ -n "${TEST_NAS_MIRROR:-}" ]; then
        printf '%s\n' "$TEST_NAS_MIRROR"
        return
    fi
    if command -v apt-get >/dev/null; then
        # shellcheck disable=SC2016  # $(REPO_URI) is apt's own placeholder
        found="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
            grep -E -m 1 '^https?://[^ ]*/debian/?$' || true)"
    fi
    printf '%s\n' "${found:-http://deb.debian.org/debian}"
}

# The settings of the host's apt that decide whether the archive can be reached, as mmdebstrap options, one a line.
archive_options() {
    local key value
    command -v apt-config >/dev/null || return 0
    for key in Acquire::http::Proxy Acquire::https::Proxy Acquire::https::CAInfo \
        Acquire::Check-Valid-Until Acquire::Check-Date Acquire::Retries; do
        value=''
        eval "$(apt-config shell value "$key")"
        [ -z "$value" ] || printf -- '--aptopt=%s "%s"\n' "$key" "$value"
    done
}

# bootstrap OPTIONS... TARGET: mmdebstrap with what all stages have in common.
bootstrap() {
    local mode=unshare target="${*: -1}"
    local -a options
    [ "$(id -u)" -ne 0 ] || mode=root
    mapfile -t options < <(archive_options)
    mmdebstrap --mode="$mode" --architectures=amd64 --components=main,contrib \
        --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        "${options[@]}" "${@:1:$#-1}" "$TEST_NAS_SUITE" "$target" "$(archive_mirror)"
}
