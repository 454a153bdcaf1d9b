# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a pool go to a real KMIP server and back."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from .over_ssh import Check, Playbooks, Wanted, link_collection

_SERVER = "ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server"
# What its log has to tell, and what nothing is to be found of: the level that would print keys.
_DONE = ("Session client identity: alice", "Registered a SecretData", "Destroying an object")
_AFTER = """
zfs list -H -o name,keystatus,keylocation -r vault
cmp /etc/zfs/keys/vault.key /root/away/vault.key && echo the same key
rm -r /root/away
zpool export vault && zpool import -l vault </dev/null >/dev/null 2>&1
zfs get -H -o value keystatus vault vault/own vault/words
"""
_WANTED = """\
vault\tavailable\tfile:///etc/zfs/keys/vault.key
vault/own\tavailable\tfile:///etc/zfs/keys/vault%2Fown.key
vault/own/below\tavailable\tnone
vault/words\tavailable\tprompt
the same key
available
available
unavailable
"""


def checks(playbooks: Playbooks) -> Iterator[Check]:
    """The round trip, what the NAS has then, and what the server wrote to its log."""
    sys.path.insert(0, str(link_collection()))
    playbooks.temporary.mkdir(exist_ok=True)
    names = playbooks.names
    with kmip_server(playbooks) as server:
        variables = {
            **{f"nas_kmip_{name}": value for name, value in server.options().items()},
            "partition": names.partitions[0]["id"],
            "hex_key": names.keys.hex("kmip"),
            "passphrase": names.keys.passphrase("kmip", 40),
            # outside of what is searched for keys: it holds them in the clear, as was asked for
            "manifest": str(playbooks.log.resolve().parent / f"{playbooks.nas.name}.manifest"),
        }
        yield playbooks.run("keys to a KMIP server and back", "tests/vm/playbooks/kmip.yml", variables, Wanted())
        yield playbooks.on_nas("the pool opens by its files again", _AFTER, _WANTED)
        start = time.monotonic()
        said = server.said()
        complaints = [f"the log of the server does not say: {line}" for line in _DONE if line not in said]
        (playbooks.log / "kmip-server.log").write_text(said, "utf-8")
        yield "what the KMIP server wrote to its log", time.monotonic() - start, complaints


@contextlib.contextmanager
def kmip_server(playbooks: Playbooks, *more: str) -> Iterator[Any]:
    """A server on this machine.

    :param more: by what it may be reached besides 127.0.0.1
    """
    folder = playbooks.temporary / "kmip"
    shutil.rmtree(folder, ignore_errors=True)
    server = importlib.import_module(_SERVER).KmipServer(folder, ("127.0.0.1", *more))
    try:
        server.start()
        yield server
    finally:
        server.kill()
        # Its database holds the keys as they are.
        shutil.rmtree(folder, ignore_errors=True)
