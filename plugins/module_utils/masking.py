# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells ansible-core which texts to hide, with whatever this version of it has for that."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

# Texts shorter than this would blank out unrelated words all over the output.
_SHORTEST = 8


def release(module: AnsibleModule, texts: t.Iterable[str]) -> None:
    """Show these texts, which stand in an option with secrets and are none."""
    # ansible-core 2.22 has no such set.
    getattr(module, "no_log_values", set()).difference_update(texts)


def occurs(module: AnsibleModule, names: t.Iterable[str]) -> bool:
    """Whether a text that Ansible hides is a part of one of these names, which it then spoils in the result."""
    joined = "\n".join(names)
    return any(text in joined for text in getattr(module, "no_log_values", ()) if text)


def register(module: AnsibleModule | None, texts: t.Iterable[str]) -> None:
    """Hide these texts in results and log output.

    ansible-core 2.22 has an interface for it; older versions hide what is in the module's set of no_log values, and
    what a plugin on the controller returns not at all.
    """
    long_enough = [text for text in texts if len(text) >= _SHORTEST]
    try:
        from ansible.module_utils.secrets import register_secrets
    except ImportError:
        if module is None:
            return
        module.no_log_values.update(long_enough)
    else:
        register_secrets(long_enough)
