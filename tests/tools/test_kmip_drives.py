# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords of drives that are on a KMIP server: the role fetches them by the lookup, and keeps them nowhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import Spec
from ansible_collections.nasops.encryption.tests.opal.host import emulator
from ansible_collections.nasops.encryption.tests.opal.programs import build_shim
from ansible_collections.nasops.encryption.tests.opal.roles import COMMON, PLAY, play
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

HEX = "0a" * 32


def test_each_drive_has_the_password_that_the_server_holds_for_it(kmip: KmipServer, tmp_path: Path) -> None:
    server = kmip.session()
    for name, text in {"drives/S1": HEX, "drives": COMMON}.items():
        server.activate(server.register(name, text))
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    variables = {
        **{f"nas_kmip_{name}": value for name, value in kmip.options().items()},
        "nas_drives": [
            {"device": "S1", "password": "{{ lookup('nasops.encryption.kmip_key', 'drives/S1') }}"},
            "S2",
        ],
        "nas_drive_password": "{{ lookup('nasops.encryption.kmip_key', 'drives') }}",
    }
    with emulator() as host:
        drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
        shown = play(host, build_shim(tmp_path), tmp_path, str(book), **variables)
        for drive, text in zip(drives, (HEX, COMMON)):
            salt = drive.spec.serial.encode().ljust(20)
            credential = hashlib.pbkdf2_hmac("sha1", text.encode(), salt, 75000, 32)
            assert drive.pins[names.pin_of(names.admin(1))].value == credential
        assert HEX not in shown
