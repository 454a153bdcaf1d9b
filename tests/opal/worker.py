# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs modules of the collection, one after another, in a process that sees emulated drives.

Reads a task from each line of its standard input, and writes what the module printed, and started, as a line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys

from ansible.module_utils.testing import patch_module_args

# What the module started, with arguments and environment, for whoever looks for passwords there.
_started: list[str] = []
_MODULES = "ansible_collections.nasops.encryption.plugins.modules"
_COMMAND = "ansible_collections.nasops.encryption.plugins.module_utils.command"


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        _started.append(repr(arguments))


def main() -> None:
    sys.addaudithook(_watch)
    if sys.argv[1:] == ["bare"]:
        # A host that lacks what this machine may have.
        vars(importlib.import_module(_COMMAND))["SYSTEM_PATH"] = ()
    for line in sys.stdin:
        task = json.loads(line)
        # The preloaded library looks it up in each call.
        os.environ["OPAL_EMULATOR"] = task["emulator"]
        _started.clear()
        printed = io.StringIO()
        module = importlib.import_module(f"{_MODULES}.{task['module']}")
        ending = contextlib.suppress(SystemExit)
        with patch_module_args(task["arguments"]), contextlib.redirect_stdout(printed), ending:
            module.main()
        sys.stdout.write(json.dumps([printed.getvalue(), _started]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
