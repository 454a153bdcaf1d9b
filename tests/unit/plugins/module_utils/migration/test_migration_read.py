# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read, from texts in the form that zfs and zpool print them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.migration import copy_empty, private_mount
from ansible_collections.nasops.encryption.plugins.module_utils.migration import read as migration_read
from ansible_collections.nasops.encryption.plugins.module_utils.migration.options import Migration, arguments, parse
from ansible_collections.nasops.encryption.plugins.module_utils.migration.plan import plan_migration, reached
from ansible_collections.nasops.encryption.plugins.module_utils.migration.private_mount import Mount, Place
from ansible_collections.nasops.encryption.plugins.module_utils.migration.read import (
    is_geli,
    lacking_for_rsync,
    read_migration,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.tree import Unreadable
from ansible_collections.nasops.encryption.plugins.module_utils.remote import RemoteRunner, Ssh
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import ProgressFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_state import HEAD

from ..recorded import RecordedRunner, answer

# Value and source of each property that was set; the others are "-".
Values = dict[str, dict[str, tuple[str, str]]]

STATUS = """  pool: new
 state: ONLINE
config:

\tNAME          STATE     READ WRITE CKSUM
\tnew           ONLINE       0     0     0
\t  /dev/sdz1   ONLINE       0     0     0

errors: No known data errors

  pool: old
 state: DEGRADED
config:

\tNAME                            STATE     READ WRITE CKSUM
\told                             DEGRADED     0     0     0
\t  mirror-0                      DEGRADED     0     0     0
\t    /run/nasops-geli/eli-1      ONLINE       0     0     0
\t    1234567890                  UNAVAIL      0     0     0  was /dev/gptid/2.eli
\tcache
\t  /dev/sdc1                     UNAVAIL      0     0     0

errors: No known data errors
"""


def plain(**facts: str) -> dict[str, tuple[str, str]]:
    values = {
        "type": "filesystem",
        "encryption": "off",
        "keystatus": "none",
        "written": "0",
        "guid": "9",
        "origin": "-",
    }
    return {name: (value, "-") for name, value in {**values, **facts}.items()}


class Fake(ReplicaRunner):
    """A host with these two pools."""

    def __init__(self, read_only: str = "on") -> None:
        super().__init__(Mask(), ProgressFile(None))
        pool = {
            "health": ("ONLINE", "-"),
            "feature@encryption": ("active", "-"),
            "feature@bookmark_v2": ("active", "-"),
        }
        self.pools: Values = {
            "new": {**pool, "guid": ("2", "-"), "readonly": ("off", "-")},
            "old": {**pool, "guid": ("1", "-"), "readonly": (read_only, "-")},
        }
        self.datasets: Values = {
            "old": {
                **plain(written="7"),
                "org.example:note": ("two\nlines", "local"),
                "nasops.encryption:x": ("1", "local"),
            },
            "old/docs": {**plain(guid="10"), "org.example:note": ("two\nlines", "inherited from old")},
            "new": {
                "type": ("filesystem", "-"),
                "encryption": ("aes-256-gcm", "-"),
                "encryptionroot": ("new", "-"),
                "keystatus": ("available", "-"),
                "keylocation": ("file:///k", "local"),
                "available": ("1000", "-"),
            },
        }
        self.snapshots: Values = {"old/docs@a": {"guid": ("5", "-"), "createtxg": ("3", "-")}}
        self.commands: list[tuple[str, ...]] = []

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command.argv)
        result = self._answer(command.argv)
        if result.rc not in ok:
            raise CommandError(result)
        return result

    def start(self, command: Command, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        raise AssertionError("nothing is to be sent")

    def _answer(self, argv: tuple[str, ...]) -> Result:
        if argv[:2] == ("zpool", "sync"):
            return Result(argv, 0, "", "")
        if argv[:2] == ("zpool", "status"):
            return Result(argv, 0, STATUS, "")
        if argv == ("zfs", "version"):
            return Result(argv, 0, "zfs-2.3.2-2\nzfs-kmod-2.3.2-2\n", "")
        if argv[0] == "zpool":
            return Result(argv, 0, self._table(self.pools, argv[-1].split(",")), "")
        top = argv[-1]
        if top not in self.datasets:
            return Result(argv, 1, "", f"cannot open '{top}': dataset does not exist")
        recursive = "-r" in argv
        table = self.snapshots if "snapshot,bookmark" in argv else self.datasets
        names = {
            name: one
            for name, one in table.items()
            if name == top or (recursive and name.startswith((f"{top}/", f"{top}@")))
        }
        if argv[-2] == "all":
            own = [word for one in names.values() for word, (_value, source) in one.items() if source == "local"]
            return Result(argv, 0, "".join(f"{word}\n" for word in own), "")
        return Result(argv, 0, self._table(names, argv[-2].split(",")), "")

    @staticmethod
    def _table(values: Values, properties: t.Sequence[str]) -> str:
        lines = []
        for name, found in values.items():
            for word in properties:
                value, source = found.get(word, ("-", "-"))
                lines.append(f"{name}\t{word}\t{source}\t{value}\n")
        return "".join(lines)


def wanted(**given: t.Any) -> Migration:
    checked = ArgumentSpecValidator(arguments()).validate({"source": "old", "target": "new/old", **given})
    return parse(checked.validated_parameters, "20261127T010203Z", "beef")


def test_a_read_only_pool_is_not_asked_to_write() -> None:
    fake = Fake()
    found = read_migration(fake, wanted())
    assert found.read_only
    assert not [argv for argv in fake.commands if argv[:2] == ("zpool", "sync")]
    assert [one.name for one in found.ends.source.of("old")] == [HEAD]
    assert [one.name for one in found.ends.source.of("old/docs")] == ["a"]
    assert found.ends.source.of("old")[-1].guid == "9"


def test_a_writable_one_is() -> None:
    fake = Fake("off")
    found = read_migration(fake, wanted())
    assert not found.read_only
    assert ("zpool", "sync", "old") in fake.commands
    assert found.ends.source.of("old") == ()


def test_members_are_those_of_the_source_without_its_cache() -> None:
    found = read_migration(Fake(), wanted())
    assert [(one.path, one.state, one.geli) for one in found.members] == [
        ("/run/nasops-geli/eli-1", "ONLINE", True),
        ("/dev/gptid/2.eli", "UNAVAIL", True),
    ]


def test_user_properties_are_read_by_name_but_for_our_own() -> None:
    found = read_migration(Fake(), wanted())
    note = found.ends.source.datasets["old"].properties["org.example:note"]
    assert (note.value, note.own) == ("two\nlines", True)
    assert not found.ends.source.datasets["old/docs"].properties["org.example:note"].own
    assert "nasops.encryption:x" not in found.ends.source.datasets["old"].properties


def test_the_key_of_a_new_target_is_that_above_it_unless_it_has_one() -> None:
    root = read_migration(Fake(), wanted()).root
    assert root is not None
    assert (root.name, root.location, root.locked) == ("new", "file:///k", False)
    assert [one.name for one in root.users] == ["new"]
    assert read_migration(Fake(), wanted(key={"value": "0f" * 32})).root is None


def test_what_is_read_can_be_decided_on() -> None:
    found = read_migration(Fake(), wanted())
    plan = plan_migration(wanted(state="synced", allow_degraded=True), found)
    assert plan.actions == [
        "Send 'old' up to its present state to 'new/old', to be encrypted there",
        "Send 'old/docs' up to @a to 'new/old/docs', to be encrypted there",
        "Record on 'new/old' that it is a migration of 'old'",
    ]
    assert reached(wanted(), found) == "planned"


def test_it_takes_a_constant_number_of_processes() -> None:
    fake = Fake()
    read_migration(fake, wanted())
    assert len(fake.commands) == 8


@pytest.mark.parametrize(
    ("path", "geli"),
    [
        ("/dev/gptid/5c3b0d8e-24f0-11e3-a1b2-d43d7e000001.eli", True),
        ("/dev/mapper/eli-5c3b0d8e", True),
        ("/run/nasops-geli/eli-5c3b0d8e", True),
        ("/dev/mapper/luks-1", False),
        ("/dev/sda2", False),
        ("/run/nasops-geli", False),
    ],
)
def test_devices_of_geli_are_known_by_their_names(path: str, geli: bool) -> None:
    assert is_geli(path) == geli


class TestRsync:
    """What rsync needs is looked at only if it is asked for."""

    @pytest.fixture
    def mounts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Mount]:
        """What was mounted; all of it shows the same folder."""
        found: list[Mount] = []

        @contextlib.contextmanager
        def mounted(runner: ReplicaRunner, *mounts: Mount) -> t.Iterator[Place]:
            found.extend(mounts)
            yield Place(os.getpid(), len(mounts))

        (tmp_path / "fs" / "1").mkdir(parents=True)
        monkeypatch.setattr(private_mount, "_ROOT", str(tmp_path))
        monkeypatch.setattr(copy_empty, "mounted", mounted)
        monkeypatch.setattr(migration_read, "lacking_for_rsync", lambda runner, system: ())
        return found

    def host(self, **facts: str) -> Fake:
        fake = Fake()
        encrypted = {"encryption": "aes-256-gcm", "encryptionroot": "new", "keystatus": "available"}
        fake.datasets["new/old"] = plain(**{**encrypted, **facts})
        return fake

    def test_a_new_target_is_not_looked_into(self, mounts: list[Mount]) -> None:
        fake = Fake()
        assert read_migration(fake, wanted(method="rsync")).entries == {}
        assert mounts == []
        # As many as for streams: rsync itself is no program of ZFS.
        assert len(fake.commands) == 8

    @pytest.mark.parametrize(
        ("facts", "write"),
        [({}, False), ({"mounted": "yes"}, True), ({"mounted": "yes", "readonly": "on"}, False)],
    )
    def test_one_that_is_there_is(
        self, mounts: list[Mount], tmp_path: Path, facts: dict[str, str], write: bool
    ) -> None:
        (tmp_path / "fs" / "1" / "folder").mkdir()
        assert read_migration(self.host(**facts), wanted(method="rsync")).entries == {"new/old": ""}
        (tmp_path / "fs" / "1" / "folder" / "mine").write_text("")
        assert read_migration(self.host(**facts), wanted(method="rsync")).entries == {"new/old": "folder/mine"}
        assert mounts == [Mount("new/old", write)] * 2

    def test_not_what_rsync_has_made_nor_what_can_not_be_read(self, mounts: list[Mount]) -> None:
        own = self.host()
        own.datasets["new/old"]["nasops.encryption:migration-copied"] = ("6 7 8", "local")
        for fake in (own, self.host(keystatus="unavailable"), self.host(type="volume")):
            assert read_migration(fake, wanted(method="rsync")).entries == {}
        assert mounts == []

    @pytest.mark.parametrize("parts", [{"exclude": ["old/docs"]}, {"include": ["old/other"]}])
    def test_not_what_is_left_out(self, mounts: list[Mount], parts: dict[str, list[str]]) -> None:
        fake = self.host()
        fake.datasets["new/old/docs"] = fake.datasets["new/old"]
        assert read_migration(fake, wanted(method="rsync", **parts)).entries == {"new/old": ""}
        assert mounts == [Mount("new/old")]

    def test_one_that_can_not_be_looked_at(self, mounts: list[Mount], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(path: bytes) -> list[bytes]:
            raise OSError(5, "Input/output error", path)

        monkeypatch.setattr(os, "listdir", broken)
        with pytest.raises(Unreadable, match="/1' can't be read: Input/output error"):
            read_migration(self.host(), wanted(method="rsync"))

    def test_the_size_that_a_volume_had(self, mounts: list[Mount]) -> None:
        fake = Fake()
        fake.snapshots["old/docs@a"]["volsize"] = ("4096", "-")
        (one,) = read_migration(fake, wanted(method="rsync")).ends.source.of("old/docs")
        assert one.volsize == "4096"
        assert read_migration(fake, wanted()).ends.source.of("old/docs")[0].volsize == ""

    def test_which_dataset_it_is_and_how_it_is_compressed_is_read_of_both_ends(self, mounts: list[Mount]) -> None:
        also = read_migration(Fake("off"), wanted(method="rsync")).wanted.also_read
        assert {"guid", "compression", "volsize"} <= set(also)

    def test_streams_need_none_of_it(self, mounts: list[Mount]) -> None:
        fake = self.host()
        fake.snapshots["new/old@a"] = {"guid": ("5", "-"), "createtxg": ("3", "-")}
        assert read_migration(fake, wanted()).entries == {}
        assert mounts == []

    def test_what_the_host_of_the_target_lacks_counts_too(
        self, mounts: list[Mount], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = self.host()
        far = RemoteRunner(fake, Ssh("nas2"), "/run")
        monkeypatch.setattr(migration_read, "far_end", lambda runner: far)
        monkeypatch.setattr(migration_read, "lacking_there", lambda there: (f"{there.host} has no rsync",))
        found = read_migration(fake, wanted(method="rsync"))
        assert found.lacking == ("nas2 has no rsync",)
        # Nothing could be mounted there, say.
        assert mounts == []
        with pytest.raises(Refused, match="nas2 has no rsync"):
            plan_migration(wanted(method="rsync"), found)

    def test_it_is_for_linux(self) -> None:
        (fault,) = lacking_for_rsync(RecordedRunner(), "freebsd13")
        assert "'method: rsync' is for Linux" in fault

    def test_all_that_is_missing_is_told(self) -> None:
        faults = lacking_for_rsync(RecordedRunner(missing=("unshare", "rsync")), "linux")
        assert [one.split(" are missing", maxsplit=1)[0] for one in faults] == [
            "The programs unshare",
            "The programs rsync",
        ]

    def test_nothing_is_missing(self) -> None:
        argv = ("rsync", "--version")
        said = answer(argv, "rsync  version 3.2.7  protocol version 32\nhardlinks, ACLs, xattrs")
        assert lacking_for_rsync(RecordedRunner({argv: said}), "linux") == ()
