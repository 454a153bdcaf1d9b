# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import state
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import (
    ENCRYPTION_PROPERTIES,
    MOUNT_PROPERTIES,
    Dataset,
    NoSuchDataset,
    Pool,
    ZfsUnavailable,
    key_opens,
    mount_obstacle,
    mount_tree,
    read_datasets,
    read_importable,
    read_pool_properties,
    read_trees,
    require_root,
    run_zfs,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.status import Vdev
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

NOT_LOADED = "The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.\n"
NO_DEVICE = "Unable to open /dev/zfs: Permission denied.\n"


def failing(stderr: str, rc: int = 1) -> RecordedRunner:
    return RecordedRunner(default=lambda command: said(command, stderr=stderr, rc=rc))


def printing(stdout: str) -> RecordedRunner:
    return RecordedRunner(default=lambda command: said(command, stdout=stdout))


class Zfs:
    """``zfs get`` and ``zpool get`` of values in memory: properties come in the order they are asked for."""

    def __init__(self, values: dict[str, dict[str, str]]) -> None:
        self.values = values

    def __call__(self, command: Command) -> Result:
        words = command.argv
        asked = next(
            word for word in words if "," in word and word not in ("filesystem,volume", "name,property,source,value")
        )
        lines = []
        for name, properties in self.values.items():
            for one in asked.split(","):
                value = properties.get(one)
                lines.append(
                    f"{name}\t{one}\t{'local' if value is not None else '-'}\t{value if value is not None else '-'}\n"
                )
        return said(command, stdout="".join(lines))


def read(values: dict[str, dict[str, str]], *names: str) -> dict[str, dict[str, str]]:
    """What read_datasets makes of it."""
    found = read_datasets(RecordedRunner(default=Zfs(values)), tuple(values), names, recursive=True)
    return {name: {one: dataset.value(one) for one in names} for name, dataset in found.items()}


class TestErrors:
    @pytest.mark.parametrize(
        "stderr",
        [
            NOT_LOADED,
            "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.\n",
            "internal error: failed to initialize the libzfs library\ninitialize the libzfs library: No such file\n",
        ],
    )
    def test_without_the_kernel_module_nothing_is_known(self, stderr: str) -> None:
        for call in (
            lambda runner: run_zfs(runner, Command(("zfs", "list"))),
            read_pool_properties,
            read_trees,
            read_importable,
            lambda runner: read_datasets(runner, ("tank",), ("type",)),
        ):
            with pytest.raises(ZfsUnavailable, match="kernel module is not loaded") as caught:
                call(failing(stderr))
            assert "modprobe zfs" in caught.value.hint
            assert caught.value.details["stderr"] == stderr

    @pytest.mark.parametrize(
        "stderr",
        [NO_DEVICE, "cannot open '/dev/zfs': No such file or directory\n", "This command must be run as root.\n"],
    )
    def test_without_access_nothing_is_known_either(self, stderr: str) -> None:
        with pytest.raises(ZfsUnavailable, match="no access to /dev/zfs"):
            read_pool_properties(failing(stderr))

    def test_without_the_program_there_is_no_zfs(self) -> None:
        runner = RecordedRunner(missing=("zpool", "zfs"))
        with pytest.raises(
            ZfsUnavailable, match="There is no ZFS on this host: the program 'zpool' was not found"
        ) as caught:
            read_pool_properties(runner)
        assert "zfsutils-linux" in caught.value.hint

    @pytest.mark.parametrize(
        "stderr", ["cannot open 'tank/x': dataset does not exist\n", "cannot open 'tank': no such pool\n"]
    )
    def test_a_missing_dataset_is_another_matter(self, stderr: str) -> None:
        with pytest.raises(NoSuchDataset) as caught:
            read_datasets(failing(stderr), ("tank/x",), ("type",))
        assert stderr.strip() in caught.value.message

    @pytest.mark.parametrize(
        "stderr", ["bad property list: invalid property 'zoneduid'\n", "invalid property 'foo'\nusage:\n\tget ...\n"]
    )
    def test_so_is_a_property_that_this_version_does_not_have(self, stderr: str) -> None:
        with pytest.raises(BadInput) as caught:
            read_datasets(failing(stderr, rc=2), ("tank",), ("type", "zoneduid"))
        assert caught.value.message == stderr.split("\n")[0] + "."
        with pytest.raises(BadInput):
            read_pool_properties(failing(stderr, rc=2), ("foo",))

    def test_everything_else_stays_the_error_of_the_program(self) -> None:
        for call in (read_trees, read_importable, read_pool_properties):
            with pytest.raises(CommandError, match="I/O error"):
                call(failing("cannot read: I/O error\n"))

    @pytest.mark.parametrize("uid", [1, 1000, 65534])
    def test_another_user_than_root_is_told_so(self, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        with pytest.raises(ZfsUnavailable, match=f"runs as user {uid}; pools, keys and disks need root") as caught:
            require_root()
        assert "become: true" in caught.value.hint

    def test_root_is_fine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        require_root()


class TestPools:
    def test_no_pool_is_not_an_error(self) -> None:
        assert read_pool_properties(failing("no pools available\n")) == {}
        assert read_pool_properties(printing("")) == {}
        assert read_importable(failing("no pools available to import\n")) == ()
        assert read_trees(printing("no pools available\n")) == {}

    def test_all_pools_are_read_in_one_process(self) -> None:
        runner = RecordedRunner(
            default=Zfs(
                {
                    "my pool": {"guid": "17", "health": "ONLINE", "comment": "shelf 3"},
                    "tank": {"guid": "18446744073709551615", "health": "DEGRADED", "altroot": "/mnt"},
                }
            )
        )
        found = read_pool_properties(runner, ("comment", "guid"))
        assert len(runner.commands) == 1
        assert found["my pool"]["comment"] == Property("shelf 3", "local")
        assert found["tank"]["guid"].value == "18446744073709551615"
        assert found["tank"]["comment"].value == "-"

    def test_pools_before_2_2_are_not_asked_for_user_properties(self) -> None:
        runner = RecordedRunner(default=Zfs({"tank": {"guid": "1", "health": "ONLINE"}}))
        read_pool_properties(runner, ("comment",))
        assert not any(":" in word for word in runner.argvs[0])

    def test_the_folders_to_search_are_given_to_zpool(self) -> None:
        runner = printing("")
        read_importable(runner, ("/srv/a b", "/srv/c"))
        assert runner.argvs == [("zpool", "import", "-d", "/srv/a b", "-d", "/srv/c")]

    def test_devices_are_told_with_their_role_and_altroot_only_if_set(self) -> None:
        def pool(altroot: str) -> Pool:
            properties = {"altroot": Property(altroot, "local")}
            tree = {
                "data": (
                    Vdev(
                        "mirror",
                        "mirror-0",
                        "ONLINE",
                        (Vdev("disk", "/dev/a", "ONLINE"), Vdev("disk", "/dev/b", "ONLINE")),
                    ),
                ),
                "spare": (Vdev("disk", "draid1-0-0", "AVAIL"), Vdev("disk", "/dev/s", "AVAIL")),
            }
            return Pool("tank", "1", "ONLINE", properties, tree)

        assert list(pool("-").devices()) == [("/dev/a", "data"), ("/dev/b", "data"), ("/dev/s", "spare")]
        assert (pool("-").altroot, pool("/mnt").altroot) == ("", "/mnt")


# Values with everything that could be taken for the end of a line, of a column or of a record.
wild = st.text("ab \t\n-:", max_size=12)


@st.composite
def forgeries(draw: st.DrawFn) -> str:
    """A value that continues with whole lines as zfs prints them."""
    lines = draw(
        st.lists(
            st.builds(
                "{}\t{}\t{}\t{}".format,
                st.sampled_from(["tank", "tank/a", "tank/z", "vault"]),
                st.sampled_from(["type", "encryption", "mountpoint", "keylocation", "org.nasops:note"]),
                st.sampled_from(["-", "local"]),
                st.sampled_from(["filesystem", "aes-256-gcm", "off", "/x", "y"]),
            ),
            max_size=8,
        )
    )
    return "\n".join([draw(wild), *lines, draw(wild)])


NATIVE = ("type", "encryption", "keystatus", "mounted")


class TestDatasets:
    def test_inherited_received_and_missing_values_are_told_apart(self) -> None:
        text = (
            "tank/a\ttype\t-\tfilesystem\ntank/a\tatime\tinherited from tank\toff\n"
            "tank/a\tcompression\treceived\tlz4\ntank/a\tEND\t-\t-\n"
        )

        def answer(command: Command) -> Result:
            mark = command.argv[-2].split(",")[-1]
            return said(command, stdout=text.replace("END", mark))

        (dataset,) = read_datasets(
            RecordedRunner(default=answer), ("tank/a",), ("type", "atime", "compression")
        ).values()
        assert dataset.properties["atime"] == Property("off", "inherited")
        assert dataset.properties["compression"] == Property("lz4", "received")
        assert dataset.properties["type"] == Property("filesystem", "none")
        assert dataset.value("quota") == "-"

    @pytest.mark.parametrize(
        "names,recursive,expected",
        [
            (("tank",), False, ("{}", "tank")),
            (("tank", "my pool"), True, ("-r", "{}", "tank", "my pool")),
            ((), True, ("-r", "{}")),
            ((), False, ("-d", "0", "{}")),
        ],
    )
    def test_one_process_whatever_the_number(
        self, names: tuple[str, ...], recursive: bool, expected: tuple[str, ...]
    ) -> None:
        runner = printing("")
        assert read_datasets(runner, names, ("type",), recursive) == {}
        (argv,) = runner.argvs
        head = ("zfs", "get", "-Hp", "-t", "filesystem,volume", "-o", "name,property,source,value")
        assert argv[: len(head)] == head
        asked = next(word for word in argv[len(head) :] if word.startswith("type"))
        assert argv[len(head) :] == tuple(word.format(asked) for word in expected)

    @pytest.mark.parametrize(
        "number,processors,shares",
        [
            (0, 4, [0]),
            (99, 4, [99]),
            (100, 4, [50, 50]),
            (1000, 4, [250] * 4),
            (1001, 2, [501, 500]),
            (1000, 1, [1000]),
        ],
    )
    def test_many_names_are_shared_out_to_the_cores(
        self, number: int, processors: int, shares: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(state, "cores", lambda: processors)
        names = [f"tank/{one}" for one in range(number)]

        def answer(command: Command) -> Result:
            asked, *part = command.argv[command.argv.index("name,property,source,value") + 1 :]
            if asked == "-d":
                return said(command)
            mark = asked.split(",")[-1]
            return said(command, stdout="".join(f"{one}\ttype\t-\tvolume\n{one}\t{mark}\t-\t-\n" for one in part))

        runner = RecordedRunner(default=answer)
        assert list(read_datasets(runner, names, ("type",))) == names
        found = [sum(word.startswith("tank/") for word in argv) for argv in runner.argvs]
        assert sorted(found, reverse=True) == shares

    def test_one_dataset_that_is_gone_is_told_whatever_the_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(state, "cores", lambda: 2)

        def answer(command: Command) -> Result:
            gone = "tank/99" in command.argv
            return said(command, stderr="cannot open 'tank/99': dataset does not exist" if gone else "", rc=int(gone))

        with pytest.raises(NoSuchDataset, match="tank/99"):
            read_datasets(RecordedRunner(default=answer), [f"tank/{one}" for one in range(200)], ("type",))

    def test_no_two_readings_ask_for_the_same_mark(self) -> None:
        runner = printing("")
        for _round in range(2):
            read_datasets(runner, ("tank",), ("type",))
        assert runner.argvs[0] != runner.argvs[1]

    @pytest.mark.parametrize(
        "value", ["two\nlines", "a\n\nb", "\n", "tab\there", "a\t\n\tb", "tank\ttype\t-\tvolume", ""]
    )
    def test_a_value_with_tabs_and_line_breaks_is_read_as_it_is(self, value: str) -> None:
        values = {
            "tank": {"type": "filesystem", "org.nasops:note": value},
            "tank/b": {"type": "volume", "org.nasops:note": "plain"},
        }
        assert read(values, "type", "org.nasops:note") == values

    def test_a_forged_dataset_does_not_pass(self) -> None:
        forged = "x\ntank\ttype\t-\tfilesystem\ntank\tencryption\t-\taes-256-gcm\ntank\torg.nasops:note\tlocal\ty"
        values = {"tank": {"type": "filesystem", "encryption": "off", "org.nasops:note": forged}}
        assert read(values, "type", "encryption", "org.nasops:note") == values

    @given(st.one_of(wild, forgeries()), st.one_of(wild, forgeries()))
    def test_no_value_can_pass_for_another_property_or_dataset(self, note: str, mountpoint: str) -> None:
        plain = {"type": "filesystem", "encryption": "off", "keystatus": "-", "mounted": "no"}
        values = {
            "tank": {**plain, "mountpoint": f"/{mountpoint}", "org.nasops:note": note},
            "tank/a": {**plain, "type": "volume", "mountpoint": "-", "org.nasops:note": "b"},
        }
        found = read(values, *NATIVE, "mountpoint", "org.nasops:note")
        assert list(found) == ["tank", "tank/a"]
        for name, dataset in found.items():
            assert {one: dataset[one] for one in NATIVE} == {one: values[name][one] for one in NATIVE}
        assert found["tank/a"] == values["tank/a"]

    @given(st.one_of(wild, forgeries()))
    def test_one_user_property_is_read_exactly(self, note: str) -> None:
        values = {
            "tank": {"type": "filesystem", "mounted": "yes", "org.nasops:note": note},
            "tank/a": {"type": "volume", "mounted": "-", "org.nasops:note": note},
        }
        assert read(values, "type", "mounted", "org.nasops:note") == values

    @given(st.one_of(wild, forgeries()))
    def test_no_value_of_a_pool_can_pass_for_another_pool(self, note: str) -> None:
        forged = (
            f"{note}\nvault\tguid\t-\t666\nvault\thealth\t-\tONLINE\nvault\taltroot\t-\t-\nvault\torg.nasops:note\t-\tx"
        )
        values = {
            "tank": {"guid": "1", "health": "ONLINE", "org.nasops:note": forged},
            "vault": {"guid": "2", "health": "DEGRADED", "org.nasops:note": "mine"},
        }
        found = read_pool_properties(RecordedRunner(default=Zfs(values)), ("org.nasops:note",))
        assert {name: found[name]["guid"].value for name in found} == {"tank": "1", "vault": "2"}
        assert found["vault"]["health"].value == "DEGRADED"
        assert found["tank"]["org.nasops:note"].value == forged


def dataset(**values: str) -> Dataset:
    return Dataset("tank/a", {name: Property(value, "local") for name, value in values.items()})


class TestDataset:
    def test_an_encryption_root(self) -> None:
        root = dataset(encryption="aes-256-gcm", encryptionroot="tank/a", keystatus="unavailable")
        assert (root.encrypted, root.root, root.is_root, root.locked) == (True, "tank/a", True, True)

    def test_a_child_of_one(self) -> None:
        child = dataset(encryption="aes-256-gcm", encryptionroot="tank", keystatus="available")
        assert (child.encrypted, child.root, child.is_root, child.locked) == (True, "tank", False, False)

    @pytest.mark.parametrize("values", [{"encryption": "off", "encryptionroot": "-", "keystatus": "-"}, {}])
    def test_a_plain_one(self, values: dict[str, str]) -> None:
        plain = dataset(**values)
        assert (plain.encrypted, plain.root, plain.is_root, plain.locked) == (False, "", False, False)

    @pytest.mark.parametrize(
        "kind,canmount,mountpoint,mountable",
        [
            ("filesystem", "on", "/tank/a", True),
            ("filesystem", "noauto", "/tank/a", False),
            ("filesystem", "off", "/tank/a", False),
            ("filesystem", "on", "none", False),
            ("filesystem", "on", "legacy", False),
            ("volume", "-", "-", False),
        ],
    )
    def test_what_asks_to_be_mounted(self, kind: str, canmount: str, mountpoint: str, mountable: bool) -> None:
        assert dataset(type=kind, canmount=canmount, mountpoint=mountpoint).mountable() is mountable

    @pytest.mark.parametrize("platform", ["jailed", "zoned"])
    def test_what_belongs_to_a_jail_is_mounted_there(self, platform: str) -> None:
        for value in ("on", "off"):
            facts = {"type": "filesystem", "canmount": "on", "mountpoint": "/tank/a", platform: value}
            assert dataset(**facts).mountable() is (value == "off")

    @pytest.mark.parametrize("platform,word", [("linux", "zoned"), ("freebsd14", "jailed")])
    def test_only_the_word_of_the_platform_is_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, platform: str, word: str
    ) -> None:
        assert (*ENCRYPTION_PROPERTIES, state._handed_over()) == MOUNT_PROPERTIES
        monkeypatch.setattr(sys, "platform", platform)
        assert state._handed_over() == word


class TestKeyOpens:
    def test_the_key_goes_to_a_dry_run_on_stdin(self) -> None:
        runner = printing("1 / 1 key(s) successfully verified\n")
        assert key_opens(runner, "tank", b"secret words\n", "prompt")
        (command,) = runner.commands
        assert command.argv == ("zfs", "load-key", "-n", "-L", "prompt", "tank")
        assert command.stdin == b"secret words\n"

    def test_a_file_is_read_by_zfs_itself(self) -> None:
        runner = printing("")
        assert key_opens(runner, "tank", None, "file:///etc/zfs/keys/tank.key")
        assert runner.commands[0].argv[4:] == ("file:///etc/zfs/keys/tank.key", "tank")
        assert runner.commands[0].stdin is None

    def test_a_wrong_key_is_an_answer(self) -> None:
        assert not key_opens(
            failing("Key load error: Incorrect key provided for 'tank'.\n", 255), "tank", b"x", "prompt"
        )

    @pytest.mark.parametrize(
        "stderr", ["Key load error: 'tank' is not encrypted.\n", "cannot open 'tank': I/O error\n"]
    )
    def test_anything_else_is_an_error(self, stderr: str) -> None:
        with pytest.raises(CommandError):
            key_opens(failing(stderr), "tank", b"x", "prompt")


class TestMount:
    def test_what_is_in_the_way_of_a_mount(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        assert mount_obstacle(str(tmp_path / "none")) == ""
        assert mount_obstacle(str(tmp_path / "empty")) == ""
        assert mount_obstacle(str(tmp_path / "full")) == f"the mountpoint {tmp_path}/full is not empty"
        assert mount_obstacle(str(tmp_path / "full/file")) == f"there is a file at the mountpoint {tmp_path}/full/file"

    def test_one_entry_is_enough(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextlib.contextmanager
        def scandir(path: str) -> Iterator[Iterator[str]]:
            def entries() -> Iterator[str]:
                yield "one"
                pytest.fail("more was read than the first entry")

            yield entries()

        monkeypatch.setattr(os, "scandir", scandir)
        assert mount_obstacle(str(tmp_path)) == f"the mountpoint {tmp_path} is not empty"

    def test_parents_are_mounted_first_and_only_what_can_and_wants_to_be(self, tmp_path: Path) -> None:
        plain = {"type": "filesystem", "encryption": "off", "canmount": "on", "mounted": "no"}
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        values = {
            "tank": {**plain, "mountpoint": f"{tmp_path}/b"},
            "tank/first": {**plain, "mountpoint": f"{tmp_path}/a"},
            "tank/inside": {**plain, "mountpoint": f"{tmp_path}/a/x"},
            "tank/locked": {**plain, "mountpoint": f"{tmp_path}/c", "keystatus": "unavailable"},
            "tank/there": {**plain, "mountpoint": f"{tmp_path}/d", "mounted": "yes"},
            "tank/byhand": {**plain, "mountpoint": f"{tmp_path}/e", "canmount": "noauto"},
            "tank/none": {**plain, "mountpoint": "none"},
            "tank/jail": {**plain, "mountpoint": f"{tmp_path}/f", "zoned": "on"},
            "tank/volume": {"type": "volume"},
        }
        runner = self._runner(values)
        mount_tree(runner, "tank")
        assert self._mounts(runner) == ["tank/first", "tank/inside", "tank"]

    def test_what_fails_is_told_and_the_others_are_mounted(self, tmp_path: Path) -> None:
        plain = {"type": "filesystem", "encryption": "off", "canmount": "on", "mounted": "no"}
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        values = {
            "tank/full": {**plain, "mountpoint": f"{tmp_path}/full"},
            "tank/bad": {**plain, "mountpoint": f"{tmp_path}/bad"},
            "tank/full/below": {**plain, "mountpoint": f"{tmp_path}/full/below"},
            "tank/below": {**plain, "mountpoint": f"{tmp_path}/bad/below"},
            "tank/good": {**plain, "mountpoint": f"{tmp_path}/good"},
        }
        runner = self._runner(values, broken="tank/bad")
        with pytest.raises(StorageError) as caught:
            mount_tree(runner, "tank")
        assert self._mounts(runner) == ["tank/bad", "tank/good"]
        assert caught.value.details["not_mounted"] == [
            "tank/bad: cannot mount: busy",
            f"tank/below: nothing could be mounted at {tmp_path}/bad",
            f"tank/full: the mountpoint {tmp_path}/full is not empty",
            f"tank/full/below: nothing could be mounted at {tmp_path}/full",
        ]

    @staticmethod
    def _runner(values: dict[str, dict[str, str]], broken: str = "") -> RecordedRunner:
        zfs = Zfs(values)

        def answer(command: Command) -> Result:
            if command.argv[1] == "get":
                assert set(MOUNT_PROPERTIES) <= set(command.argv[-2].split(","))
                return zfs(command)
            return said(command, stderr="cannot mount: busy\n", rc=1) if command.argv[2] == broken else said(command)

        return RecordedRunner(default=answer)

    @staticmethod
    def _mounts(runner: RecordedRunner) -> list[str]:
        return [argv[2] for argv in runner.argvs if argv[:2] == ("zfs", "mount")]
