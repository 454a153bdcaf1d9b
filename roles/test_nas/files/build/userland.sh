#!/usr/bin/env bash
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Debian as it runs on the NAS, without a kernel. Started by build_image.sh in an empty directory.
#
# Leaves: root.tar.

set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bootstrap --variant=minbase --format=tar --include="${TEST_NAS_ALL_PACKAGES// /,}" root.tar
