# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup with a real KMIP server over TLS."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from cryptography.hazmat.primitives import serialization

from ansible_collections.nasops.encryption.plugins.doc_fragments.kmip import ModuleDocFragment
from ansible_collections.nasops.encryption.plugins.lookup import kmip_key
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.certificates import Pair
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

HEX, WORDS = "0a" * 32, "schlüssel wort"


def look(*terms: t.Any, variables: dict[str, t.Any] | None = None, **options: t.Any) -> list[t.Any]:
    plugin = lookup_loader.get("nasops.encryption.kmip_key")
    found: list[t.Any] = plugin.run(list(terms), variables=variables or {}, **options)
    return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[KmipServer]:
    """A server with two active keys, one that is not, and two of the same name; all tests here only read."""
    kmip = KmipServer(tmp_path_factory.mktemp("lookup") / "kmip")
    try:
        kmip.start()
        _fill(kmip)
        yield kmip
    finally:
        kmip.kill()


def _fill(kmip: KmipServer) -> None:
    server = kmip.session()
    names = {"tank/a": HEX, "tank/b": WORDS, "tank/twice": HEX}
    for uid in [server.register(name, text) for name, text in names.items()]:
        server.activate(uid)
    server.register("tank/twice", WORDS)
    server.register("tank/new", HEX)
    server.register("tank/gone (next)", HEX)


def test_keys_are_returned_in_the_order_of_the_terms_or_by_name(stored: KmipServer) -> None:
    options = stored.options()
    assert look("tank/b", "tank/a", **options) == [WORDS, HEX]
    assert look(["tank/a", ["tank/b"]], as_dict=True, **options) == [{"tank/a": HEX, "tank/b": WORDS}]
    assert look("1", by="uid", **options) == [HEX]
    assert look("tank/new", allow_inactive=True, **options) == [HEX]
    assert look(**options) == []


def test_keys_that_are_missing_are_left_out_when_that_is_asked_for(stored: KmipServer) -> None:
    more = {**stored.options(), "missing": "skip"}
    assert look("tank/a", "tank/none", as_dict=True, **more) == [{"tank/a": HEX}]
    assert look("tank/none", as_dict=True, **more) == [{}]
    for name, message in (("tank/twice", "stands for 2 objects"), ("tank/new", "is pre-active, not active")):
        with pytest.raises(AnsibleError, match=message):
            look(name, as_dict=True, **more)
    with pytest.raises(AnsibleError, match="goes with as_dict=true"):
        look("tank/a", **more)


def test_the_connection_comes_from_variables_or_the_environment(
    stored: KmipServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {f"nas_kmip_{name}": value for name, value in stored.options().items()}
    assert look("tank/a", variables=variables) == [HEX]
    with pytest.raises(AnsibleError, match="nothing listens on that port"):
        look("tank/a", variables=variables, port=1)
    # Ansible reads the environment of its plugins when it starts.
    with pytest.raises(AnsibleError, match="server"):
        look("tank/a")


def test_what_can_not_be_returned_is_one_clear_message(stored: KmipServer) -> None:
    cases: list[tuple[t.Any, dict[str, t.Any], str]] = [
        ("tank/c", {}, "There is no key 'tank/c' on the KMIP server"),
        ("tank/twice", {}, "'tank/twice' stands for 2 objects"),
        ("tank/new", {}, "is pre-active, not active"),
        ("tank/gone", {}, "A rotation of it was interrupted; there is 'tank/gone (next)'"),
        ("99", {"by": "uid"}, "There is no key '99'"),
        ("tank/a", {"by": "truenas"}, "There is no key 'tank/a'"),
        (7, {}, "A term of the lookup is int; wanted are texts"),
        ("", {}, "The name of a key is empty"),
    ]
    for term, options, message in cases:
        with pytest.raises(AnsibleError) as caught:
            look(term, **stored.options(), **options)
        assert message in str(caught.value)
        assert HEX not in str(caught.value) and WORDS not in str(caught.value)


def locked(pair: Pair, passphrase: bytes, path: Path) -> Pair:
    """The same client, whose key has a passphrase in another file."""
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    form, locking = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locking))
    return Pair(pair.certificate, path)


def test_secrets_of_the_connection_are_hidden_and_never_come_from_the_environment(
    stored: KmipServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plugins = yaml.safe_load(ModuleDocFragment.PLUGINS)["options"]
    assert [name for name, where in plugins.items() if "env" not in where] == ["private_key_passphrase"]
    assert "ini" not in plugins["private_key_passphrase"]
    hidden: list[str] = []
    monkeypatch.setattr(kmip_key, "register", lambda _module, texts: hidden.extend(texts))
    client = locked(stored.alice, b"open it please", tmp_path / "locked.key")
    variables = {f"nas_kmip_{name}": value for name, value in stored.options(client).items()}
    assert look("tank/a", variables={**variables, "nas_kmip_private_key_passphrase": "open it please"}) == [HEX]
    assert "open it please" in hidden and HEX in hidden
