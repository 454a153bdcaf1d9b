# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lets a host fetch the passwords of its drives at boot is installed and removed, by the module and the role."""

from __future__ import annotations

import functools
import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot, boot_files, boot_proven
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_network import check_places
from ansible_collections.nasops.encryption.plugins.modules import sed_boot
from ansible_collections.nasops.encryption.tests.opal.drive import Spec
from ansible_collections.nasops.encryption.tests.opal.host import emulator
from ansible_collections.nasops.encryption.tests.opal.programs import build_shim
from ansible_collections.nasops.encryption.tests.opal.roles import COMMON, OWN, PLAY, play
from ansible_collections.nasops.encryption.tests.unit.plugins.four_runs import four_runs
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

Result = dict[str, t.Any]

TEXTS = {"drives/S1": "password-of-s1", "drives/S2": "password-of-s2"}


class Player:
    """Runs the module, whose files are below a folder of the test."""

    def __init__(self, server: KmipServer, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self.root = root
        # Ansible tells each warning once in a process.
        self.warned = ""
        self._capsys = capsys

    def run(self, check_mode: bool = False, **options: t.Any) -> Result:
        arguments = {**options, "_ansible_check_mode": check_mode, "_ansible_diff": True}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            sed_boot.main()
        shown, warned = self._capsys.readouterr()
        assert "Traceback" not in shown + warned and not any(text in shown + warned for text in TEXTS.values())
        self.warned += warned
        return t.cast(Result, json.loads(shown))

    def four_runs(self, **options: t.Any) -> Result:
        """Check, apply, check, apply: the first two tell the same, the other two that nothing is left to do."""
        return four_runs(lambda check_mode: self.run(check_mode, **options))

    def kmip(self, **more: t.Any) -> Result:
        objects = {"S1": "drives/S1", "S2": "drives/S2"}
        return {**self.server.options(), "objects": objects, **more}

    def files(self) -> list[Path]:
        return [one for one in self.root.rglob("*") if not one.is_dir()]


def store(server: KmipServer, texts: t.Mapping[str, str]) -> None:
    session = server.session()
    for name, text in texts.items():
        session.activate(session.register(name, text))
    session.close()


@pytest.fixture
def player(
    kmip: KmipServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Player:
    root = tmp_path / "root"
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in ("SETTINGS", "PROGRAM", "UNIT", "WANTED", "KMIP_UNIT", "KMIP_WANTED"):
        monkeypatch.setattr(boot_files, name, f"{root}{getattr(boot_files, name)}")
    monkeypatch.setattr(boot_proven, "SETTINGS", f"{root}{boot.SETTINGS}")
    monkeypatch.setattr(sed_boot, "UNITS", str(units))
    # This machine's own units are none of the test's business.
    monkeypatch.setattr(sed_boot, "check_order", lambda _runner, _paths: True)
    monkeypatch.setattr(sed_boot, "_reload", lambda _runner: None)
    kmip.alice.key.chmod(0o600)
    store(kmip, TEXTS)
    return Player(kmip, root, capsys)


def test_it_is_installed_without_any_password_and_removed(player: Player) -> None:
    done = player.four_runs(devices=["S1", "S2"], kmip=player.kmip(), password="of-no-drive")
    assert len(done["actions"]) == 5
    text = "".join(one.read_text("latin-1") for one in player.files())
    assert not any(secret in text for secret in (*TEXTS.values(), "of-no-drive"))
    settings = json.loads((player.root / boot.SETTINGS.lstrip("/")).read_text())
    assert settings["kmip"]["objects"] == {"S1": "drives/S1", "S2": "drives/S2"} and "validate" not in settings["kmip"]
    files = {str(one) for one in player.files()}
    assert files == {boot_files.PROGRAM, f"{player.root}{boot.SETTINGS}", boot_files.KMIP_UNIT, boot_files.KMIP_WANTED}
    # One of them in the file: the unit of that one is another, which knows no network.
    kmip = player.kmip(objects={"S1": "drives/S1"})
    player.four_runs(devices=["S1", "S2"], kmip=kmip, passwords={"S2": "of-s2"})
    assert " network.target" in Path(boot_files.KMIP_UNIT).read_text()
    assert "network" not in Path(boot_files.UNIT).read_text()
    player.four_runs(devices=["S1", "S2"], password="of-all-drives")
    files = {str(one) for one in player.files()}
    assert files == {boot_files.PROGRAM, f"{player.root}{boot.SETTINGS}", boot_files.UNIT, boot_files.WANTED}
    player.four_runs(devices=["S1", "S2"], kmip=player.kmip())
    player.four_runs(state="absent")
    assert player.files() == []


def test_a_drive_that_is_not_proven_keeps_its_password_in_the_file_and_its_unit(player: Player) -> None:
    old, mistyped = "its-former-password", "a-mistyped-password"
    path = player.root / boot.SETTINGS.lstrip("/")
    player.four_runs(devices=["S1"], password=old)
    # S2 is new, and not there: it gets its object. S1 did not take what is on the server.
    done = player.four_runs(devices=["S1", "S2"], kmip=player.kmip(), unproven=["S1", "S2"])
    assert old not in str(done) + player.warned
    settings = json.loads(path.read_text())
    assert settings["password"] == old and "passwords" not in settings
    assert settings["kmip"]["objects"] == {"S2": "drives/S2"} and settings["devices"] == ["S1", "S2"]
    assert Path(boot_files.UNIT).exists() and Path(boot_files.KMIP_UNIT).exists()
    assert "The passwords of S1 stay in" in player.warned and "for S2 what is to be fetched" in player.warned
    # As soon as it is proven, no password is on the host.
    player.four_runs(devices=["S1", "S2"], kmip=player.kmip())
    assert old not in path.read_text() and not Path(boot_files.UNIT).exists()
    # Nor does a mistyped one get there in place of an object.
    player.four_runs(devices=["S1", "S2"], passwords={"S1": mistyped, "S2": "proven-one"}, unproven=["S1"])
    settings = json.loads(path.read_text())
    assert mistyped not in path.read_text() and settings["passwords"] == {"S2": "proven-one"}
    assert settings["kmip"]["objects"] == {"S1": "drives/S1"} and Path(boot_files.KMIP_UNIT).exists()
    assert not player.run(devices=["S1"], passwords={"S1": mistyped}, hash="raw", unproven=["S1"])["changed"]
    assert "another 'hash'" in player.warned
    strange = player.run(devices=["S1"], password=mistyped, unproven=["S2"])
    assert strange["msg"].startswith("unproven has drives that devices has not: S2")


def test_nothing_is_installed_that_would_not_work_at_boot(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**kmip: t.Any) -> str:
        messages = []
        for check_mode in (True, False):
            done = player.run(check_mode, devices=["S1", "S2"], kmip=player.kmip(**kmip))
            assert done["failed"] and player.files() == []
            messages.append(done["msg"])
        assert messages[0] == messages[1]
        return t.cast(str, messages[0])

    message = fails(objects={"S1": "drives/S1", "S2": "drives/none"})
    assert "does not give this host the passwords of S2. There is no key 'drives/none'" in message
    assert "drives/S1" not in message
    # What another client has stored.
    player.server.bob.key.chmod(0o600)
    pair = player.server.bob
    assert "passwords of S1, S2" in fails(certificate=str(pair.certificate), private_key=str(pair.key))
    assert "key values mismatch" in fails(private_key=str(pair.key))
    assert "can't be read: No such file" in fails(ca_certificate="/nowhere/ca.crt")
    player.server.authority.certificate.chmod(0o666)
    assert "may be changed by others than root" in fails()
    player.server.authority.certificate.chmod(0o644)
    player.server.alice.key.chmod(0o604)
    assert "holds a private key that others than root may read" in fails()
    player.server.alice.key.chmod(0o600)

    def refuse(_runner: object, _paths: object) -> t.NoReturn:
        raise Refused("the network comes late.")

    with monkeypatch.context() as patch:
        patch.setattr(sed_boot, "check_order", refuse)
        assert fails() == "the network comes late. Nothing was installed."
    with monkeypatch.context() as patch:
        table = player.root.parent / "mountinfo"
        table.write_text(f"22 20 0:20 / {player.root.parent} rw - zfs tank/keys rw\n")
        patch.setattr(sed_boot, "check_places", functools.partial(check_places, table=str(table)))
        assert "lies on tank/keys, which is in a pool of ZFS" in fails()
    player.server.kill()
    assert "refuses the connection" in fails()
    with monkeypatch.context() as patch:
        patch.setattr(sed_boot, "check_order", lambda _runner, _paths: False)
        player.four_runs(devices=["S1", "S2"], kmip=player.kmip(validate=False))
        assert "systemd does not run here" in player.warned
    # What was there before is not gone by that, and it is said how it goes.
    done = player.run(devices=["S1", "S2"], kmip=player.kmip())
    assert "Nothing was changed: what an earlier run has installed is still there" in done["msg"]
    assert "state: absent removes it" in done["msg"] and "Nothing was installed" not in done["msg"]


def test_the_role_tells_the_host_which_object_is_for_which_drive(kmip: KmipServer, tmp_path: Path) -> None:
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    kmip.alice.key.chmod(0o600)
    shim = build_shim(tmp_path)
    lookup = "{{ lookup('nasops.encryption.kmip_key', 'drives/S1') }}"

    def told(drives: list[t.Any], **more: t.Any) -> str:
        """What the task says in check mode, since these are the files of this very machine: all objects are missing."""
        variables = {
            **{f"nas_kmip_{name}": value for name, value in kmip.options().items()},
            "nas_drives": drives,
            "nas_drive_unlock_at_boot": True,
            **more,
        }
        with emulator() as host:
            for number in (1, 2, 3):
                host.plug(Spec(f"S{number}"), f"nvme{number + 5}")
            return play(host, shim, tmp_path, "--check", str(book), status=2, **variables)

    server = kmip.options()
    store(kmip, {"drives/S1": OWN})
    drives = [{"device": "S1", "password": lookup, "kmip": "none/S1"}, {"device": "S2", "password": OWN}, "S3"]
    shown = told([*drives, "S4"], nas_drive_kmip={**server, "object": "none/all"})
    assert "does not give this host the passwords of S1, S3, S4. There is no key 'none/S1'" in shown
    assert COMMON not in shown
    # That does not hide what is wrong with a drive.
    assert "S4: There is no drive 'S4'" in shown and "What unlocks the drives at boot: The KMIP server" in shown
    # An object, and nobody to ask for it: its password does not go into the file in place of that.
    assert "missing required arguments: certificate, server found in kmip" in told(drives)
