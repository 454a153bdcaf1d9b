# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives that are unlocked at boot with passwords from a real KMIP server, by the program as it is installed."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot, boot_files, boot_refused
from ansible_collections.nasops.encryption.tests.opal.drive import Drive, Spec
from ansible_collections.nasops.encryption.tests.opal.host import Emulator, emulator
from ansible_collections.nasops.encryption.tests.opal.player import Player, Worker
from ansible_collections.nasops.encryption.tests.opal.programs import build_shim
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.certificates import CLIENT, Authority
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

OWN = {"S1": "password-of-s1", "S2": "password-of-s2"}
FILED = "password-in-the-file"
SECRETS = (*OWN.values(), FILED)


class Nas:
    """A host with drives that lock, the program that unlocks them when it starts, and a KMIP server elsewhere."""

    def __init__(self, host: Emulator, shim: Path, folder: Path, server: KmipServer) -> None:
        self.host = host
        self.server = server
        self.drives: dict[str, Drive] = {}
        self._shim = shim
        # The server is that of other cases, too.
        self._starts: list[tuple[str, ...]] = []
        self.prefix = f"{secrets.token_hex(4)}/"
        self._program = folder / "program.pyz"
        self._program.write_bytes(boot_files.archive())
        self.settings = folder / "settings.json"
        server.alice.key.chmod(0o600)

    def plug(self, player: Player, passwords: t.Mapping[str, str]) -> None:
        for serial, password in passwords.items():
            self.drives[serial] = self.host.plug(Spec(serial), f"nvme{len(self.drives) + 5}")
            assert not player.run(serial=serial, password=password).get("failed")
        self.host.power_cycle()

    def store(self, name: str, text: str, activate: bool = True) -> str:
        session = self.server.session()
        uid = session.register(self.prefix + name, text)
        if activate:
            session.activate(uid)
        session.close()
        return uid

    def settle(self, kmip: t.Mapping[str, t.Any], **more: t.Any) -> None:
        """What the module writes into the file of the host."""
        given = {**self.server.options(), "wait": 0, **kmip}
        if "by" not in given:
            given["objects"] = {serial: self.prefix + term for serial, term in given["objects"].items()}
        settings = {"devices": list(self.drives), "hash": "raw", "kmip": given, **more}
        files = boot_files.wanted(settings, "python")
        self.settings.write_bytes(next(one.content for one in files if one.path == boot.SETTINGS))
        self.settings.chmod(0o600)
        units = {boot_files.UNIT: (), boot_files.KMIP_UNIT: ("--kmip",)}
        self._starts = [units[one.path] for one in files if one.path in units and not one.gone]

    def start(self) -> tuple[int, str]:
        """Start what units there are; returns the exit status and what is in the journal then."""
        done = [self.run(*arguments) for arguments in self._starts]
        return max(status for status, _shown in done), "".join(shown for _status, shown in done)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Start the program once."""
        environment = {**os.environ, **self.host.environment(self._shim)}
        # Nothing but the library of Python: neither this collection nor PyKMIP.
        environment.pop("PYTHONPATH", None)
        argv = [sys.executable, "-I", "-S", str(self._program), *arguments, str(self.settings)]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, err = process.communicate(timeout=300)
        shown = out.decode()
        assert err.decode() == ""
        written = "".join(one.read_text() for one in (self.host.root / "run").rglob("*") if one.is_file())
        for secret in SECRETS:
            for spelling in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
                assert spelling not in shown + written
        return process.returncode, shown

    def open(self) -> list[str]:
        return [serial for serial, drive in self.drives.items() if drive.readable()]

    def tries(self) -> dict[str, int]:
        """How many wrong passwords each drive was offered since its power came."""
        return {serial: sum(pin.tries for pin in drive.pins.values()) for serial, drive in self.drives.items()}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def worker(shim: Path) -> t.Iterator[Worker]:
    one = Worker(shim)
    yield one
    one.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[KmipServer]:
    """One server for all of these cases, which is away or hangs in some of them."""
    server = KmipServer(tmp_path_factory.mktemp("server") / "kmip")
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def nas(shared: KmipServer, shim: Path, worker: Worker, tmp_path: Path) -> t.Iterator[Nas]:
    """Two drives, whose passwords are on the server."""
    if not shared.runs():
        shared.start()
    with emulator() as host:
        one = Nas(host, shim, tmp_path, shared)
        one.plug(Player(host, worker), OWN)
        yield one


def by_name(nas: Nas) -> dict[str, t.Any]:
    for serial, text in OWN.items():
        nas.store(f"drives/{serial}", text)
    return {"objects": {serial: f"drives/{serial}" for serial in OWN}}


def test_passwords_come_from_the_server_and_from_the_file(nas: Nas, worker: Worker) -> None:
    kmip = by_name(nas)
    nas.plug(Player(nas.host, worker), {"S3": FILED})
    nas.settle(kmip, password=FILED)
    text = nas.settings.read_text()
    assert FILED in text and not any(one in text for one in OWN.values())
    status, shown = nas.start()
    assert (status, nas.open()) == (0, ["S1", "S2", "S3"])
    assert sorted(re.findall(r"done: Unlock range 0 of '(..)'", shown)) == ["S1", "S2", "S3"]
    assert nas.start() == (0, ""), "nothing is left to do"
    # A restart that does not lock the drives asks nobody.
    nas.server.kill()
    assert nas.start() == (0, "")
    assert not any(nas.tries().values())


def test_one_object_is_the_password_of_all_and_may_be_given_by_its_uid(nas: Nas, worker: Worker) -> None:
    uid = nas.store("drives/S1", OWN["S1"])
    nas.settle({"by": "uid", "object": uid}, passwords={"S2": OWN["S2"]})
    assert nas.start()[0] == 0 and nas.open() == ["S1", "S2"]


def test_a_server_that_is_away_leaves_drives_locked_without_a_try(nas: Nas, worker: Worker) -> None:
    kmip = by_name(nas)
    nas.plug(Player(nas.host, worker), {"S3": FILED})
    nas.settle({**kmip, "wait": 5}, password=FILED)
    nas.server.kill()
    # The unit for drives with passwords in the file knows no server, and the other one nothing of them.
    status, shown = nas.run()
    assert status == 0 and nas.open() == ["S3"] and not any(word in shown for word in (*OWN, "KMIP"))
    begin = time.monotonic()
    status, shown = nas.run("--kmip")
    assert status == 1 and nas.open() == ["S3"] and not any(nas.tries().values())
    assert time.monotonic() - begin < 60
    assert shown.count("asking the KMIP server again for 5 seconds at the most") == 1
    for serial in OWN:
        assert f"'{serial}' STAYS LOCKED: The KMIP server 127.0.0.1:{nas.server.port} refuses the connection" in shown
    nas.server.start()
    assert nas.start()[0] == 0 and nas.open() == ["S1", "S2", "S3"]


def test_a_server_that_comes_late_is_waited_for(nas: Nas) -> None:
    nas.settle({**by_name(nas), "wait": 120})
    nas.server.kill()
    late = threading.Timer(4.0, nas.server.start)
    late.start()
    try:
        status, shown = nas.start()
    finally:
        late.join()
    assert (status, nas.open()) == (0, ["S1", "S2"]) and "asking the KMIP server again" in shown


def test_one_that_hangs_is_given_up(nas: Nas) -> None:
    nas.settle({**by_name(nas), "timeout": 1, "wait": 4})
    nas.server.pause()
    try:
        status, shown = nas.start()
    finally:
        nas.server.go_on()
    assert status == 1 and "'S1' STAYS LOCKED" in shown and re.search("within 1 seconds|time for all of it", shown)
    assert nas.open() == [] and not any(nas.tries().values())


def test_an_object_that_is_not_as_it_should_be_holds_up_no_other_and_costs_no_try(nas: Nas) -> None:
    kmip = by_name(nas)
    nas.store("drives/early", OWN["S2"], activate=False)
    nas.store("drives/long", "x" * 33)
    nas.store("drives/lines", "two\nlines")
    # A part of the arguments of a program that is started.
    nas.store("drives/short", "settle")
    for term, message in (
        ("drives/short", "Admin1 of 'S2' does not take the password"),
        ("drives/none", f"There is no key '{nas.prefix}drives/none' on the KMIP server"),
        ("drives/early", "is pre-active, not active"),
        ("drives/long", "has 33 bytes; a drive set up with 'hash: raw' takes 32 at most"),
        ("drives/lines", "holds a line break"),
    ):
        nas.settle({"objects": {**kmip["objects"], "S2": term}})
        status, shown = nas.start()
        assert status == 1 and nas.open() == ["S1"], term
        assert nas.tries() == {"S1": 0, "S2": 1}, "the short one alone was offered"
        assert re.search(f"'S2' STAYS LOCKED: .*{re.escape(message)}", shown), shown


def test_a_certificate_that_is_no_good_is_told_at_once(nas: Nas) -> None:
    kmip = {**by_name(nas), "wait": 300}
    stranger = Authority(nas.host.root, "stranger")
    mallory = stranger.issue("mallory", CLIENT)
    mallory.key.chmod(0o600)
    for more, message in (
        (
            {"ca_certificate": str(stranger.certificate)},
            "is not trusted: its certificate authority is not the one in ca_certificate",
        ),
        (
            {"certificate": str(mallory.certificate), "private_key": str(mallory.key)},
            "refused the certificate of the client",
        ),
        ({}, "holds a private key that others than root may read"),
    ):
        nas.server.alice.key.chmod(0o600 if more else 0o640)
        nas.settle({**kmip, **more})
        begin = time.monotonic()
        status, shown = nas.start()
        assert status == 1 and time.monotonic() - begin < 60
        assert shown.count("STAYS LOCKED") == 2 and message in shown
        assert nas.open() == [] and not any(nas.tries().values())


def test_a_password_that_is_refused_costs_one_try_until_the_host_restarts(nas: Nas) -> None:
    kmip = by_name(nas)
    wrong = nas.store("drives/wrong", "not-its-password")
    nas.store("drives/again", "not-its-password")
    nas.settle({"objects": {**kmip["objects"], "S2": "drives/wrong"}})
    status, shown = nas.start()
    assert status == 1 and nas.open() == ["S1"] and nas.tries() == {"S1": 0, "S2": 1}
    assert "'S2' STAYS LOCKED: Admin1 of 'S2' does not take the password" in shown
    assert (
        f"what 'S2' did not take is the object '{nas.prefix}drives/wrong' (uid '{wrong}') on the KMIP server" in shown
    )
    # The same text by another name is the same password.
    nas.settle({"objects": {**kmip["objects"], "S2": "drives/again"}})
    status, shown = nas.start()
    assert status == 1 and nas.tries() == {"S1": 0, "S2": 1}
    assert f"'S2' STAYS LOCKED: It was offered the object '{nas.prefix}drives/again'" in shown
    assert "so that was not offered again" in shown
    noted = (nas.host.root / boot_refused.REFUSED_FILE.lstrip("/")).read_text()
    assert "not-its-password" not in noted and json.loads(noted)
    # Another object of that name is another password.
    nas.settle({**kmip})
    assert nas.start()[0] == 0 and nas.open() == ["S1", "S2"]
