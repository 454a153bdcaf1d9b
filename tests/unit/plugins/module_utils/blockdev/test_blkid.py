# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the JSON of wipefs is understood, and how few processes it takes."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import blkid
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.signatures import Signature
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError

Row = dict[str, t.Optional[str]]


class Wipefs:
    """Answers as wipefs does: names only the last part of a path, and ends at the first it can't read."""

    def __init__(self, rows: t.Mapping[str, t.Sequence[Row]], broken: t.Container[str] = ()) -> None:
        self.rows = rows
        self.broken = broken
        self.calls: list[tuple[str, ...]] = []

    def has(self, program: str) -> bool:
        return True

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        paths = command.argv[command.argv.index("--") + 1 :]
        self.calls.append(paths)
        for path in paths:
            if path in self.broken:
                words = f"wipefs: error: {path}: probing initialization failed: Input/output error\n"
                raise CommandError(Result(command.argv, 1, "", words))
        rows = [dict(row, device=path.rpartition("/")[2]) for path in paths for row in self.rows.get(path, ())]
        return Result(command.argv, 0, json.dumps({"signatures": rows}), "")


def row(kind: str, usage: str | None, label: str | None = None) -> Row:
    return {"offset": "0x0", "type": kind, "usage": usage, "label": label}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("gpt", "partition-table"), row("gpt", "partition-table"), row("PMBR", "partition-table")],
         ["GPT partition table"]),
        ([row("PMBR", "partition-table")], ["protective MBR"]),
        ([row("dos", "partition-table")], ["MBR partition table"]),
        ([row("sun", "partition-table")], ["sun partition table"]),
        ([row("ext4", "filesystem", "home")], ['ext4 filesystem "home"']),
        ([row("vfat", "filesystem"), row("vfat", "filesystem")], ["FAT filesystem"]),
        ([row("LVM2_member", "raid")], ["LVM physical volume"]),
        ([row("linux_raid_member", "raid", "nas1:0")], ['RAID member (md) "nas1:0"']),
        ([row("isw_raid_member", "raid")], ["RAID or volume member (isw_raid_member)"]),
        ([row("crypto_LUKS", "crypto")], ["LUKS"]),
        ([row("BitLocker", "crypto")], ["encrypted volume (BitLocker)"]),
        ([row("swap", "other")], ["swap area"]),
        ([row("something", None)], ["something signature"]),
        ([], []),
    ],
)  # fmt: skip
def test_words(rows: list[Row], words: list[str]) -> None:
    found = blkid.probe(Wipefs({"/dev/sda": rows}), ["/dev/sda"])["/dev/sda"]
    assert [signature.what for signature in found if isinstance(signature, Signature)] == words


def test_many_disks_take_one_process() -> None:
    paths = [f"/dev/sd{letter}" for letter in "abcdefghij"]
    wipefs = Wipefs({"/dev/sdc": [row("ext4", "filesystem")]})
    found = blkid.probe(wipefs, paths)
    assert len(wipefs.calls) == 1
    assert {path: len(signatures) for path, signatures in found.items() if signatures} == {"/dev/sdc": 1}


def test_files_of_the_same_name_are_told_apart() -> None:
    wipefs = Wipefs({"/a/disk": [row("ext4", "filesystem")], "/c/disk": [row("swap", "other")]})
    found = blkid.probe(wipefs, ["/a/disk", "/b/disk", "/c/disk", "/b/other"])
    kinds = {path: [found.type for found in signatures if isinstance(found, Signature)]
             for path, signatures in found.items()}  # fmt: skip
    assert kinds == {"/a/disk": ["ext4"], "/b/disk": [], "/c/disk": ["swap"], "/b/other": []}
    assert len(wipefs.calls) == 3


def test_a_disk_that_fails_does_not_hide_the_others() -> None:
    wipefs = Wipefs({"/dev/sdc": [row("ext4", "filesystem")]}, broken=("/dev/sdb",))
    found = blkid.probe(wipefs, ["/dev/sda", "/dev/sdb", "/dev/sdc"])
    assert found["/dev/sda"] == ()
    assert "Input/output error" in found["/dev/sdb"]
    assert len(found["/dev/sdc"]) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"signatures": [{"device": "a"}]}', '{"other": []}'])
def test_other_output_is_told(text: str) -> None:
    with pytest.raises(StorageError, match="not understood"):
        blkid.parse(text)


def test_no_output_means_nothing_found() -> None:
    assert blkid.parse("") == {}
