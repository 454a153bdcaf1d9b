# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils import filesystem
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, generate
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

HEX = Key("hex", b"0f" * 32)
HEADER = "Filesystem     1024-blocks    Used Available Capacity Mounted on\n"


def df(line: str = "/dev/vda1       10255636 2345678   7369958      25% /") -> RecordedRunner:
    def answer(command: Command) -> Result:
        assert command.argv[:2] == ("df", "-P")
        return said(command, stdout=f"{HEADER}{line}\n")

    return RecordedRunner(default=answer)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestPaths:
    def test_auto_is_a_file_named_after_the_dataset(self) -> None:
        assert keystore.path_for("auto", "tank/my data") == "/etc/zfs/keys/tank%2Fmy%20data.key"
        assert keystore.path_for("auto", "tank", "/root/k") == "/root/k/tank.key"

    @pytest.mark.parametrize(
        "given_path,path",
        [
            ("/root/a key", "/root/a key"),
            ("/root//a/../k", "/root/k"),
            ("/root/keys/", "/root/keys"),
            ("/auto", "/auto"),
        ],
    )
    def test_an_absolute_path_is_normalised(self, given_path: str, path: str) -> None:
        assert keystore.path_for(given_path, "tank") == path

    @pytest.mark.parametrize("option", ["", "key", "./key", "../key", "file:///root/key", "~/key", "/", "/a/.."])
    def test_everything_else_is_refused(self, option: str) -> None:
        with pytest.raises(BadInput, match="wanted is an absolute path of a file, or 'auto'"):
            keystore.path_for(option, "tank")

    @pytest.mark.parametrize("option", ["/root/a\nb", "/root/a\tb", "/root/\0"])
    def test_control_characters_are_refused(self, option: str) -> None:
        with pytest.raises(BadInput, match="control character"):
            keystore.path_for(option, "tank")

    @given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1))
    def test_a_path_survives_the_way_through_a_keylocation(self, name: str) -> None:
        path = "/" + name
        assert keystore.path_of(keystore.location_of(path)) == path

    @pytest.mark.parametrize(
        "location", ["prompt", "none", "-", "https://host/key", "file://host/key", "file:/key", ""]
    )
    def test_other_locations_have_no_path(self, location: str) -> None:
        assert keystore.path_of(location) is None

    @pytest.mark.parametrize(
        "location,shown",
        [
            ("prompt", "prompt"),
            ("file:///root/user@host:key", "file:///root/user@host:key"),
            ("https://keys.example.org/tank", "https://keys.example.org/tank"),
            ("https://me:secret@keys.example.org:8443/tank?x=1", "https://keys.example.org:8443/tank?x=1"),
            ("https://[broken/key", "https://[broken/key"),
            ("https://me:p@ss@host/key", "https://host/key"),
            ("http://token@keys.example.org/a@b", "http://keys.example.org/a@b"),
        ],
    )
    def test_credentials_in_a_location_are_not_shown(self, location: str, shown: str) -> None:
        assert keystore.describe_location(location) == shown


class TestStore:
    @pytest.mark.parametrize(
        "key",
        [HEX, Key("raw", bytes(range(32))), Key("passphrase", "schlüssel wort".encode())],
        ids=lambda key: key.format,
    )
    def test_the_file_holds_what_zfs_reads_and_is_for_its_owner_alone(self, tmp_path: Path, key: Key) -> None:
        path = tmp_path / "keys" / "tank.key"
        keystore.store(str(path), key)
        assert path.read_bytes() == key.file_content()
        assert mode(path) == 0o400
        assert mode(path.parent) == 0o700
        assert [entry.name for entry in path.parent.iterdir()] == ["tank.key"]
        found = keystore.read(df(), str(path), key.format)
        assert (found.exists, found.key, found.fault, found.exposed) == (True, key, "", False)

    def test_all_missing_folders_are_private(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            keystore.store(str(tmp_path / "a/b/c/tank.key"), HEX)
        finally:
            os.umask(old)
        assert [mode(tmp_path / folder) for folder in ("a", "a/b", "a/b/c")] == [0o700] * 3
        assert mode(tmp_path / "a/b/c/tank.key") == 0o400

    def test_a_folder_that_exists_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "keys").mkdir(mode=0o755)
        (tmp_path / "keys").chmod(0o755)
        keystore.store(str(tmp_path / "keys" / "tank.key"), HEX)
        assert mode(tmp_path / "keys") == 0o755

    def test_what_a_run_that_was_killed_left_is_gone_after_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a file needs a name to be written, as on FreeBSD."""
        monkeypatch.setattr(os, "O_TMPFILE", 0, raising=False)
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(os, "unlink", lambda _path: os.kill(os.getpid(), signal.SIGKILL))
            keystore.store(str(tmp_path / "a.key"), HEX)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        (left,) = [name for name in os.listdir(tmp_path) if name != "a.key"]
        foreign = f"{left}.txt"
        (tmp_path / foreign).touch()
        keystore.store(str(tmp_path / "b.key"), HEX)
        assert sorted(os.listdir(tmp_path)) == sorted([foreign, "a.key", "b.key"])

    def test_many_write_at_once_where_something_was_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "O_TMPFILE", 0, raising=False)
        mine = tmp_path / f".nasops-{os.getpid()}-abcdefgh"
        mine.touch()
        for number in range(20):
            (tmp_path / f".nasops-4194305{number}-abcdefgh").touch()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: keystore.store(f"{tmp_path}/{number}.key", HEX), range(40)))
        assert sorted(os.listdir(tmp_path)) == sorted([mine.name, *(f"{number}.key" for number in range(40))])

    @pytest.mark.parametrize("content", [b"", b"the only copy of another key\n"])
    def test_a_key_file_is_never_overwritten(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "tank.key"
        path.write_bytes(content)
        with pytest.raises(Refused, match="already exists and is never overwritten"):
            keystore.store(str(path), HEX)
        assert path.read_bytes() == content
        assert [entry.name for entry in tmp_path.iterdir()] == ["tank.key"]

    def test_nor_is_a_link_that_leads_nowhere_followed(self, tmp_path: Path) -> None:
        (tmp_path / "tank.key").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(Refused):
            keystore.store(str(tmp_path / "tank.key"), HEX)
        assert not (tmp_path / "elsewhere").exists()
        assert [entry.name for entry in tmp_path.iterdir()] == ["tank.key"]

    def test_a_file_in_place_of_its_folder_is_not_taken_for_the_key(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StorageError, match="can't be written") as caught:
            keystore.store(str(tmp_path / "file" / "tank.key"), HEX)
        assert not isinstance(caught.value, Refused)
        assert (tmp_path / "file").read_text() == "mine"

    def test_nothing_is_left_when_writing_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="can't be written: No space left on device") as caught:
            keystore.store(str(tmp_path / "tank.key"), HEX)
        assert list(tmp_path.iterdir()) == []
        assert "0f0f" not in str(caught.value)

    def test_the_file_the_name_and_the_folder_are_synced_before_it_returns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[str, bool]] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            synced.append((os.path.relpath(target, tmp_path), (tmp_path / "a/b/tank.key").exists()))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        keystore.store(str(tmp_path / "a/b/tank.key"), HEX)
        names = [name for name, _there in synced]
        # Both new folders through their parents, the content before the name is given, the name through its folder.
        assert names[:2] == [".", "a"]
        assert names[2].startswith("a/b/")
        assert synced[2][1] is False
        assert synced[3:] == [("a/b", True)]

    def test_the_action_writes_the_given_key(self, tmp_path: Path) -> None:
        keystore.store_work(str(tmp_path / "k"), HEX, "hex")(RecordedRunner())
        assert (tmp_path / "k").read_bytes() == HEX.file_content()

    @pytest.mark.parametrize("key_format", ["hex", "raw", "passphrase"])
    def test_or_a_new_one_each_time(self, tmp_path: Path, key_format: str) -> None:
        for name in "ab":
            keystore.store_work(str(tmp_path / name), None, key_format)(RecordedRunner())
            assert keystore.read(df(), str(tmp_path / name), key_format).key is not None
        assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


class TestRead:
    def test_a_missing_file_is_not_a_fault(self, tmp_path: Path) -> None:
        found = keystore.read(df(), str(tmp_path / "none" / "tank.key"), "hex")
        assert found == keystore.KeyFile(str(tmp_path / "none" / "tank.key"), False, source="/dev/vda1")

    @pytest.mark.parametrize(
        "key_format,content,fault",
        [
            ("hex", b"", "it has 0 characters"),
            ("hex", b"0f" * 31 + b"0\n", "it has 63 characters"),
            ("hex", b"0f" * 32 + b"\r\n", "blanks or line breaks around the digits"),
            ("hex", b"0g" * 32, "characters other than"),
            ("raw", b"0" * 33, "holds 33 bytes"),
            ("raw", b"", "holds 0 bytes"),
            ("passphrase", b"seven77\n", "holds 7 bytes"),
            ("passphrase", b"x" * 513, "holds 513 bytes"),
            ("passphrase", b"two\nlines of it\n", "line break"),
            ("passphrase", b"x" * 1_000_000, "a passphrase has 8 to 512 bytes"),
        ],
    )
    def test_what_is_wrong_with_its_content_is_told(
        self, tmp_path: Path, key_format: str, content: bytes, fault: str
    ) -> None:
        path = tmp_path / "tank.key"
        path.write_bytes(content)
        path.chmod(0o400)
        found = keystore.read(df(), str(path), key_format)
        assert (found.exists, found.key, found.exposed) == (True, None, False)
        assert fault in found.fault
        assert str(path) in found.fault

    @pytest.mark.parametrize(
        "bits,exposed", [(0o400, False), (0o600, False), (0o440, True), (0o604, True), (0o644, True)]
    )
    def test_a_file_that_others_can_read_is_exposed(self, tmp_path: Path, bits: int, exposed: bool) -> None:
        path = tmp_path / "tank.key"
        path.write_bytes(HEX.file_content())
        path.chmod(bits)
        found = keystore.read(df(), str(path), "hex")
        assert (found.key, found.exposed) == (HEX, exposed)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        def give_up(_number: int, _frame: object) -> None:
            raise TimeoutError

        os.mkfifo(tmp_path / "pipe")
        before = signal.signal(signal.SIGALRM, give_up)
        signal.alarm(60)
        try:
            assert keystore.read(df(), str(tmp_path / "pipe"), "hex").fault == "it is not a regular file"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def test_a_folder_is_not_a_key(self, tmp_path: Path) -> None:
        found = keystore.read(df(), str(tmp_path), "hex")
        assert (found.exists, found.key, found.fault) == (True, None, "it is not a regular file")

    def test_a_file_in_place_of_a_folder_is_a_fault(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found = keystore.read(df(), str(tmp_path / "file" / "tank.key"), "hex")
        assert (found.exists, found.key) == (True, None)
        assert "can't be read (Not a directory)" in found.fault

    def test_the_key_is_in_no_repr(self, tmp_path: Path) -> None:
        path = tmp_path / "tank.key"
        path.write_bytes(HEX.file_content())
        assert "0f0f" not in repr(keystore.read(df(), str(path), "hex"))


class TestFilesystem:
    @pytest.mark.parametrize(
        "line,source",
        [
            ("/dev/vda1       10255636 2345678   7369958      25% /", "/dev/vda1"),
            ("tank/keys          74240     128     74112       1% /tank/keys", "tank/keys"),
            ("tank/my keys       74240     128     74112       1% /tank/my keys", "tank/my keys"),
            ("tank/a 1 2 3       74240     128     74112       1% /tank/a 1 2 3", "tank/a 1 2 3"),
            ("tank/full              0     128      -128     100% /tank/full", "tank/full"),
            ("udev                   0       0         0        - /dev", "udev"),
            ("zroot/ROOT/default  9437184 2097152   7340032    22%    /", "zroot/ROOT/default"),
        ],
    )
    def test_where_a_file_lies_is_known_by_df(self, tmp_path: Path, line: str, source: str) -> None:
        assert keystore.read(df(line), str(tmp_path / "tank.key"), "hex").source == source

    def test_what_is_in_memory_is_told_without_another_program(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keystore, "memory_of", filesystem.memory_of)
        monkeypatch.setattr(sys, "platform", "freebsd13")
        runner = df("tmpfs 65536 100 65436 1% /etc")
        files = keystore.read_many(runner, [(str(tmp_path / name), "hex", True) for name in ("a", "b")])
        assert [one.memory for one in files] == ["tmpfs", "tmpfs"]
        assert len(runner.argvs) == 1
        with pytest.raises(Refused, match=r"would exist in .*/a only. That is in memory \(tmpfs\)") as caught:
            keystore.refuse_memory("tank", files[0])
        assert "'file: /data/keys/tank.key'" in caught.value.hint
        assert keystore.read(df(), str(tmp_path / "a"), "hex").memory == ""

    @pytest.mark.parametrize(
        "source,volume",
        [
            ("/dev/zd0", "tank/v"),
            ("/dev/zd16p1", "tank/my v"),
            ("/dev/zd32", "/dev/zd32"),
            ("/dev/zvol/tank/v", "/dev/zvol/tank/v"),
            ("/dev/sda1", "/dev/sda1"),
        ],
    )
    def test_a_filesystem_on_a_volume_lies_on_that(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, volume: str
    ) -> None:
        nodes = tmp_path / "zvol" / "tank"
        nodes.mkdir(parents=True)
        for name, target in (("v", "/dev/zd0"), ("my+v", "/dev/zd16"), ("my+v-part1", "/dev/zd16p1")):
            (nodes / name).symlink_to(target)
        monkeypatch.setattr(keystore, "_VOLUMES", f"{tmp_path}/zvol/")
        runner = df(f"{source} 1000 100 900 10% /srv")
        assert keystore.read(runner, str(tmp_path / "tank.key"), "hex").source == volume

    def test_on_freebsd_it_is_named(self, tmp_path: Path) -> None:
        runner = df("/dev/zvol/tank/v 1000 100 900 10% /srv")
        assert keystore.read(runner, str(tmp_path / "tank.key"), "hex").source == "tank/v"

    def test_the_nearest_folder_that_exists_is_asked_for(self, tmp_path: Path) -> None:
        runner = df()
        keystore.read(runner, str(tmp_path / "none" / "deeper" / "tank.key"), "hex")
        assert runner.argvs == [("df", "-P", str(tmp_path))]

    def test_links_are_followed_to_where_the_file_really_lies(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        runner = df()
        keystore.read(runner, str(tmp_path / "link" / "tank.key"), "hex")
        assert runner.argvs == [("df", "-P", os.path.realpath(tmp_path / "real"))]

    @pytest.mark.parametrize("text", ["", "df: strange\n", HEADER])
    def test_another_answer_is_not_taken_for_outside_the_pool(self, tmp_path: Path, text: str) -> None:
        runner = RecordedRunner(default=lambda command: said(command, stdout=text, rc=1))
        with pytest.raises(StorageError, match="not to be found out"):
            keystore.read(runner, str(tmp_path / "tank.key"), "hex")


@given(st.sampled_from(["hex", "raw", "passphrase"]))
def test_a_generated_key_is_in_no_repr_of_its_file(key_format: str) -> None:
    key = generate(key_format)
    shown = repr(keystore.KeyFile("/k", True, key))
    assert key.material.hex() not in shown
    assert key.material.decode("latin-1") not in shown
