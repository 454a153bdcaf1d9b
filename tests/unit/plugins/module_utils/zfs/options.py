# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options as AnsibleModule hands them over: checked by the real argument specification, with its defaults."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_options import (
    WantedPool,
    argument_spec,
    parse_options,
)


def parse(options: t.Mapping[str, t.Any]) -> tuple[WantedPool, ...]:
    """The wanted pools; an option of the wrong type fails the test."""
    result = ArgumentSpecValidator(argument_spec()).validate(dict(options))
    if result.error_messages:
        raise AssertionError(result.error_messages)
    return parse_options(result.validated_parameters)
