# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key that is made once, whoever asks for it and how often."""

from __future__ import annotations

import base64
import multiprocessing
import stat
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.nasops.encryption.plugins.lookup import generated_key as plugin
from ansible_collections.nasops.encryption.plugins.plugin_utils import controller_files as files
from ansible_collections.nasops.encryption.plugins.plugin_utils.vaulting import choose

PASSWORD, OTHER = b"the password of the vault", b"another password"
VAULT = [("default", VaultSecret(PASSWORD))]


@pytest.fixture
def look_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., list[str]]:
    """The lookup in a run with a password file, with options as Ansible hands them over."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_bytes(PASSWORD + b"\n")

    def call(*terms: str, variables: dict[str, t.Any] | None = None, **options: t.Any) -> list[str]:
        options.setdefault("vault_password_file", None if options.get("unencrypted") else "password")
        given = {"format": "hex", "vault_id": None, "unencrypted": False, **options}
        lookup = plugin.LookupModule(loader=DataLoader())
        monkeypatch.setattr(lookup, "set_options", lambda **_options: None)
        monkeypatch.setattr(lookup, "get_option", given.__getitem__)
        return lookup.run(list(terms), variables=variables or {}, **options)

    return call


def test_the_same_key_each_time(look_up: t.Callable[..., list[str]], tmp_path: Path) -> None:
    first = look_up("keys/a", "keys/b")
    assert first == look_up("keys/a", "keys/b")
    assert len(set(first)) == 2
    for name, key in zip("ab", first):
        path = tmp_path / "keys" / name
        assert bytes.fromhex(key)
        assert VaultLib(VAULT).decrypt(path.read_bytes()) == key.encode() + b"\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert key.encode() not in path.read_bytes()
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["a", "b"]


def test_each_format(look_up: t.Callable[..., list[str]]) -> None:
    assert len(base64.b64decode(look_up("raw", format="raw")[0])) == 32
    assert len(look_up("passphrase", format="passphrase")[0]) == 43
    assert look_up("raw", format="raw") == look_up("raw", format="raw")
    with pytest.raises(AnsibleLookupError, match="holds no key of the format hex"):
        look_up("raw")


def test_in_clear_only_by_name(look_up: t.Callable[..., list[str]], tmp_path: Path) -> None:
    (key,) = look_up("clear", unencrypted=True)
    assert (tmp_path / "clear").read_text() == key + "\n"
    with pytest.raises(AnsibleLookupError, match="is not encrypted") as caught:
        look_up("clear")
    assert key not in str(caught.value)
    look_up("vault")
    with pytest.raises(AnsibleLookupError, match="is encrypted by Ansible Vault, but unencrypted is true"):
        look_up("vault", unencrypted=True)
    with pytest.raises(AnsibleLookupError, match="wanted is one of them"):
        look_up("both", unencrypted=True, vault_id="default", vault_password_file=None)
    with pytest.raises(AnsibleLookupError, match="has no vault secret 'default'"):
        look_up("nothing", vault_password_file=None)
    assert not (tmp_path / "nothing").exists()


def test_check_mode_keeps_nothing(look_up: t.Callable[..., list[str]], tmp_path: Path) -> None:
    checking = {"ansible_check_mode": True}
    (key,) = look_up("new/key", variables=checking)
    assert len(key) == 64
    assert not (tmp_path / "new").exists()
    (kept,) = look_up("new/key")
    assert kept != key
    assert look_up("new/key", variables=checking) == [kept]


def test_another_secret_makes_no_other_key(look_up: t.Callable[..., list[str]], tmp_path: Path) -> None:
    look_up("key")
    before = (tmp_path / "key").read_bytes()
    (tmp_path / "password").write_bytes(OTHER)
    with pytest.raises(AnsibleLookupError, match="another vault secret than those of this run"):
        look_up("key")
    assert (tmp_path / "key").read_bytes() == before


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "is empty.*run was interrupted"),
        (b"short", "holds no key of the format hex"),
        (b"0a" * 32 + b"\n\n", "holds no key of the format hex"),
        (b"\xff" * 64, "holds no key of the format hex"),
    ],
)
def test_a_file_that_holds_no_key(
    content: bytes, message: str, look_up: t.Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(AnsibleLookupError, match=message):
        look_up("key", unencrypted=True)
    assert (tmp_path / "key").read_bytes() == content


def test_what_is_no_path(look_up: t.Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match="is empty, or no text"):
        look_up(" ")
    with pytest.raises(AnsibleLookupError, match="is a folder"):
        look_up(str(tmp_path))
    with pytest.raises(AnsibleLookupError, match="password"):
        look_up("password/below")


def _ask(path: str, barrier: t.Any, answers: multiprocessing.Queue[str]) -> None:
    barrier.wait()
    answers.put(plugin.stored_key(path, "hex", choose("default", VAULT), False))


def test_many_at_once_get_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(5):
        answers: multiprocessing.Queue[str] = context.Queue()
        barrier = context.Barrier(6)
        path = str(tmp_path / f"{number}" / "key")
        workers = [context.Process(target=_ask, args=(path, barrier, answers)) for _worker in range(6)]
        for worker in workers:
            worker.start()
        found = {answers.get() for _worker in workers}
        for worker in workers:
            worker.join()
        assert len(found) == 1


def test_where_there_are_no_locks_the_first_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run is faster, between the look and the making."""
    path = str(tmp_path / "key")
    create = files.create

    def slower(name: str, data: bytes) -> bool:
        create(name, choose("default", VAULT).encrypt(b"0b" * 32 + b"\n"))
        return create(name, data)

    monkeypatch.setattr(files, "create", slower)
    assert plugin.stored_key(path, "hex", choose("default", VAULT), False) == "0b" * 32
