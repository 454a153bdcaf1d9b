# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to keys on a server, whatever is found there and wherever a run is cut off."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.fetch import Notice, fetch
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.options import Wish
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.read import Survey, survey, survey_again
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.result import describe
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.rotation import decide
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome, converge
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.model import ModelServer
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner

NAME = "tank/media"
NEXT, PREVIOUS = f"{NAME} (next)", f"{NAME} (previous)"
OLD, NEW, OTHER = "0a" * 32, "0b" * 32, "0c" * 32


def play(server: ModelServer, *wishes: Wish, check_mode: bool = False) -> Outcome[Survey]:
    """What the module does."""
    return converge(
        lambda: survey(server, wishes),
        lambda found: decide(server, lambda _format: NEW, wishes, found),
        RecordedRunner(),
        check_mode,
        lambda _before, _done: survey_again(server, wishes),
    )


def wish(state: str, name: str = NAME, **more: t.Any) -> Wish:
    return Wish(state, name, **more)


def failure(outcome: Outcome[Survey]) -> str:
    """The one thing that went wrong, and nothing was done."""
    assert outcome.plan.steps == ()
    assert len(outcome.plan.failures) == 1
    return str(outcome.plan.failures[0])


def server_with(**texts: str) -> ModelServer:
    server = ModelServer()
    for word, text in texts.items():
        server.put({"current": NAME, "next": NEXT, "previous": PREVIOUS}[word], text)
    return server


# Store


@pytest.mark.parametrize("one", [wish("present", value=OLD), wish("present", generate="hex")])
def test_a_key_is_stored_once_and_check_mode_tells_the_same(one: Wish) -> None:
    server = ModelServer()
    checked = play(server, one, check_mode=True)
    assert server.entries == {}
    done = play(server, one)
    assert done.plan.actions == checked.plan.actions == [f"Store a key as '{NAME}' and read it back"]
    assert done.plan.diff() == checked.plan.diff()
    assert server.by_name() == {NAME: (NEW if one.generate else OLD, "active")}
    assert play(server, one).plan.steps == ()
    assert OLD not in repr((done, checked)) and NEW not in repr((done, checked))


def test_another_key_of_that_name_is_never_overwritten() -> None:
    server = server_with(current=OLD)
    assert "is another key than the one that is given" in failure(play(server, wish("present", value=NEW)))
    assert server.by_name() == {NAME: (OLD, "active")}


def test_the_digits_of_a_hex_key_may_be_written_in_either_case() -> None:
    assert play(server_with(current=OLD.upper()), wish("present", value=OLD)).plan.steps == ()


def test_without_a_value_the_key_has_to_be_there() -> None:
    assert "There is no key 'tank/media'" in failure(play(ModelServer(), wish("present")))
    assert play(server_with(current=OLD), wish("present")).plan.failures == ()


def test_a_key_that_was_revoked_is_not_called_present() -> None:
    server = ModelServer()
    server.put(NAME, OLD, "deactivated")
    assert "is deactivated, not active" in failure(play(server, wish("present", value=OLD)))


@pytest.mark.parametrize("state", ["present", "rotated"])
@pytest.mark.parametrize("generate", ["hex", ""])
def test_what_comes_back_changed_is_destroyed_and_no_later_run_uses_it(state: str, generate: str) -> None:
    server = ModelServer() if state == "present" else server_with(current=OLD)
    more: dict[str, t.Any] = {"generate": generate} if generate else {"value": NEW}
    one = wish(state, **more)
    server.corrupt = True
    outcome = play(server, one)
    assert "is not the key that was stored; it was destroyed, and is not used" in str(outcome.plan.failures[0])
    assert not any(words.startswith("activate") for words in server.requests)
    if state == "rotated":
        assert "'tank/media' is still the former key, uid '1'" in str(outcome.plan.failures[0])
    assert server.by_name() == ({} if state == "present" else {NAME: (OLD, "active")})
    server.corrupt = False
    raise_first(play(server, one))
    assert server.by_name()[NAME] == (NEW, "active")


def test_a_key_that_an_interrupted_run_left_is_read_before_it_is_activated() -> None:
    server = ModelServer()
    server.put(NAME, NEW, "pre_active")
    server.unreadable = True
    assert "can't be read" in failure(play(server, wish("present", generate="hex")))
    assert server.by_name() == {NAME: (NEW, "pre_active")}


# Remove


def test_a_key_is_revoked_and_then_destroyed() -> None:
    server = server_with(current=OLD, previous=OTHER)
    other = server.put("tank", OTHER)
    checked = play(server, wish("absent"), check_mode=True)
    outcome = play(server, wish("absent"))
    assert outcome.plan.actions == ["Revoke 'tank/media' (1)", "Destroy 'tank/media' (1)"]
    assert list(server.entries) == ["2", other]
    warning = "What a rotation of 'tank/media' left is not removed with it: 'tank/media (previous)' (uid '2', active)."
    assert checked.plan.warnings == outcome.plan.warnings == (f"{warning} One of these may be what opens the dataset.",)
    assert not play(server, wish("absent", PREVIOUS), check_mode=True).plan.warnings
    assert play(server, wish("absent")).plan.steps == ()


def test_only_the_very_key_that_is_given_is_removed() -> None:
    server = server_with(current=OLD)
    assert "it was not touched" in failure(play(server, wish("absent", value=NEW)))
    assert play(server, wish("absent", value=OLD)).plan.changed
    assert server.entries == {}


def test_the_uid_and_the_name_of_what_is_removed_have_to_belong_together() -> None:
    server = server_with(current=OLD)
    assert "'1' is not 'tank'" in failure(play(server, wish("absent", "tank", uid="1")))
    assert play(server, wish("absent", "", uid="1")).plan.changed
    assert play(server, wish("absent", "", uid="1")).plan.steps == ()


def test_what_is_no_key_is_left_alone() -> None:
    server = ModelServer()
    server.put(NAME, "PEM", kind="certificate")
    for state in ("present", "rotated", "absent"):
        assert "is a certificate, not a key" in failure(play(server, wish(state, generate="hex")))


@pytest.mark.parametrize("state", ["present", "rotated", "absent"])
def test_a_name_of_several_objects_is_refused_and_all_are_listed(state: str) -> None:
    server = ModelServer()
    server.put(NAME, OLD)
    server.put(NAME, NEW)
    before = dict(server.entries)
    assert "is the name of 2 objects on the KMIP server kmip.test:5696, with the uids '1', '2'" in failure(
        play(server, wish(state, value=OLD))
    )
    assert server.entries == before
    assert describe([wish(state)], survey(server, [wish(state)]))["state"] == "ambiguous"


# Rotate


def test_a_rotation_keeps_the_former_key_and_a_second_one_waits_until_it_is_gone() -> None:
    server = server_with(current=OLD)
    again = wish("rotated", generate="hex")
    checked = play(server, again, check_mode=True)
    done = play(server, again)
    assert checked.plan.actions == done.plan.actions
    assert checked.plan.diff() == done.plan.diff()
    assert server.by_name() == {NAME: (NEW, "active"), PREVIOUS: (OLD, "active")}
    waiting = play(server, again)
    assert (waiting.plan.steps, waiting.plan.failures) == ((), ())
    assert "is still kept as 'tank/media (previous)' (uid '1'): no further rotation" in waiting.plan.warnings[0]
    assert "is still kept as 'tank/media (previous)' (uid '1')" in failure(play(server, wish("rotated", value=OTHER)))
    assert play(server, wish("absent", PREVIOUS)).plan.changed
    assert play(server, again).plan.changed


def test_the_other_names_of_a_key_stay_as_they_are() -> None:
    """A server numbers the names, and the numbers have gaps."""
    server = ModelServer()
    server.put(NAME, OLD, more={2: "alias", 9: "another"})
    raise_first(play(server, wish("rotated", value=NEW)))
    assert {entry.text: entry.stored.names for entry in server.entries.values()} == {
        OLD: ("alias", PREVIOUS, "another"),
        NEW: (NAME,),
    }


def test_nothing_is_destroyed_when_a_rename_went_elsewhere() -> None:
    server = ModelServer()
    server.put(NAME, OLD, more={8: "alias"})
    server.shift = 1
    told = str(play(server, wish("rotated", value=NEW, keep_previous=False)).plan.failures[0])
    assert "has other names than it should: 'tank/media', 'tank/media (previous)' instead of" in told
    assert {entry.text for entry in server.entries.values()} == {OLD, NEW}


def test_the_former_key_is_destroyed_when_that_is_asked_for() -> None:
    server = server_with(current=OLD)
    outcome = play(server, wish("rotated", generate="hex", keep_previous=False))
    assert outcome.plan.actions[-2:] == ["Revoke the former key (1)", "Destroy the former key (1)"]
    assert server.by_name() == {NAME: (NEW, "active")}


def test_a_former_key_that_was_kept_is_not_destroyed_in_place_of_a_rotation() -> None:
    server = server_with(current=NEW, previous=OLD)
    before = server.by_name()
    assert "Once ZFS opens its dataset with the present key, remove that" in failure(
        play(server, wish("rotated", generate="hex", keep_previous=False))
    )
    assert server.by_name() == before


def test_a_former_key_whose_removal_had_begun_is_removed() -> None:
    server = server_with(current=NEW)
    server.put(PREVIOUS, OLD, "deactivated")
    play(server, wish("rotated", generate="hex", keep_previous=False))
    assert server.by_name() == {NAME: (NEW, "active")}


def test_a_rotation_to_a_key_that_is_there_already_does_nothing() -> None:
    assert play(server_with(current=NEW), wish("rotated", value=NEW)).plan.steps == ()


def test_what_is_not_there_is_not_rotated() -> None:
    assert "that could be rotated" in failure(play(ModelServer(), wish("rotated", generate="hex")))
    assert "there is only the former key" in failure(play(server_with(previous=OLD), wish("rotated", generate="hex")))


def test_a_useless_key_of_an_interrupted_rotation_makes_way() -> None:
    server = server_with(current=OLD, next=OTHER)
    play(server, wish("rotated", value=NEW))
    assert server.by_name() == {NAME: (NEW, "active"), PREVIOUS: (OLD, "active")}


def test_other_keys_than_the_given_one_are_kept_when_they_may_be_in_use() -> None:
    server = server_with(next=OTHER, previous=OLD)
    assert "with other keys than the one that is given" in failure(play(server, wish("rotated", value=NEW)))


def test_storing_is_refused_while_a_rotation_is_unfinished() -> None:
    server = server_with(next=NEW, previous=OLD)
    assert "Run it again, with state: rotated" in failure(play(server, wish("present", generate="hex")))


MUTATIONS = {"present": 2, "absent": 2, "keep": 4, "destroy": 6}


@pytest.mark.parametrize("lose_after", [False, True])
@pytest.mark.parametrize("generate", ["hex", ""])
@pytest.mark.parametrize(
    "goal,number", [(goal, number) for goal, count in MUTATIONS.items() for number in range(count)]
)
def test_a_run_that_is_cut_off_loses_nothing_and_the_next_one_finishes(
    goal: str, number: int, generate: str, lose_after: bool
) -> None:
    server = ModelServer() if goal == "present" else server_with(current=OLD)
    more: dict[str, t.Any] = {"generate": generate} if generate else {"value": NEW}
    one = {
        "present": wish("present", **more),
        "absent": wish("absent"),
        "keep": wish("rotated", **more),
        "destroy": wish("rotated", **more, keep_previous=False),
    }[goal]
    server.lose_at, server.lose_after = number, lose_after
    with pytest.raises(StorageError, match="the line was cut"):
        raise_first(play(server, one))
    assert len(server.requests) == number + 1, "nothing is sent on a lost connection"
    texts = {text for text, _state in server.by_name().values()}
    if goal == "keep":
        assert OLD in texts
    if goal == "destroy":
        assert OLD in texts or server.by_name()[NAME] == (NEW, "active")
    server.lose_at = None
    if server.by_name() == {NAME: (NEW, "active"), PREVIOUS: (OLD, "active")} and goal == "destroy" and generate:
        # Whether the former key was to be kept is not known any more; the person decides.
        assert "remove that with state: absent and its name" in failure(play(server, one))
        assert play(server, wish("absent", PREVIOUS)).plan.changed
    else:
        raise_first(play(server, one))
    wanted = {
        "present": {NAME: (NEW, "active")},
        "absent": {},
        "keep": {NAME: (NEW, "active"), PREVIOUS: (OLD, "active")},
        "destroy": {NAME: (NEW, "active")},
    }[goal]
    assert server.by_name() == wanted


@pytest.mark.parametrize("number,done", [(0, 0), (3, 2)])
@pytest.mark.parametrize("stays_down", [False, True])
def test_what_cut_a_rotation_off_is_told_with_what_to_do(number: int, done: int, stays_down: bool) -> None:
    """Also when the server can't be looked at any more afterwards."""
    server = server_with(current=OLD)
    server.lose_at, server.stays_down = number, stays_down
    outcome = play(server, wish("rotated", value=NEW))
    told = str(outcome.plan.failures[0])
    assert told.startswith("Failed to ") and "the line was cut" in told
    assert "Run the task again to finish." in told
    assert (len(outcome.plan.failures), len(outcome.plan.steps), outcome.plan.changed) == (1, done, done > 0)
    row = describe([wish("rotated", value=NEW)], outcome.state)
    assert row["state"] == ("unknown" if stays_down else "active" if number == 0 else "absent")


def test_the_cuts_are_at_every_request() -> None:
    goals = {
        "present": (ModelServer(), wish("present", value=NEW)),
        "absent": (server_with(current=OLD), wish("absent")),
        "keep": (server_with(current=OLD), wish("rotated", value=NEW)),
        "destroy": (server_with(current=OLD), wish("rotated", value=NEW, keep_previous=False)),
    }
    for server, one in goals.values():
        play(server, one)
    assert {goal: len(server.requests) for goal, (server, _one) in goals.items()} == MUTATIONS


def raise_first(outcome: Outcome[Survey]) -> None:
    for one in outcome.plan.failures:
        raise StorageError(str(one))


# By the rule of a TrueNAS


def test_the_key_of_another_dataset_is_not_taken_for_that_of_a_truenas() -> None:
    server = ModelServer()
    server.put("tank/backup-2024010", OTHER)
    with pytest.raises(StorageError, match="There is no key 'tank/backup'"):
        fetch(server, ["tank/backup", "tank/backup-2024010"], "truenas", False)
    told: list[Notice] = []
    assert fetch(server, ["tank/backup"], "truenas", False, tell=told.append) == {"tank/backup": OTHER}
    server.put("tank/media-1a2b3c4", OLD)
    fetch(server, ["tank/media"], "truenas", False, tell=told.append)
    assert [one.doubtful for one in told] == [True, False]
    assert str(told[1]) == "The key of 'tank/media' is that of uid '2', 'tank/media-1a2b3c4'."
    assert "uid '1', 'tank/backup-2024010'. By its digits" in str(told[0])


def test_an_object_that_can_not_be_read_hides_no_other_one() -> None:
    server = ModelServer()
    server.foreign = server.put("tank/x-1a2b3c4", OTHER)
    server.put("tank/media-1a2b3c4", OLD)
    assert fetch(server, ["tank/media"], "truenas", False) == {"tank/media": OLD}


# Many


def test_what_is_wrong_with_one_key_does_not_hold_up_the_others() -> None:
    server = ModelServer()
    server.put("tank/b", OTHER)
    outcome = play(server, *(wish("present", name, value=NEW) for name in ("tank/a", "tank/b", "tank/c")))
    assert [one.branch for one in outcome.plan.failures] == ["tank/b"]
    assert {name: text for name, (text, _state) in server.by_name().items()} == {
        "tank/a": NEW,
        "tank/b": OTHER,
        "tank/c": NEW,
    }


STATES = st.sampled_from(["active", "pre_active", "deactivated"])
PLACES = st.dictionaries(st.sampled_from([NAME, NEXT, PREVIOUS]), st.tuples(st.sampled_from([OLD, NEW]), STATES))
WISHES = st.one_of(
    st.builds(wish, st.just("present"), value=st.sampled_from([OLD, NEW])),
    st.builds(wish, st.just("present"), generate=st.just("hex")),
    st.builds(wish, st.just("absent"), value=st.sampled_from([None, OLD])),
    st.builds(wish, st.just("rotated"), value=st.sampled_from([OLD, NEW]), keep_previous=st.booleans()),
    st.builds(wish, st.just("rotated"), generate=st.just("hex"), keep_previous=st.booleans()),
)


@given(PLACES, WISHES)
def test_whatever_is_there_the_plan_converges_or_refuses_and_touches_nothing(
    places: dict[str, tuple[str, str]], one: Wish
) -> None:
    server = ModelServer()
    for name, (text, state) in places.items():
        server.put(name, text, state)
    server.put("tank/other", OTHER)
    outcome = play(server, one)
    left = server.by_name()
    assert left.pop("tank/other") == (OTHER, "active")
    if outcome.plan.failures:
        assert left == places
        return
    if one.state == "absent":
        assert NAME not in left
        return
    assert left[NAME][1] == "active"
    assert one.value is None or left[NAME][0] == one.value
    if one.state == "rotated" and one.keep_previous and NAME in places and places[NAME][0] != left[NAME][0]:
        assert left[PREVIOUS] == places[NAME]
