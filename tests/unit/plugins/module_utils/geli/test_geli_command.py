# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""geli(8): what is asked of it, and what it says, in the form it has on FreeBSD 11 to 14."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.geli import geli_command
from ansible_collections.nasops.encryption.plugins.module_utils.geli.geli_command import Attach
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, answer

GPTID = "/dev/gptid/5c3b0d8e-0000-11e3-a1b2-d43d7e000001"
LIST = """\
Geom name: gptid/5c3b0d8e-0000-11e3-a1b2-d43d7e000001.eli
State: ACTIVE
EncryptionAlgorithm: AES-XTS
KeyLength: 256
Crypto: hardware
Version: 7
UsedKey: 0
Flags: READ-ONLY
KeysAllocated: 932
KeysTotal: 932
Providers:
1. Name: gptid/5c3b0d8e-0000-11e3-a1b2-d43d7e000001.eli
   Mediasize: 3998639456256 (3.6T)
   Sectorsize: 4096
   Mode: r1w0e0
Consumers:
1. Name: gptid/5c3b0d8e-0000-11e3-a1b2-d43d7e000001
   Mediasize: 3998639460352 (3.6T)
   Sectorsize: 512
   Mode: r1w0e0

Geom name: ada0p1.eli
State: ACTIVE
EncryptionAlgorithm: AES-XTS
KeyLength: 128
Crypto: software
UsedKey: 0
Flags: ONETIME, W-DETACH, W-OPEN
Providers:
1. Name: ada0p1.eli
   Mode: r1w1e0

Geom name: ada1p2.eli
Flags: NONE
Providers:
1. Name: ada1p2.eli
"""


@pytest.mark.parametrize(
    "wanted,argv,stdin",
    [
        (
            Attach(GPTID, True, ("/data/geli/a.key",), False),
            ("geli", "attach", "-r", "-p", "-k", "/data/geli/a.key", GPTID[5:]),
            None,
        ),
        (
            Attach(GPTID, True, ("/a", "/b"), True),
            ("geli", "attach", "-r", "-j", "-", "-k", "/a", "-k", "/b", GPTID[5:]),
            b"secret\n",
        ),
        (Attach("/dev/ada1p2", False, ("-",), False), ("geli", "attach", "-p", "-k", "-", "ada1p2"), b"secret"),
        (Attach("/dev/ada1p2", False, (), True), ("geli", "attach", "-j", "-", "ada1p2"), b"secret\n"),
    ],
)
def test_attach(wanted: Attach, argv: tuple[str, ...], stdin: bytes | None) -> None:
    command = geli_command.attach(wanted, b"secret")
    assert (command.argv, command.stdin) == (argv, stdin)
    assert "secret" not in repr(command)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("size", [1, 64, 1 << 20])
def test_a_key_file_through_a_pipe(temporary: Path, size: int) -> None:
    content = os.urandom(size)
    with geli_command.pipe(content) as path:
        status, above = os.stat(path), os.stat(os.path.dirname(path))
        assert stat.S_ISFIFO(status.st_mode) and (status.st_mode & 0o777, above.st_mode & 0o777) == (0o600, 0o700)
        assert status.st_size == 0 and Path(path).is_relative_to(temporary)
        # Another process, which reads to the end as geli does.
        assert subprocess.run(["cat", path], stdout=subprocess.PIPE, timeout=60, check=True).stdout == content
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("read", [0, 1])
def test_a_pipe_that_nobody_reads_to_its_end(temporary: Path, read: int) -> None:
    with pytest.raises(StorageError, match="geli has failed"), geli_command.pipe(bytes(1 << 20)) as path:
        if read:
            subprocess.run(["head", "-c", "1", path], stdout=subprocess.DEVNULL, timeout=60, check=True)
        raise StorageError("geli has failed.")
    assert list(temporary.iterdir()) == []
    assert [one for one in threading.enumerate() if one.name.startswith("Thread-") and one.daemon] == []


def test_a_host_where_no_pipe_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="besides the passphrase: No such file") as caught, geli_command.pipe(b"x"):
        pass
    assert "name it in 'keyfile'" in caught.value.hint


def test_detach() -> None:
    assert geli_command.detach(f"{GPTID}.eli").argv == ("geli", "detach", f"{GPTID[5:]}.eli")


def test_which_are_read_only() -> None:
    assert geli_command.parse_list(LIST) == {f"{GPTID[5:]}.eli"}
    assert geli_command.parse_list("") == frozenset()


@pytest.mark.parametrize(
    "said,meaning",
    [
        ("geli: Wrong key for ada1p2.", "The key does not open it."),
        ("geli: Provider size mismatch.", "give it back its size"),
        ("geli: Cannot read metadata from ada1p2: Invalid argument.", "no GELI metadata"),
        ("geli: No valid keys on ada1p2.", "No key slot is in use"),
        ("geli: Provider's ada1p2 metadata version 9 is too new.", "of a newer FreeBSD"),
        ("geli: Invalid or unsupported algorithms.", "no Blowfish, 3DES"),
        ("geli: Cannot destroy device ada1p2.eli (error=16).", "export the pool"),
        ("geli: Cannot access ada1p2 (error=1).", "in use already"),
        ("geli: something else", ""),
    ],
)
def test_what_it_says(said: str, meaning: str) -> None:
    command = Command(("geli", "attach", "-p", "ada1p2"))
    runner = RecordedRunner({command.argv: Result(command.argv, 1, "", said)})
    with pytest.raises(StorageError) as caught:
        geli_command.run(runner, command)
    assert said.rstrip(".") in caught.value.message and meaning in caught.value.hint
    assert bool(caught.value.hint) == bool(meaning)


def test_without_any_device() -> None:
    runner = RecordedRunner({("geli", "list"): answer(("geli", "list"), stderr="geli: Class 'ELI' not found.", rc=1)})
    assert geli_command.read_only_devices(runner) == frozenset()
