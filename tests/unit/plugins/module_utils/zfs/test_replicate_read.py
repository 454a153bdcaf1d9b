# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read at both ends, from texts in the form that zfs and zpool print them."""

from __future__ import annotations

import subprocess
import time
import typing as t
import zlib

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.remote import Ssh
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import ProgressFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_read import read_ends, read_key_file
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_state import Snapshot, Token
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import NoSuchDataset

from .replicate_model import wish

Values = dict[str, dict[str, str]]


class Fake(ReplicaRunner):
    """A host with these datasets, snapshots and pools."""

    def __init__(self, datasets: Values, snapshots: Values, pools: Values | None = None) -> None:
        super().__init__(Mask(), ProgressFile(None))
        self.datasets = datasets
        self.snapshots = snapshots
        self.pools = pools or {"tank": {"health": "ONLINE", "guid": "1"}, "backup": {"health": "ONLINE", "guid": "2"}}
        self.special: dict[str, Result] = {}
        self.commands: list[tuple[str, ...]] = []

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        argv = command.argv
        self.commands.append(argv)
        known = [result for words, result in self.special.items() if words in " ".join(argv)]
        result = known[0] if known else self._answer(argv)
        if result.rc not in ok:
            raise CommandError(result)
        return result

    def start(self, command: Command, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        raise AssertionError("nothing is to be sent")

    def _answer(self, argv: tuple[str, ...]) -> Result:
        if argv[:2] == ("zpool", "sync"):
            return Result(argv, 0, "", "")
        if argv[0] == "zpool":
            return Result(argv, 0, self._table(self.pools, argv[-1].split(",")), "")
        properties, top = argv[-2].split(","), argv[-1]
        if top not in self.datasets:
            return Result(argv, 1, "", f"cannot open '{top}': dataset does not exist")
        if "snapshot,bookmark" in argv:
            below = {name: one for name, one in self.snapshots.items() if name.startswith(top)}
            return Result(argv, 0, self._table(below, properties), "")
        recursive = "-r" in argv
        names = {
            name: one
            for name, one in self.datasets.items()
            if name == top or (recursive and name.startswith(f"{top}/"))
        }
        return Result(argv, 0, self._table(names, properties), "")

    @staticmethod
    def _table(values: Values, properties: t.Sequence[str]) -> str:
        return "".join(
            f"{name}\t{word}\t-\t{found.get(word, '-')}\n" for name, found in values.items() for word in properties
        )


def snapshot(guid: str, createtxg: str, ivset: str = "-") -> dict[str, str]:
    return {"guid": guid, "createtxg": createtxg, "ivsetguid": ivset}


DATASETS = {"tank": {"type": "filesystem", "encryption": "off"}, "backup": {"type": "filesystem", "encryption": "off"}}


def test_snapshots_and_bookmarks_oldest_first() -> None:
    found = {"tank@b": snapshot("12", "9", "77"), "tank@a": snapshot("11", "5"), "tank#m": snapshot("10", "2")}
    ends = read_ends(Fake(DATASETS, found), wish())
    assert ends.source.of("tank") == (Snapshot("a", "11", 5), Snapshot("b", "12", 9, "77"))
    assert ends.source.bookmarks == {"tank": (Snapshot("m", "10", 2),)}


def test_a_target_that_is_not_there_is_read_with_what_lies_above() -> None:
    own = Fake(DATASETS, {})
    ends = read_ends(own, wish())
    assert set(ends.target.datasets) == {"backup"}
    assert len(own.commands) == 6, "two of zpool, two for the source, one for the target and one for what is above"


def test_nothing_to_do_takes_six_processes() -> None:
    own = Fake({**DATASETS, "backup/tank": {"type": "filesystem"}}, {"backup/tank@a": snapshot("1", "1")})
    read_ends(own, wish())
    assert len(own.commands) == 6
    assert own.commands[0] == ("zpool", "sync", "tank"), "what was written a moment ago has to show"


def test_a_pool_that_does_not_answer_is_not_asked() -> None:
    own = Fake(DATASETS, {}, {"tank": {"health": "ONLINE"}, "backup": {"health": "SUSPENDED"}})
    with pytest.raises(Refused, match="pool 'backup' is SUSPENDED"):
        read_ends(own, wish())


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(NoSuchDataset, match="tank"):
        read_ends(Fake({}, {}), wish())


CONTENTS = """resume token contents:
nvlist version: 0
\tobject = 0x80
\toffset = 0x0
\tbytes = 0x50a10
\ttoguid = 0x10
\ttoname = tank@a
\tcompressok = 1
\trawok = 1
full\ttank@a\t3000
"""


def test_a_token_is_understood_by_the_source() -> None:
    own = Fake({**DATASETS, "backup/tank": {"type": "filesystem", "receive_resume_token": "1-ab"}}, {})
    own.special["send -nvP -t 1-ab"] = Result((), 0, CONTENTS, "")
    assert read_ends(own, wish()).target.tokens == {"backup/tank": Token("1-ab", "16", True)}
    own.special["send -nvP -t 1-ab"] = Result((), 0, "", CONTENTS.replace("\trawok = 1\n", ""))
    assert read_ends(own, wish()).target.tokens == {"backup/tank": Token("1-ab", "16", False)}
    gone = "cannot resume send: 'tank@a' is no longer the same snapshot used in the initial send\n"
    own.special["send -nvP -t 1-ab"] = Result((), 1, CONTENTS, gone)
    (token,) = read_ends(own, wish()).target.tokens.values()
    assert token.stale == gone.strip()
    own.special["send -nvP -t 1-ab"] = Result((), 255, "", "")
    (token,) = read_ends(own, wish()).target.tokens.values()
    assert token.stale == "zfs does not understand it"


def token_of(contents: str, value: str = "1-ab") -> Token:
    own = Fake({**DATASETS, "backup/tank": {"type": "filesystem", "receive_resume_token": value}}, {})
    own.special[f"send -nvP -t {value}"] = Result((), 0, contents, "")
    (token,) = read_ends(own, wish()).target.tokens.values()
    return token


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("toname = tank@a", "toname = tank@a\n\trawok = 1"),
        ("toname = tank@a", "toname = other@a\n\ttoname = tank@a"),
        ("toname = tank@a", "toname = tank@a\n\ttoguid = 0x11"),
        ("rawok = 1", "rawok = 1x"),
        ("toguid = 0x10", "toguid = 0x10 "),
        ("\ttoname = tank@a\n", ""),
    ],
)
def test_a_token_whose_strings_pretend_to_be_other_values_is_not_used(before: str, after: str) -> None:
    token = token_of(CONTENTS.replace(before, after))
    assert (token.raw, token.guid) == (False, "")
    assert token.stale == "its contents are not as zfs makes them"


def test_a_token_that_is_not_raw_does_not_pass_as_raw() -> None:
    forged = "tank@a\n\trawok = 1"
    packed = b"\x00\x00\x00\x07toname\x00" + forged.encode("ascii") + b"\x00"
    value = f"1-ab-{len(packed):x}-{zlib.compress(packed).hex()}"
    # What zfs prints of it is the same as of a raw one.
    assert token_of(CONTENTS).raw
    token = token_of(CONTENTS, value)
    assert not token.raw
    assert token.stale
    assert not token_of(CONTENTS.replace("\trawok", "rawok")).raw


@pytest.mark.parametrize("name", ["tank/other@a", "tank", "tank@", "tank@a\x1b[2J", "tank@a@b"])
def test_a_token_of_something_else_is_not_used(name: str) -> None:
    assert token_of(CONTENTS.replace("tank@a\n\tcomp", f"{name}\n\tcomp")).stale == "it is not of a snapshot of 'tank'"


@pytest.mark.parametrize("mode", ["raw", "reencrypt"])
def test_a_replica_that_may_be_made_anew_is_read_as_a_new_one(mode: str) -> None:
    own = Fake({**DATASETS, "backup/tank": {"type": "filesystem", "receive_resume_token": "1-ab"}}, {})
    own.special["send -nvP -t 1-ab"] = Result((), 0, CONTENTS, "")
    own.special["sh -c"] = Result((), 3, "", "")
    own.target = own
    key = WantedKey("hex", None, "/k") if mode == "reencrypt" else None
    target = read_ends(own, wish(mode=mode, key=key, ssh=Ssh("nas2"))).target
    assert set(target.datasets) == {"backup", "backup/tank"}
    assert list(target.key_files) == ([] if key is None else ["tank"])
    own.snapshots = {"backup/tank@a": snapshot("1", "1")}
    assert read_ends(own, wish(mode=mode, key=key, ssh=Ssh("nas2"))).target.key_files == {}


def test_the_key_files_of_all_replicas_that_are_still_to_be_made() -> None:
    own = Fake(DATASETS, {})
    own.special["sh -c"] = Result((), 3, "", "")
    keys = {"tank/a": WantedKey("hex", None, "/a"), "tank/b": WantedKey("hex", Key("hex", b"a1" * 32))}
    wanted = wish(mode="reencrypt", key=WantedKey("hex", None, "/k"), keys=keys, ssh=Ssh("nas2"))
    found = read_ends(own, wanted).target.key_files
    assert {name: file.path for name, file in found.items()} == {"tank": "/k", "tank/a": "/a"}
    own.datasets = {**DATASETS, "backup/tank": {"type": "filesystem"}}
    own.snapshots = {"backup/tank@a": snapshot("1", "1")}
    assert list(read_ends(own, wanted).target.key_files) == ["tank/a"]


@pytest.mark.parametrize("generate", [True, False])
def test_whether_a_new_key_would_be_in_memory_at_the_target(generate: bool) -> None:
    own = Fake(DATASETS, {})
    own.special['test -e "$1"'] = Result((), 3, "", "")
    own.special["uname"] = Result(
        (), 0, "FreeBSD\nFilesystem 512-blocks Used Avail Capacity Mounted on\ntmpfs 9 1 8 1% /etc\n", ""
    )
    own.target = own
    wanted = wish(mode="reencrypt", key=WantedKey("hex", None, "/etc/k", generate), ssh=Ssh("nas2"))
    file = read_key_file(own, wanted, "tank")
    assert file is not None and (file.exists, file.memory) == (False, "tmpfs" if generate else "")
    # A file that is there costs no program more.
    assert len(own.commands) == 1 + generate


def test_a_stream_that_is_just_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Fake({**DATASETS, "backup/tank": {"type": "filesystem"}}, {})
    own.special["send -nvP -t 1-ab"] = Result((), 0, CONTENTS, "")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            own.datasets["backup/tank"]["receive_resume_token"] = "1-ab"

    monkeypatch.setattr(time, "sleep", sleep)
    assert read_ends(own, wish()).target.tokens
    assert len(waited) == 2
    del own.datasets["backup/tank"]["receive_resume_token"]
    waited[:] = [0.0] * 9
    assert read_ends(own, wish()).target.tokens == {}
    assert len(waited) < 20, "it does not wait for ever"


@pytest.mark.parametrize(
    ("said", "can"),
    [
        ("zfs-2.3.2-2\nzfs-kmod-2.3.2-2\n", True),
        ("zfs-2.1.15-1\n", False),
        ("zfs-2.2.0-FreeBSD_g1\n", True),
        ("?", False),
    ],
)
def test_whether_datasets_can_be_left_out_of_a_tree(said: str, can: bool) -> None:
    own = Fake({**DATASETS, "tank/a": {"type": "filesystem"}}, {})
    own.special["zfs version"] = Result((), 0, said, "")
    assert read_ends(own, wish(exclude=("tank/a",))).source.can_exclude is can


def test_what_goes_wrong_at_the_other_host_names_it() -> None:
    own, there = Fake(DATASETS, {}), Fake({}, {}, {"tank": {"health": "ONLINE"}, "backup": {"health": "FAULTED"}})
    own.target = there
    with pytest.raises(StorageError, match="On the target host 'nas2': The pool 'backup' is FAULTED"):
        read_ends(own, wish(ssh=Ssh("nas2")))


class TestKeyFileOfTheOtherHost:
    wanted = wish(mode="reencrypt", ssh=Ssh("nas2"), key=WantedKey("hex", None, "/k"))

    def there(self, result: Result) -> Fake:
        own = Fake(DATASETS, {})
        own.special["sh -c"] = result
        return own

    def test_its_content(self) -> None:
        text = ("61" * 16 + "\n") * 4 + "0a\n"
        found = read_key_file(self.there(Result((), 0, text, "")), self.wanted, "tank")
        assert found is not None
        assert found.exists
        assert found.key is not None
        assert found.key.material == b"a" * 64

    def test_none(self) -> None:
        found = read_key_file(self.there(Result((), 3, "", "")), self.wanted, "tank")
        assert found is not None
        assert not found.exists

    def test_something_else_and_it_is_not_shown(self) -> None:
        found = read_key_file(self.there(Result((), 0, "73 65 63 72 65 74\n", "")), self.wanted, "tank")
        assert found is not None
        assert "6 characters" in found.fault
        with pytest.raises(StorageError) as caught:
            read_key_file(self.there(Result((), 1, "73 65 63 72 65 74\n", "")), self.wanted, "tank")
        assert "73 65" not in str(caught.value) + str(caught.value.details)
