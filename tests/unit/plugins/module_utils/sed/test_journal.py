# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of what is remembered of drives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.sed.journal import Journal


def test_a_note_that_can_not_be_written_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notes"
    Journal(str(path)).begin("S1", "SID", "ours")
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_from: str, _to: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="can't be written: No space left on device") as caught:
            Journal(str(path)).begin("S2", "SID", "ours")
    assert "Nothing was changed" not in caught.value.hint
    memory = Journal(str(path))
    assert (memory.memory("S1").begun("SID"), memory.memory("S2").begun("SID")) == ("ours", "")
    assert [one.name for one in tmp_path.iterdir()] == ["notes"]


def test_a_file_that_is_none_of_ours_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("{")
    assert Journal(str(path)).memory("S1").all_begun == ()
    Journal(str(path)).begin("S1", "SID", "ours")
    assert Journal(str(path)).memory("S1").all_begun == ("SID",)
