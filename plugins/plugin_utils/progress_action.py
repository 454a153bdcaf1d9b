# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of a module that sends streams: shows how far one is while the module runs."""

from __future__ import annotations

import contextlib
import copy
import secrets as random_source
import shlex
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from .progress_watch import ProgressWatch

Values = dict[str, t.Any]

_FOLDER = "/var/run/nasops.encryption"


class ProgressAction(ActionBase):
    """Runs the module of the same name, and looks at its file of progress meanwhile.

    ``module_name`` is the whole name of the module, ``progress_interval`` the specification of its option of that name.
    """

    module_name = ""
    progress_interval: t.Mapping[str, t.Any] = {}

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: Values | None = None) -> Values:
        result: Values = super().run(tmp, task_vars)
        given: Values = dict(self._task.args)
        interval = _interval(given, self.progress_interval)
        watch: contextlib.AbstractContextManager[t.Any] = contextlib.nullcontext()
        if interval and not self._task.check_mode and not self._task.async_val:
            # Unpredictable, so that nobody can put another file there.
            given["progress_file"] = (
                given.get("progress_file") or f"{_FOLDER}/replicate-{random_source.token_hex(8)}.json"
            )
            watch = self._watch(str(given["progress_file"]), interval, task_vars or {})
        with watch:
            answer = self._execute_module(
                module_name=self.module_name,
                module_args=given,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
        result.update(answer)
        return result

    def _watch(self, path: str, interval: int, task_vars: Values) -> ProgressWatch:
        """Looks at the file over the task's own connection, beside the module."""
        connection = copy.copy(self._connection)
        # It remembers what it waits for, so the module and the look can't share one.
        connection.become = copy.copy(connection.become)
        host = str(task_vars.get("inventory_hostname", ""))
        display = Display()

        def look() -> str:
            words = f"cat {shlex.quote(path)}"
            if connection.become is not None:
                words = connection.become.build_become_command(words, connection._shell)
            status, said, _errors = connection.exec_command(words, in_data=None, sudoable=True)
            return said.decode("utf-8", "replace") if status == 0 else ""

        return ProgressWatch(
            look, lambda line: display.display(f"[{host}] {line}"), lambda line: display.vv(line, host=host), interval
        )


def _interval(given: Values, option: t.Mapping[str, t.Any]) -> int:
    """Seconds between two looks; what is wrong with the options is for the module to say."""
    name = "progress_interval"
    asked = {name: given[name]} if given.get(name) is not None else {}
    checked = ArgumentSpecValidator({name: dict(option)}).validate(asked)
    return 0 if checked.error_messages else int(checked.validated_parameters[name])
