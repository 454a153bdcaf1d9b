# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wording gate finds what it should, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from wording import RULES, findings, machine

# Written in two halves, so that the gate does not find them here.
BAD = [
    "# TO" + "DO: the rest",
    "x = 1  # FIX" + "ME",
    "It takes @" + "@TIME@" + "@ minutes.",
    "raise NotImplemente" + "dError",
    "This is not yet implemente" + "d.",
    "@pytest.mark.ski" + 'p(reason="later")',
    "cd /home/" + "somebody/src",
    "see .." + "/shared/notes.md",
    "pip install --index-ur" + "l https://example.org/simple",
    "https://pypi.or" + "g/project/ansible-core",
]
GOOD = [
    "mktemp /tmp/nas.XXXXXX",
    "the mastodon is not a to-do",
    "ssh admin@nas.example.org ls /home/admin/media",
    "raise ValueError('not a key')",
    "../README.md",
    "@@ -1,3 +1,4 @@ a hunk of a diff",
    "~/home/thing/",
    "name: stubborn",
]


@pytest.mark.parametrize("text", BAD)
def test_bad_wording_is_found(text: str) -> None:
    assert [number for number, _match, _meaning in findings("fine\n" + text, RULES)] == [2]


@pytest.mark.parametrize("text", GOOD)
def test_good_wording_passes(text: str) -> None:
    assert list(findings(text, RULES)) == []


def test_the_work_tree_of_this_machine_is_found() -> None:
    rules = list(machine(Path("/srv/build/tree")))
    assert list(findings("cp /srv/build/tree/README.md .", rules))
    assert not list(findings("cp /srv/builds/README.md .", rules))


@pytest.mark.parametrize("folder", ["/tmp", "/srv", "/var/tmp", "/usr/src"])
def test_a_folder_of_every_machine_is_no_trace_but_the_work_tree_in_it_is(folder: str) -> None:
    rules = list(machine(Path(folder, "tree")))
    assert list(findings(f"cp {folder}/tree/README.md .", rules))
    assert not list(findings(f"cp {folder}/other/README.md .", rules))


def test_the_folder_around_a_work_tree_is_found() -> None:
    rules = list(machine(Path("/builds/tree")))
    assert list(findings("ls /builds/shelf", rules))
