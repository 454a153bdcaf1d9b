# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module in this very process: on FreeBSD with a stand-in for geli(8), on Linux up to what the kernel would do."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils import entry
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.geli import device
from ansible_collections.nasops.encryption.plugins.module_utils.geli.provider import Provider
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.modules import geli_device as module
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.core import archive, database
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.nas import QUICK, SIZE, Nas, partuuid
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import Secret, Volume

FILE, OTHER = bytes(range(64)), bytes(range(1, 65))
PASS = "geheimes wort"
KEY_ONLY = Volume(SIZE, QUICK, (Secret((FILE,)),))
BOTH = Volume(SIZE, QUICK, (Secret((FILE,), PASS.encode()),))


def _gptids(one: BlockDevice) -> tuple[str, ...]:
    return tuple(f"/dev/gptid/{path.rsplit('/', 1)[-1]}" for path in one.aliases)


class FreeBSD(Nas):
    """A stand-in for geli(8) that knows what it was given, and a host on which that shows."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.commands: list[Command] = []
        self.read_only: list[str] = []
        self.attached: dict[str, str] = {}
        self.deaf = False
        # What kern.geom.label.gptid.enable says.
        self.gptid = True
        # What was in the key files that it was given, but for stdin.
        self.read: list[bytes] = []

    def read_table(self, _runner: t.Any) -> DeviceTable:
        devices = [
            dataclasses.replace(
                one,
                aliases=_gptids(one),
                hidden=() if self.gptid else _gptids(one),
                holders=tuple(device for device, provider in self.attached.items() if provider == one.name),
            )
            for one in self.devices
        ]
        return DeviceTable(tuple(devices))

    def runner(self, _mask: Mask) -> FreeBSD:
        return self

    def has(self, program: str) -> bool:
        return program == "geli"

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        words = command.argv
        if words[0] == "df":
            # Where an older Python is to unpack a backup in memory.
            return Result(
                words, 0, f"Filesystem 512-blocks Used Avail Capacity Mounted on\ntmpfs 9 1 8 1% {words[-1]}\n", ""
            )
        self.commands.append(command)
        assert words[0] == "geli"
        said, rc = "", 0
        if words[1] == "attach" and not self.deaf:
            self.read += [
                Path(word).read_bytes() for option, word in zip(words, words[1:]) if option == "-k" and word != "-"
            ]
            self.attached[f"{words[-1]}.eli"] = self.name_of(words[-1])
            self.read_only += [f"{words[-1]}.eli"] if "-r" in words else []
        elif words[1] == "detach" and self.deaf:
            said, rc = f"geli: Cannot destroy device {words[-1]} (error=16).", 1
        elif words[1] == "detach":
            del self.attached[words[-1]]
        elif words[1] == "list":
            said = "".join(
                f"Geom name: {name}\nState: ACTIVE\nFlags: {'READ-ONLY' if name in self.read_only else 'NONE'}\n\n"
                for name in self.attached
            )
        result = Result(words, rc, said if rc == 0 else "", said if rc else "")
        if rc not in ok:
            raise CommandError(result)
        return result

    def name_of(self, name: str) -> str:
        found = self.read_table(None).find(name if name.startswith("/") else f"/dev/{name}")
        assert found is not None
        return found.name


@pytest.fixture
def freebsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FreeBSD:
    found = FreeBSD(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "freebsd13")
    monkeypatch.setattr(module, "HostRunner", found.runner)
    monkeypatch.setattr(module, "this_host", lambda: found)
    # The lock of this very machine is for those who change something on it.
    monkeypatch.setattr(entry, "exclusive", contextlib.nullcontext)
    return found


def run(options: dict[str, t.Any], capsys: pytest.CaptureFixture[str], check_mode: bool = False) -> dict[str, t.Any]:
    """What the module prints, without a secret."""
    with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
        module.main()
    captured = capsys.readouterr()
    for secret in (PASS, "Traceback", base64.b64encode(FILE).decode()[:20], FILE.hex()[:20]):
        assert secret not in captured.out + captured.err
    found: dict[str, t.Any] = json.loads(captured.out)
    found.pop("invocation", None)
    return found


def four_runs(options: dict[str, t.Any], capsys: pytest.CaptureFixture[str]) -> dict[str, t.Any]:
    """Check, apply, check, apply; the result of the first apply."""
    check, apply = run(options, capsys, True), run(options, capsys)
    assert check["changed"] is apply["changed"] is True, apply
    assert (check["actions"], check["diff"]) == (apply["actions"], apply["diff"])
    assert [run(options, capsys, mode)["changed"] for mode in (True, False)] == [False, False]
    return apply


def attachments(commands: t.Iterable[Command]) -> list[Command]:
    return [command for command in commands if command.argv[1] != "list"]


def test_freebsd_attaches_and_detaches(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = freebsd.geli(0, BOTH)
    (tmp_path / "x.key").write_bytes(FILE)
    options = {"devices": [path], "keyfile": [str(tmp_path / "x.key")], "passphrase": PASS}
    found = four_runs(options, capsys)
    gptid = f"gptid/{partuuid(0)}"
    (attach,) = attachments(freebsd.commands)
    assert attach.argv == ("geli", "attach", "-r", "-j", "-", "-k", str(tmp_path / "x.key"), gptid)
    assert attach.stdin == f"{PASS}\n".encode()
    assert found["devices"] == [
        {
            "device": path,
            "attached_as": f"/dev/{gptid}.eli",
            "backend": "geli",
            "read_only": True,
            "decrypted_size": BOTH.size - 512,
            "sector_size": 512,
        }
    ]
    # zpool import does not look into the folders of /dev.
    assert (found["import_from"], found["directory"]) == ([f"/dev/{gptid}.eli"], "/dev/gptid")
    # No key is needed to see that it is attached, nor to detach it.
    assert run({"devices": [path]}, capsys)["changed"] is False
    assert "is attached read-only already" in run({"devices": [path], "read_only": False}, capsys)["msg"]
    freebsd.commands.clear()
    found = four_runs({"devices": [path], "state": "detached"}, capsys)
    assert [one.argv for one in attachments(freebsd.commands)] == [("geli", "detach", f"{gptid}.eli")]
    assert found["devices"][0]["attached_as"] is None


def test_freebsd_where_the_pool_is_found(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [freebsd.geli(0, KEY_ONLY), freebsd.geli(1, KEY_ONLY)]
    options = {"devices": paths, "keyfile_content": base64.b64encode(FILE).decode()}
    names = [f"/dev/gptid/{partuuid(number)}.eli" for number in (0, 1)]
    # As it is going to be: the same before, in check mode, and after.
    assert [run(options, capsys, mode)["import_from"] for mode in (True, False)] == [names, names]
    # One of them was attached by another name.
    freebsd.attached["ada1p2.eli"] = freebsd.attached.pop(f"gptid/{partuuid(1)}.eli")
    freebsd.read_only.append("ada1p2.eli")
    found = run(options, capsys)
    assert (found["import_from"], found["directory"]) == ([names[0], "/dev/ada1p2.eli"], None)


def test_freebsd_that_makes_no_gptid_names(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]) -> None:
    freebsd.gptid = False
    path = freebsd.geli(0, KEY_ONLY)
    # It is still known by that name, which its pool and a backup of the configuration go by.
    options = {"devices": [f"/dev/gptid/{partuuid(0)}"], "keyfile_content": base64.b64encode(FILE).decode()}
    found = four_runs(options, capsys)
    (attach,) = attachments(freebsd.commands)
    assert attach.argv[-1] == path
    assert found["devices"][0]["attached_as"] == f"/dev/{path}.eli"


def test_freebsd_with_the_folder_of_the_nas(
    freebsd: FreeBSD, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "geli").mkdir(parents=True)
    (data / "geli" / "k1.key").write_bytes(FILE)
    database(data / "freenas-v1.db", [(f"gptid/{partuuid(0)}", "tank", 2, "k1")])
    options = {"devices": [freebsd.geli(0, BOTH)], "config_backup": str(data), "passphrase": PASS}
    four_runs(options, capsys)
    (attach,) = attachments(freebsd.commands)
    assert attach.argv[-3:-1] == ("-k", str(data / "geli" / "k1.key"))


def test_freebsd_with_the_content_of_a_key_file(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]) -> None:
    content = base64.b64encode(FILE).decode()
    four_runs({"devices": [freebsd.geli(0, KEY_ONLY)], "keyfile_content": content}, capsys)
    (attach,) = attachments(freebsd.commands)
    assert (attach.argv[2:6], attach.stdin) == (("-r", "-p", "-k", "-"), FILE)


def test_freebsd_with_two_secrets_and_no_file(
    freebsd: FreeBSD, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    content = base64.b64encode(FILE).decode()
    backup = archive(
        tmp_path / "nas.tar",
        {
            "freenas-v1.db": database(tmp_path / "source.db", [(f"gptid/{partuuid(0)}", "tank", 2, "k1")]),
            "geli/k1.key": FILE,
        },
    )
    for number, key in enumerate(({"keyfile_content": content}, {"config_backup": str(backup)})):
        freebsd.commands.clear()
        freebsd.read.clear()
        four_runs({"devices": [freebsd.geli(number, BOTH)], "passphrase": PASS, **key}, capsys)
        (attach,) = attachments(freebsd.commands)
        assert (attach.argv[2:6], attach.argv[6][: len(str(temporary))]) == (("-r", "-j", "-", "-k"), str(temporary))
        assert (attach.stdin, freebsd.read) == (f"{PASS}\n".encode(), [FILE])
        assert list(temporary.iterdir()) == []
    # geli does not come to the key file.
    freebsd.deaf = True
    options = {"devices": [freebsd.geli(2, BOTH)], "keyfile_content": content, "passphrase": PASS}
    assert run(options, capsys)["failed"] is True
    assert list(temporary.iterdir()) == []


def test_freebsd_for_writing(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"devices": [freebsd.geli(0, KEY_ONLY)], "keyfile_content": base64.b64encode(FILE).decode()}
    found = four_runs({**options, "read_only": False}, capsys)
    assert "-r" not in attachments(freebsd.commands)[0].argv and found["devices"][0]["read_only"] is False


def test_freebsd_that_does_not_do_it(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"devices": [freebsd.geli(0, KEY_ONLY)], "keyfile_content": base64.b64encode(FILE).decode()}
    freebsd.deaf = True
    assert "the state is still not the wanted one" in run(options, capsys)["msg"]
    freebsd.deaf = False
    run(options, capsys)
    freebsd.deaf = True
    found = run({"devices": options["devices"], "state": "detached"}, capsys)
    assert found["failed"] is True and "export the pool" in found["msg"]


def test_one_wrong_key_and_nothing_is_attached(freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [freebsd.geli(0, KEY_ONLY), freebsd.geli(1, Volume(SIZE, QUICK, (Secret((OTHER,)),)))]
    for check_mode in (True, False):
        found = run({"devices": paths, "keyfile_content": base64.b64encode(FILE).decode()}, capsys, check_mode)
        assert found["failed"] is True and found["msg"].startswith(f"{paths[1]}: The key file does not open it")
    assert attachments(freebsd.commands) == []


@pytest.mark.parametrize(
    "options,message",
    [
        ({"devices": []}, "devices is empty"),
        ({"devices": ["/nowhere"]}, "/nowhere can't be examined: No such file"),
        ({"devices": ["/nowhere"], "backend": "loop"}, "value of backend must be one of"),
        ({"devices": ["/nowhere"], "passphrase": ""}, "passphrase is empty"),
    ],
)
def test_options_that_can_not_be(
    options: dict[str, t.Any], message: str, freebsd: FreeBSD, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in run(options, capsys)["msg"]


def test_another_user_than_root(
    freebsd: FreeBSD, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "This module runs as user 1000" in run({"devices": ["/x"]}, capsys)["msg"]


def test_available_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       16384 kB\nMemAvailable:    8192 kB\n")
    assert device.available_memory(str(path)) == 8 << 20
    assert device.available_memory(str(tmp_path / "gone")) == 0


def test_a_link_is_of_one_device_alone(tmp_path: Path) -> None:
    folder = tmp_path / "links"
    nodes = [str(tmp_path / name) for name in ("nbd0", "nbd1", "nbd2")]
    for node in nodes:
        Path(node).touch()
    first, second, third = (Provider("x", "/dev/sdb2", partuuid=name) for name in ("a", "b", "c"))
    device._link(first, nodes[0], str(folder))
    device._link(second, nodes[1], str(folder))
    device._link(third, nodes[2], str(folder))
    # The server of the first has died, and its device was taken for the second; the device of the third is gone.
    Path(nodes[2]).unlink()
    device._link(second, nodes[0], str(folder))
    assert {path.name: os.readlink(path) for path in folder.iterdir()} == {"eli-b": nodes[0]}
