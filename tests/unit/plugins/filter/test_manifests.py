# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters that rename, seal and open manifests."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.nasops.encryption.plugins.filter import open_manifest, remap_manifest, seal_manifest
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sealing.people import openssl_opens, person

KEY, OTHER = "0a" * 32, "0b" * 32
MANIFEST = {"tank": KEY, "tank/media": OTHER}


def filters() -> dict[str, t.Callable[..., t.Any]]:
    modules = (open_manifest, remap_manifest, seal_manifest)
    return {name: one for module in modules for name, one in module.FilterModule().filters().items()}


def template(text: str, **values: t.Any) -> t.Any:
    environment = NativeEnvironment()
    environment.filters.update(filters())
    return environment.from_string(text).render(**values)


@pytest.mark.parametrize("manifest", [MANIFEST, json.dumps(MANIFEST)])
def test_sealed_and_opened(manifest: t.Any, tmp_path: Path) -> None:
    somebody = person("rsa")
    (tmp_path / "private.pem").write_text(somebody.private_key)
    sealed = template("{{ manifest | seal_manifest([to]) }}", manifest=manifest, to=somebody.certificate)
    assert KEY not in sealed
    assert json.loads(openssl_opens(sealed, somebody.private_key, tmp_path)) == MANIFEST
    for key in (somebody.private_key, str(tmp_path / "private.pem")):
        assert template("{{ sealed | open_manifest(key) }}", sealed=sealed, key=key) == MANIFEST
    # as the lookup of a file hands it over
    assert template("{{ sealed | open_manifest(key) }}", sealed=sealed.rstrip(), key=somebody.private_key) == MANIFEST


def test_what_was_sealed_by_hand_is_opened(tmp_path: Path) -> None:
    somebody = person("p256")
    sealed = seal_manifest.seal_manifest(MANIFEST, somebody.certificate)
    bare = sealed[sealed.index("-----BEGIN CMS-----") :]
    assert open_manifest.open_manifest(bare, somebody.private_key) == MANIFEST


@pytest.mark.parametrize(
    "remap,wanted",
    [
        ({"tank": "backup/nas"}, {"backup/nas": KEY, "backup/nas/media": OTHER}),
        ({"tank/media": "media"}, {"tank": KEY, "media": OTHER}),
        ({"tank": "backup", "tank/media": "media"}, {"backup": KEY, "media": OTHER}),
        ({}, MANIFEST),
        (
            {"tank": ["tank", "backup/nas", "tank"]},
            {**MANIFEST, "backup/nas": KEY, "backup/nas/media": OTHER},
        ),
        ({"tank/media": ["a", "b/c"]}, {"tank": KEY, "a": OTHER, "b/c": OTHER}),
    ],
)
def test_other_names(remap: dict[str, t.Any], wanted: dict[str, str]) -> None:
    assert template("{{ manifest | remap_manifest(remap) }}", manifest=MANIFEST, remap=remap) == wanted


@pytest.mark.parametrize(
    "manifest,remap,message",
    [
        (MANIFEST, {"tonk": "backup"}, "remap renames 'tonk', but there is no key"),
        (MANIFEST, {"tan": "backup"}, "remap renames 'tan', but there is no key"),
        (MANIFEST, {"tank/media": "tank"}, "remap gives 'tank' and 'tank/media' the same name 'tank'"),
        (
            MANIFEST,
            {"tank": ["a", "b"], "tank/media": ["c", "b/media", "a"]},
            "'tank' and 'tank/media' the same name 'a'",
        ),
        (MANIFEST, {"tank": []}, "remap has no new name for 'tank'"),
        (MANIFEST, {"tank": ["a", None]}, "holds something that is no text"),
        (MANIFEST, {"tank": "1st"}, "'1st' is no name for a pool"),
        (MANIFEST, {"tank": "a" * 250}, "is longer than the 255 bytes"),
        (MANIFEST, {"tank": 3}, "holds something that is no text"),
        (MANIFEST, ["tank"], "remap is no dictionary"),
        ("no json", {"tank": "backup"}, "The manifest is not JSON"),
        (["tank"], {"tank": "backup"}, "The input is no manifest"),
        ({"tank": 17}, {"tank": "backup"}, "is a number; the text of a key is wanted"),
    ],
)
def test_names_that_make_no_sense(manifest: t.Any, remap: t.Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as caught:
        remap_manifest.remap_manifest(manifest, remap)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("to,message", [([], "seal_to is empty"), ([7], "is no text"), (7, "is no list")])
def test_nobody_to_seal_to(to: t.Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        seal_manifest.seal_manifest(MANIFEST, to)


def test_what_can_not_be_opened(tmp_path: Path) -> None:
    somebody = person("p256")
    sealed = seal_manifest.seal_manifest(MANIFEST, [somebody.certificate])
    cases: list[tuple[t.Any, t.Any, str]] = [
        (sealed, person("rsa").private_key, "is not sealed to the certificate of this private key"),
        (sealed, str(tmp_path / "nowhere"), "nowhere does not exist on the controller"),
        (sealed, "", "private_key is no text, or empty"),
        (sealed, somebody.certificate, "it is none in PEM"),
        (json.dumps(MANIFEST), somebody.private_key, "does not begin as one"),
        (MANIFEST, somebody.private_key, "The sealed manifest is no text"),
        (sealed.replace("\nMI", "\nMJ", 1), somebody.private_key, "damaged"),
    ]
    for text, key, message in cases:
        with pytest.raises(AnsibleFilterError, match=message) as caught:
            open_manifest.open_manifest(text, key)
        assert KEY not in str(caught.value)
        assert somebody.private_key.splitlines()[1] not in str(caught.value)
