# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module in this very process, with a real KMIP server over TLS; and with options that can't be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils.kmip.fetch import fetch
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.link import LinkFailed, Wire
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.read import Survey, objects_named, survey
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.session import Session
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import encodings
from ansible_collections.nasops.encryption.plugins.modules import kmip_key
from ansible_collections.nasops.encryption.tests.unit.plugins.four_runs import four_runs
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer, Options

NAME = "tank/media"
NEXT, PREVIOUS = f"{NAME} (next)", f"{NAME} (previous)"
OLD, NEW, WORDS = "0A" * 32, "0b" * 32, "schlüssel 'wort' mit \\ und \""

Result = dict[str, t.Any]


class Player:
    """Runs the module, and sees to it that nothing it prints holds a key."""

    def __init__(self, server: KmipServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self._quiet = False
        self._capsys = capsys

    def run(self, check_mode: bool = False, **options: t.Any) -> Result:
        arguments = {**self.server.options(), **options, "_ansible_check_mode": check_mode, "_ansible_diff": True}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            kmip_key.main()
        shown = "".join(self._capsys.readouterr())
        assert "Traceback" not in shown
        for text in (OLD, NEW, WORDS, *self._there()):
            for spelling in (*encodings(text.encode()), json.dumps(text)[1:-1]):
                assert spelling not in shown
        return t.cast(Result, json.loads(shown))

    def _there(self) -> t.Iterable[str]:
        if self._quiet or not self.server.runs():
            return ()
        server = self.session()
        uids = [one.uid for name in (NAME, NEXT, PREVIOUS, "tank/words") for one in objects_named(server, name)]
        return fetch(server, uids, "uid", True).values()

    def run_quietly(self, **options: t.Any) -> Result:
        """Run it without a look at the server afterwards."""
        self._quiet = True
        try:
            return self.run(**options)
        finally:
            self._quiet = False

    def four_runs(self, **options: t.Any) -> Result:
        """Check, apply, check, apply: the first two tell the same, the other two that nothing is left to do."""
        return four_runs(lambda check_mode: self.run(check_mode, **options))

    def session(self, **more: t.Any) -> Session:
        return self.server.session(**more)

    def texts(self) -> dict[str, str]:
        """What the server has under the names of these tests; active or not."""
        server = self.session()
        names = [name for name in (NAME, NEXT, PREVIOUS, "tank/words") if objects_named(server, name)]
        return fetch(server, names, "name", True)

    def state(self, name: str) -> list[str]:
        return [one.state for one in objects_named(self.session(), name)]


@pytest.fixture
def player(kmip: KmipServer, capsys: pytest.CaptureFixture[str]) -> Player:
    return Player(kmip, capsys)


def test_a_key_from_its_first_day_to_its_last(player: Player) -> None:
    stored = player.four_runs(name=NAME, value=OLD)
    assert (stored["state"], stored["kind"], stored["objects"][0]["uid"]) == ("active", "secret_data", stored["uid"])
    assert player.four_runs(name="tank/words", value=WORDS)["uid"] != stored["uid"]
    assert player.run(name=NAME, value=NEW)["failed"] is True
    assert player.texts() == {NAME: OLD, "tank/words": WORDS}

    rotated = player.four_runs(name=NAME, value=NEW, state="rotated")
    assert rotated["uid"] not in (None, stored["uid"])
    assert player.texts() == {NAME: NEW, PREVIOUS: OLD, "tank/words": WORDS}
    assert player.state(PREVIOUS) == player.state(NAME) == ["active"]
    assert player.four_runs(name=PREVIOUS, value=OLD, state="absent")["state"] == "absent"

    generated = player.run(name=NAME, generate=True, state="rotated", previous="destroy")
    assert generated["actions"][-2:] == [
        f"Revoke the former key ({rotated['uid']})",
        f"Destroy the former key ({rotated['uid']})",
    ]
    assert len(player.texts()[NAME]) == 64 and PREVIOUS not in player.texts()
    assert player.run(uid=stored["uid"], state="absent")["changed"] is False
    assert player.four_runs(uid=generated["uid"], name=NAME, state="absent")["changed"]
    assert player.texts() == {"tank/words": WORDS}


@pytest.mark.parametrize("key_format,length", [("hex", 64), ("raw", 44), ("passphrase", 43)])
def test_a_random_key_of_each_format_and_many_at_once(player: Player, key_format: str, length: int) -> None:
    names = [NAME, "tank/words", "tank/ünïcode 日本"]
    done = player.four_runs(names=names, generate=True, format=key_format)
    assert [(one["name"], one["state"]) for one in done["objects"]] == [(name, "active") for name in names]
    texts = player.texts()
    assert {len(text) for text in texts.values()} == {length} and len(set(texts.values())) == 2
    player.four_runs(names=names, state="absent")


def test_a_name_of_two_objects_is_refused_until_one_is_removed_by_its_uid(player: Player) -> None:
    server = player.session()
    uids = [server.register(NAME, text) for text in (OLD, NEW)]
    for options in ({"value": OLD}, {"state": "absent"}, {"state": "rotated", "generate": True}):
        refused = player.run_quietly(name=NAME, **options)
        assert refused["failed"] and all(f"'{uid}'" in refused["msg"] for uid in uids)
        assert (refused["changed"], refused["state"], refused["uid"]) == (False, "ambiguous", None)
    assert set(server.locate(NAME)) == set(uids)
    player.four_runs(name=NAME, uid=uids[1], state="absent")
    player.four_runs(name=NAME, value=OLD)
    assert player.texts() == {NAME: OLD}


def test_what_is_wrong_with_one_key_does_not_hold_up_the_others(player: Player) -> None:
    player.run(name=NAME, value=NEW)
    keys = {NAME: OLD, "tank/words": WORDS, "tank/x": "12345678"}
    done = player.run(keys=keys)
    assert done["failed"] and "is another key than the one that is given" in done["msg"]
    assert player.texts() == {NAME: NEW, "tank/words": WORDS}
    assert [one["state"] for one in done["objects"]] == ["active"] * 3
    removed = player.run(keys=keys, state="absent")
    assert removed["failed"] and "it was not touched" in removed["msg"]
    assert player.texts() == {NAME: NEW}


def test_another_client_can_neither_use_nor_remove_a_key(player: Player) -> None:
    uid = player.run(name=NAME, value=OLD)["uid"]
    bob = player.server.options(player.server.bob)
    for options in ({"uid": uid, "state": "absent"}, {"name": NAME, "state": "rotated", "generate": True}):
        refused = player.run(**{**bob, **options})
        assert refused["failed"] and not refused["changed"]
    assert player.run(**{**bob, "name": NAME, "state": "absent"})["changed"] is False
    assert player.texts() == {NAME: OLD}


def test_a_server_that_is_gone_is_one_clear_message(player: Player) -> None:
    player.server.kill()
    refused = player.run(name=NAME, value=OLD)
    assert "refuses the connection: nothing listens on that port. Is the service started" in refused["msg"]


class Cut:
    """Breaks the connection at one request, when it was carried out and the answer is due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._act: t.Callable[[], None] | None = None
        self._left = 0
        read = Wire.read

        def cut_read(wire: Wire) -> object:
            answer = read(wire)
            self._left -= 1
            if self._act is not None and self._left < 0:
                self.arm(0, None)[0]()
                raise LinkFailed("The line was cut.")
            return answer

        monkeypatch.setattr(Wire, "read", cut_read)

    def arm(self, number: int, act: t.Callable[[], None] | None) -> list[t.Callable[[], None]]:
        """From now on, the request with this number is the last; ``act`` is called then. Returns what would have."""
        former = [] if self._act is None else [self._act]
        self._act, self._left = act, number
        return former


# The requests of a rotation: it locates three names, describes and fetches one key, and then does these.
_BEFORE = 5
_RENAME = ("describe", "rename", "read back")
_DOES = ("register", "describe", "fetch", "activate", *_RENAME, *_RENAME, "revoke", "destroy")
# Where the server is tried, too; the model is cut at every request.
_CUTS = (0, 3, 5, 8, 10, 11)


def test_a_rotation_that_is_cut_off_after_a_request_loses_nothing_and_is_finished(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the names change, the server is killed; else the connection breaks."""
    cut = Cut(monkeypatch)
    goal: Options = {"name": NAME, "state": "rotated", "value": NEW, "previous": "destroy"}
    for number, request in ((number, _DOES[number]) for number in _CUTS):
        assert not player.run_quietly(name=NAME, value=OLD).get("failed")
        cut.arm(_BEFORE + number, player.server.kill if request == "rename" else lambda: None)
        first = player.run_quietly(**goal)
        assert first["failed"] and "The line was cut." in first["msg"] and "Run the task again" in first["msg"]
        assert "the connection is lost" not in first["msg"]
        assert first["changed"] is bool(first["actions"])
        assert cut.arm(0, None) == []
        if not player.server.runs():
            player.server.start()
        left = player.texts()
        assert OLD in left.values() or left[NAME] == NEW, (request, first)
        # after the last request nothing is left to do
        assert player.run_quietly(**goal)["changed"] is (request != "destroy")
        assert player.texts() == {NAME: NEW}
        assert player.run_quietly(name=NAME, state="absent")["changed"]


def test_two_controllers_at_once_are_noticed_and_no_key_is_lost(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds only a lock of its own, and neither saw a key when it looked."""

    def look_and_wait(server: Session, wishes: t.Any) -> Survey:
        found = survey(server, wishes)
        player.session().register(NAME, OLD)
        return found

    monkeypatch.setattr(kmip_key, "survey", look_and_wait)
    late = player.run_quietly(name=NAME, value=NEW)
    monkeypatch.undo()
    assert late["failed"] and "is the name of 2 objects" in late["msg"] and late["actions"]
    uids = {
        fetch(player.session(), [one.uid], "uid", True)[one.uid]: one.uid
        for one in objects_named(player.session(), NAME)
    }
    assert set(uids) == {OLD, NEW}
    again = player.run_quietly(name=NAME, value=NEW)
    assert again["failed"] and not again["changed"] and all(uid in again["msg"] for uid in uids.values())
    assert player.run_quietly(uid=uids[OLD], state="absent")["changed"]
    assert player.run(name=NAME, value=NEW)["changed"] is False


def test_two_tasks_at_once_on_one_controller_make_one_key(player: Player, tmp_path: Path) -> None:
    options = {**player.server.options(), "name": NAME, "generate": True}
    argv = [sys.executable, "-m", kmip_key.__name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    (tmp_path / "arguments").write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    tasks = []
    for _number in range(2):
        with (tmp_path / "arguments").open("rb") as arguments:
            tasks.append(subprocess.Popen(argv, stdin=arguments, stdout=subprocess.PIPE, env=environment))
    results = [json.loads(task.communicate()[0]) for task in tasks]
    assert sorted(one["changed"] for one in results) == [False, True], results
    assert len(objects_named(player.session(), NAME)) == 1


BAD: list[tuple[Options, str]] = [
    ({}, "Neither name, names nor keys is given"),
    ({"state": "absent"}, "Neither a name nor a uid is given"),
    ({"name": NAME, "names": [NAME]}, "name and names are given; wanted is one of them"),
    ({"names": [NAME, NAME]}, f"names holds the same name more than once: {NAME}"),
    ({"uid": "1"}, "it goes with state: absent"),
    ({"uid": "ü", "state": "absent"}, "is no uid"),
    ({"names": [NAME], "value": OLD}, "value goes with name"),
    ({"name": NAME, "value": OLD, "generate": True}, "generate makes new keys"),
    ({"name": NAME, "generate": True, "state": "absent"}, "generate makes new keys"),
    ({"name": NAME, "state": "rotated"}, "state: rotated needs the new key"),
    ({"name": PREVIOUS, "value": OLD}, "is what a rotation of 'tank/media' calls a key"),
    ({"name": "", "uid": "1", "state": "absent"}, "The name of a key is empty"),
    ({"name": "", "value": OLD}, "The name of a key is empty"),
    ({"names": [""], "generate": True}, "The name of a key is empty"),
    ({"keys": {"": OLD}}, "The name of a key is empty"),
    ({"name": " "}, "The name of a key is empty"),
    ({"name": "tank\n"}, "is no name for a key"),
    ({"name": NAME, "value": ""}, "value is empty"),
    ({"name": NAME, "value": OLD + "\n"}, "value holds a line break or another control character. In YAML write '|-'"),
    ({"name": NAME, "value": OLD[1:], "format": "hex"}, "value is not a hex key: it has 63 characters"),
    ({"keys": {NAME: 12345678}}, "keys['tank/media'] is not text"),
    ({"keys": {NAME: "x" * 7}, "format": "passphrase"}, "keys['tank/media'] holds 7 bytes"),
    ({"name": NAME, "value": OLD, "port": 0}, "port is 0"),
    ({"name": NAME, "value": OLD, "certificate": "/nowhere/c.crt"}, "certificate /nowhere/c.crt can't be read"),
]


@pytest.mark.parametrize("options,message", BAD)
def test_options_that_can_not_be(options: Options, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"server": "127.0.0.1", "port": 1, "certificate": __file__, **options}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        kmip_key.main()
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] is True and message in result["msg"]
    assert OLD not in json.dumps(result)
