# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import RootKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keystore import KeyFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.offers import Offer, Offers, parse_offers
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.unlock_preview import (
    Answer,
    Candidate,
    Preview,
    Verdict,
    candidates,
    columns,
    files_to_read,
    is_key_present,
    judge,
    preview,
    useless,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.unlock_preview_read import (
    Trial,
    foresee,
    read_above,
)

HEX = "0a" * 32
OTHER = "0b" * 32


def dataset(name: str, root: str = "", locked: bool = True, **values: str) -> Dataset:
    """A filesystem, encrypted if it has an encryption root."""
    facts = {"type": "filesystem", "canmount": "on", "mountpoint": f"/{name}", "mounted": "no" if locked else "yes"}
    facts.update(encryption="off")
    if root:
        facts.update(
            encryption="aes-256-gcm",
            encryptionroot=root,
            keystatus="unavailable" if locked else "available",
            keyformat="hex",
            keylocation="prompt" if name == root else "none",
            pbkdf2iters="0",
        )
    facts.update(values)
    return Dataset(name, {key: Property(value, "local") for key, value in facts.items()})


def table(*datasets: Dataset) -> dict[str, Dataset]:
    return {one.name: one for one in datasets}


def root(name: str = "tank", **values: str) -> Dataset:
    return dataset(name, name, True, **values)


def key(text: str = HEX) -> Key:
    return Key("hex", text.encode("ascii"))


class TestCandidates:
    FILE = "file:///etc/zfs/keys/tank.key"

    def found(
        self, offers: Offers, files: dict[str, KeyFile], own_files: bool = True, **values: str
    ) -> list[Candidate]:
        return list(candidates(root(**values), offers, files, own_files))

    def test_a_key_given_by_name_is_the_only_one(self) -> None:
        offers = parse_offers({"tank": HEX}, {})
        assert self.found(offers, {}, keylocation=self.FILE) == [Candidate("keys['tank']", key())]
        assert list(files_to_read(root(keylocation=self.FILE), offers, True)) == []

    def test_a_key_for_all_below_is_followed_by_the_files_of_the_root(self) -> None:
        offers = parse_offers({"tank": {"value": HEX, "recursive": True}}, {})
        one = root("tank/a", keylocation="file:///etc/zfs/keys/a.key")
        paths = ["/etc/zfs/keys/a.key", "/etc/zfs/keys/a.key.new"]
        assert list(files_to_read(one, offers, True)) == paths
        files = {paths[0]: KeyFile(paths[0], True, key(OTHER)), paths[1]: KeyFile(paths[1], False)}
        found = candidates(one, offers, files, True)
        assert [(each.origin, each.key, each.missing) for each in found] == [
            ("keys['tank']", key(), False),
            (paths[0], key(OTHER), False),
            (paths[1], None, True),
        ]

    def test_the_files_of_the_root_are_left_alone_where_that_is_wanted(self) -> None:
        offers = parse_offers({"tank": {"value": HEX, "recursive": True}}, {})
        assert list(files_to_read(root("tank/a", keylocation=self.FILE), offers, False)) == []
        assert len(candidates(root("tank/a", keylocation=self.FILE), offers, {}, False)) == 1

    def test_a_key_file_may_have_a_successor_wherever_it_is(self) -> None:
        one = root(keylocation="file:///k/tank")
        assert list(files_to_read(one, Offers(), True)) == ["/k/tank", "/k/tank.new"]
        assert list(files_to_read(root(), Offers(), True)) == []

    def test_zfs_may_look_at_a_successor_that_has_its_name_already(self) -> None:
        one = root(keylocation="file:///k/tank.new")
        assert list(files_to_read(one, Offers(), True)) == ["/k/tank.new", "/k/tank.new.new", "/k/tank"]

    def test_an_offered_file_is_read_by_the_format_of_the_root(self) -> None:
        offers = parse_offers({"tank": {"file": "/k/tank"}}, {})
        assert list(files_to_read(root(), offers, False)) == ["/k/tank"]
        (found,) = candidates(root(), offers, {"/k/tank": KeyFile("/k/tank", True, key())}, False)
        assert found == Candidate("keys['tank'].file", key())

    @pytest.mark.parametrize(
        "file,missing,fault",
        [
            (KeyFile("/k", False), True, "The key file /k does not exist."),
            (
                KeyFile("/k", True, fault="it is not a regular file"),
                False,
                "The key file /k: it is not a regular file.",
            ),
            (
                KeyFile("/k", True, fault="The key file /k is not a hex key."),
                False,
                "The key file /k is not a hex key.",
            ),
        ],
    )
    def test_what_is_wrong_with_a_file_is_told(self, file: KeyFile, missing: bool, fault: str) -> None:
        files = {"/k": file, "/k.new": KeyFile("/k.new", False)}
        first, _next = self.found(Offers(), files, keylocation="file:///k")
        assert first == Candidate("/k", missing=missing, fault=fault)

    def test_a_text_of_another_format_is_a_fault(self) -> None:
        (found,) = self.found(parse_offers({"tank": "secret words"}, {}), {})
        assert found.key is None
        assert "The key from keys['tank'] is not a hex key" in found.fault
        assert "secret words" not in repr(found)

    def test_a_passphrase_with_a_blank_behind_it_raises_a_doubt(self) -> None:
        (found,) = self.found(parse_offers({"tank": "secret words "}, {}), {}, keyformat="passphrase")
        assert found.key == Key("passphrase", b"secret words ")
        assert "begins or ends with a blank" in found.doubt

    def test_an_address_of_the_web_is_for_zfs_and_shown_without_its_credentials(self) -> None:
        (found,) = self.found(Offers(), {}, keylocation="https://me:pw@host/k")
        assert found == Candidate("https://host/k", by_zfs=True)


class TestPresence:
    @pytest.mark.parametrize(
        "location,keys,existing,present",
        [
            ("prompt", {}, [], False),
            ("prompt", {"tank": HEX}, [], True),
            ("prompt", {"tank": "no key at all"}, [], True),
            ("prompt", {"tank": {"file": "/k"}}, [], False),
            ("prompt", {"tank": {"file": "/k"}}, ["/k"], True),
            ("file:///k", {}, ["/k"], True),
            ("file:///k", {}, ["/k.new"], True),
            ("file:///etc/zfs/keys/k", {}, ["/etc/zfs/keys/k.new"], True),
            ("file:///k", {"tank": {"file": "/x"}}, ["/k"], False),
            ("file:///k", {"other": HEX}, [], False),
            ("https://host/k", {}, [], True),
        ],
    )
    def test_a_key_is_at_hand(self, location: str, keys: dict[str, t.Any], existing: list[str], present: bool) -> None:
        assert is_key_present(root(keylocation=location), parse_offers(keys, {}), existing.__contains__) is present

    def test_one_that_is_offered_to_all_below_is_at_hand(self) -> None:
        offers = parse_offers({"tank": {"value": HEX, "recursive": True}}, {})
        assert is_key_present(root("tank/a/b"), offers, [].__contains__)


class TestVerdict:
    GOOD, BAD, NEXT = Candidate("good", key()), Candidate("bad", key()), Candidate("next", key())

    def test_one_that_fits_is_enough(self) -> None:
        assert judge("tank", True, [(self.BAD, False), (self.GOOD, True)]) == Verdict(True, "good")
        assert judge("tank", True, [(self.BAD, StorageError("x")), (self.GOOD, True)]) == Verdict(True, "good")

    def test_a_wrong_key_is_named_with_what_may_be_wrong_with_it(self) -> None:
        doubtful = Candidate("here", key(), doubt="It ends with a blank.")
        assert judge("tank", True, [(doubtful, False)]) == Verdict(
            False,
            "here",
            "Provided key is invalid",
            "The key from here is not the one that opens 'tank'. It ends with a blank.",
        )

    def test_all_wrong_keys_are_named(self) -> None:
        found = judge("tank", True, [(self.BAD, False), (self.NEXT, False), (Candidate("odd", fault="Odd."), None)])
        assert found.error == (
            "The key from bad is not the one that opens 'tank'. "
            "The key from next is not the one that opens 'tank'. Odd."
        )
        assert (found.valid, found.origin) == (False, "bad")

    def test_a_text_that_is_no_key_is_an_invalid_one(self) -> None:
        found = judge("tank", True, [(Candidate("odd", fault="Odd."), None)])
        assert found == Verdict(False, "odd", "Provided key is invalid", "Odd.")

    def test_an_error_on_the_way_is_no_wrong_key(self) -> None:
        found = judge("tank", True, [(self.BAD, False), (self.NEXT, StorageError("I/O error."))])
        assert (found.valid, found.origin, found.problem) == (None, "next", "Provided key could not be tried")
        assert found.error == "Whether the key from next opens 'tank' could not be found out: I/O error."

    def test_without_any_key_there_is_none(self) -> None:
        none = "No key is offered for 'tank', and it has none of its own on this host."
        assert judge("tank", True, []) == Verdict(False, None, "Key not provided", none)
        assert judge("tank", False, []) == Verdict(None, None, "Key not provided", None)

    def test_a_missing_file_is_told(self) -> None:
        tries = [(Candidate("/k", missing=True, fault="The key file /k does not exist."), None)]
        assert judge("tank", True, tries) == Verdict(False, None, "Key not provided", "The key file /k does not exist.")

    def test_a_missing_file_behind_a_wrong_key_does_not_matter(self) -> None:
        missing = Candidate("/k", missing=True, fault="The key file /k does not exist.")
        assert judge("tank", True, [(self.BAD, False), (missing, None)]).error == (
            "The key from bad is not the one that opens 'tank'."
        )


VALID = Verdict(True, "here")
WRONG = judge("x", True, [(Candidate("here", key()), False)])
NONE = judge("x", True, [])
UNKNOWN = judge("x", True, [(Candidate("here", key()), StorageError("I/O error."))])


def end(datasets: dict[str, Dataset], verdicts: dict[str, Verdict], **obstacles: str) -> dict[str, Preview]:
    paths = {f"/{name.replace('__', '/')}": text for name, text in obstacles.items()}
    return preview(datasets, verdicts, paths)


class TestTable:
    """The rows of TrueNAS' encryption summary."""

    @pytest.mark.parametrize("verdict", [VALID, WRONG, NONE, UNKNOWN])
    def test_a_root_that_is_unlocked_stays_so(self, verdict: Verdict) -> None:
        assert end(table(dataset("tank", "tank", locked=False)), {"tank": verdict}) == {"tank": Preview(True)}

    @pytest.mark.parametrize(
        "verdict,wanted",
        [
            (VALID, Preview(True)),
            (WRONG, Preview(False, "Provided key is invalid")),
            (NONE, Preview(False, "Key not provided")),
            (UNKNOWN, Preview(False, "Provided key could not be tried")),
        ],
    )
    def test_a_locked_root_needs_its_key(self, verdict: Verdict, wanted: Preview) -> None:
        assert end(table(root()), {"tank": verdict}) == {"tank": wanted}

    def test_what_is_in_the_way_of_its_mount_is_told(self) -> None:
        assert end(table(root()), {"tank": VALID}, tank="the mountpoint /tank is not empty") == {
            "tank": Preview(False, "'tank' cannot be mounted: the mountpoint /tank is not empty")
        }

    @pytest.mark.parametrize(
        "verdict,error",
        [
            (WRONG, "'tank' cannot be mounted: full and provided key is invalid"),
            (UNKNOWN, "'tank' cannot be mounted: full and provided key could not be tried"),
            (NONE, "'tank' cannot be mounted: full"),
        ],
    )
    def test_several_obstacles_are_joined(self, verdict: Verdict, error: str) -> None:
        assert end(table(root()), {"tank": verdict}, tank="full") == {"tank": Preview(False, error)}

    @pytest.mark.parametrize("verdict", [WRONG, NONE, UNKNOWN])
    def test_below_a_root_that_stays_locked_nothing_is_unlocked(self, verdict: Verdict) -> None:
        found = end(
            table(root(), root("tank/a"), root("tank/a/b")), {"tank": verdict, "tank/a": VALID, "tank/a/b": VALID}
        )
        text = 'Child cannot be unlocked when parent "tank" is locked'
        assert (found["tank/a"], found["tank/a/b"]) == (Preview(False, text), Preview(False, text))

    @pytest.mark.parametrize(
        "verdict,rest",
        [(WRONG, " and provided key is invalid"), (NONE, ""), (UNKNOWN, " and provided key could not be tried")],
    )
    def test_a_child_may_have_several_reasons(self, verdict: Verdict, rest: str) -> None:
        found = end(table(root(), root("tank/a")), {"tank": NONE, "tank/a": verdict}, tank__a="full")
        assert found["tank/a"].error == (
            "Child cannot be unlocked when parent \"tank\" is locked and 'tank/a' cannot be mounted: full" + rest
        )

    def test_the_columns_of_a_row(self) -> None:
        assert columns(True, WRONG, Preview(False, "Provided key is invalid"), True) == {
            "key_present": True,
            "valid_key": False,
            "key_origin": "here",
            "key_error": "The key from here is not the one that opens 'x'.",
            "unlock_successful": False,
            "unlock_error": "Provided key is invalid",
        }

    @pytest.mark.parametrize("locked,successful", [(True, None), (False, True)])
    def test_without_keys_to_try_nothing_is_foretold(self, locked: bool, successful: bool | None) -> None:
        assert columns(locked, None, None, False) == {
            "key_present": False,
            "valid_key": None,
            "key_origin": None,
            "key_error": None,
            "unlock_successful": successful,
            "unlock_error": None,
        }


class TestMounts:
    def test_a_root_that_can_not_be_mounted_is_locked_again_so_what_is_below_stays_locked(self) -> None:
        found = end(table(root(), root("tank/a")), {"tank": VALID, "tank/a": VALID}, tank="full")
        assert found["tank/a"].error == 'Child cannot be unlocked when parent "tank" is locked'

    def test_a_root_of_which_a_part_can_be_mounted_is_unlocked_but_not_a_success(self) -> None:
        datasets = table(root(), dataset("tank/x", "tank", mountpoint="/elsewhere"), root("tank/a"))
        found = end(datasets, {"tank": VALID, "tank/a": VALID}, tank="full")
        assert found["tank"] == Preview(False, "'tank' cannot be mounted: full")
        assert found["tank/a"] == Preview(True)

    def test_a_clone_elsewhere_that_can_not_be_mounted_keeps_no_root_locked(self) -> None:
        datasets = table(
            dataset("tank", "", locked=False),
            root("tank/z", mountpoint="none"),
            dataset("tank/c", "tank/z", mountpoint="/c"),
            root("tank/z/a"),
        )
        found = end(datasets, {"tank/z": VALID, "tank/z/a": VALID}, c="full")
        assert found["tank/z"] == Preview(False, "'tank/c' cannot be mounted: full")
        assert found["tank/z/a"] == Preview(True)

    def test_a_child_that_uses_the_key_is_mounted_too(self) -> None:
        datasets = table(root(mountpoint="none"), dataset("tank/x", "tank", mountpoint="/x"))
        assert end(datasets, {"tank": VALID}, x="full")["tank"].error == "'tank/x' cannot be mounted: full"

    @pytest.mark.parametrize(
        "values",
        [
            {"canmount": "noauto"},
            {"canmount": "off"},
            {"mountpoint": "none"},
            {"mountpoint": "legacy"},
            {"type": "volume"},
        ],
    )
    def test_what_is_not_mounted_has_nothing_in_its_way(self, values: dict[str, str]) -> None:
        assert end(table(root(**values)), {"tank": VALID}, tank="full") == {"tank": Preview(True)}

    def test_what_lies_in_a_mountpoint_below_is_hidden_by_the_mount_above(self) -> None:
        datasets = table(root(), dataset("tank/x", "tank"), root("tank/a"))
        assert end(datasets, {"tank": VALID, "tank/a": VALID}, tank__x="full", tank__a="full") == {
            "tank": Preview(True),
            "tank/a": Preview(True),
        }

    def test_what_would_be_mounted_below_a_full_mountpoint_is_not_told_again(self) -> None:
        found = end(table(root(), dataset("tank/x", "tank")), {"tank": VALID}, tank="full", tank__x="full")
        assert found["tank"].error == "'tank' cannot be mounted: full"


class TestAbove:
    def test_a_locked_parent_that_is_not_to_be_unlocked_holds_up_its_children(self) -> None:
        found = end(table(root(), dataset("tank/x", "tank"), root("tank/x/a")), {"tank/x/a": VALID})
        assert found == {"tank/x/a": Preview(False, 'Child cannot be unlocked when parent "tank" is locked')}

    def test_an_unlocked_or_plain_parent_does_not(self) -> None:
        above = table(dataset("tank", "tank", locked=False), dataset("tank/x"), root("tank/x/a"))
        assert end(above, {"tank/x/a": VALID}) == {"tank/x/a": Preview(True)}

    def test_a_neighbour_does_not(self) -> None:
        found = end(
            table(root("tank/a"), root("tank/ab"), root("tank/a/c")),
            {"tank/a": NONE, "tank/ab": VALID, "tank/a/c": VALID},
        )
        assert found["tank/ab"] == Preview(True)
        assert found["tank/a/c"].successful is False

    def test_the_key_of_a_clone_is_that_of_its_origin(self) -> None:
        """The root of a clone may lie beside it, and be settled after it by its name."""
        datasets = table(
            dataset("tank", "", locked=False), root("tank/z"), dataset("tank/c", "tank/z"), root("tank/c/x")
        )
        found = end(datasets, {"tank/z": NONE, "tank/c/x": VALID})
        assert found["tank/c/x"].error == 'Child cannot be unlocked when parent "tank/z" is locked'

    def test_clones_that_need_each_other_come_to_an_end(self) -> None:
        datasets = table(root("t/a/r"), root("t/a/r/s"), dataset("t/a", "t/a/r/s"))
        assert set(end(datasets, {"t/a/r": VALID, "t/a/r/s": VALID})) == {"t/a/r", "t/a/r/s"}

    names = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4).map("/".join)

    @given(st.dictionaries(names, st.sampled_from([VALID, WRONG, NONE, UNKNOWN]), max_size=10))
    def test_a_root_is_unlocked_if_its_key_and_all_above_it_are_good(self, verdicts: dict[str, Verdict]) -> None:
        found = preview(table(*(root(name) for name in verdicts)), verdicts, {})
        for name in verdicts:
            above = [one for one in verdicts if name == one or name.startswith(f"{one}/")]
            assert found[name].successful is all(verdicts[one] is VALID for one in above)
            assert (found[name].error is None) is found[name].successful


class TestUseless:
    DATASETS = table(root(), dataset("tank/x", "tank"), dataset("plain"))

    def said(self, keys: dict[str, t.Any], complete: bool = True) -> dict[str, str]:
        found = useless(parse_offers(keys, {}), self.DATASETS, lambda _name: complete)
        return {one["name"]: one["reason"] for one in found}

    def test_keys_for_what_is_no_root_are_told_with_the_reason(self) -> None:
        assert self.said({"tank": HEX, "tank/x": HEX, "plain": HEX, "gone": HEX}) == {
            "tank/x": "uses the key of 'tank'",
            "plain": "is not encrypted",
            "gone": "does not exist",
        }

    def test_what_was_not_read_may_exist(self) -> None:
        assert self.said({"gone": HEX}, complete=False) == {}

    def test_a_key_for_all_below_is_of_use(self) -> None:
        assert self.said({"plain": {"value": HEX, "recursive": True}}) == {}


class Host:
    """Tries keys and runs zfs as told, and writes down what it was asked."""

    def __init__(self, fits: dict[str, str], stderr: str = "") -> None:
        self.fits = fits
        self.stderr = stderr
        self.rounds: list[list[str]] = []
        self.commands: list[tuple[str, ...]] = []

    def try_all(self, wanted: t.Sequence[RootKey]) -> list[Answer]:
        self.rounds.append([one.root for one in wanted])
        return [self.fits[one.root] == one.key.material.decode("ascii") for one in wanted]

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command.argv)
        if command.argv[0] == "df":
            return Result(
                command.argv, 0, "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 1 1 1 1% /\n", ""
            )
        result = Result(command.argv, 1 if self.stderr else 0, "", self.stderr)
        if self.stderr:
            raise CommandError(result)
        return result

    def has(self, program: str) -> bool:
        return True


class TestTrial:
    def trial(self, host: Host, keys: dict[str, t.Any], hidden: list[Key] | None = None) -> Trial:
        told: list[Key] = [] if hidden is None else hidden
        return Trial(parse_offers(keys, {}), True, host.try_all, told.extend)

    def test_all_roots_are_tried_at_once_and_only_those_left_again(self, tmp_path: Path) -> None:
        path = tmp_path / "b.key"
        path.write_text(OTHER)
        host = Host({"tank/a": HEX, "tank/b": OTHER, "tank/c": OTHER})
        datasets = table(root("tank/a"), root("tank/b", keylocation=f"file://{path}"), root("tank/c"))
        hidden: list[Key] = []
        trial = self.trial(host, {"tank": {"value": HEX, "recursive": True}}, hidden)
        verdicts, ends = foresee(host, trial, datasets, list(datasets))
        assert host.rounds == [["tank/a", "tank/b", "tank/c"], ["tank/b"]]
        assert [verdicts[name].valid for name in datasets] == [True, True, False]
        assert verdicts["tank/b"].origin == str(path)
        assert [ends[name].successful for name in datasets] == [True, True, False]
        assert set(hidden) == {key(), key(OTHER)}

    def test_without_a_key_nothing_is_tried(self) -> None:
        host = Host({})
        verdicts, _ends = foresee(host, self.trial(host, {}), table(root()), ["tank"])
        assert (host.rounds, host.commands) == ([], [])
        assert (verdicts["tank"].valid, verdicts["tank"].problem) == (False, "Key not provided")

    def test_a_passphrase_comes_with_what_its_key_is_derived_with(self) -> None:
        seen: list[RootKey] = []

        def try_all(wanted: t.Sequence[RootKey]) -> list[Answer]:
            seen.extend(wanted)
            return [True for _one in wanted]

        one = root(keyformat="passphrase", pbkdf2iters="350000", pbkdf2salt="17")
        trial = Trial(parse_offers({"tank": "secret"}, {}), False, try_all, list[Key]().extend)
        foresee(Host({}), trial, table(one), ["tank"])
        assert seen == [RootKey("tank", Key("passphrase", b"secret"), 350_000, 17)]

    @pytest.mark.parametrize(
        "stderr,valid",
        [("", True), ("Key load error: Incorrect key provided for 'tank'.", False), ("Failed to connect", None)],
    )
    def test_zfs_fetches_a_key_from_the_web_and_its_address_is_no_argument(
        self, stderr: str, valid: bool | None
    ) -> None:
        host = Host({}, stderr)
        datasets = table(root(keylocation="https://me:pw@host/k", mountpoint="none"))
        verdicts, _ends = foresee(host, self.trial(host, {}), datasets, ["tank"])
        assert host.commands == [("zfs", "load-key", "-n", "tank")]
        assert verdicts["tank"].valid is valid
        assert verdicts["tank"].origin == "https://host/k"

    def test_the_mountpoint_is_looked_at(self, tmp_path: Path) -> None:
        (tmp_path / "left").write_text("")
        host = Host({"tank": HEX})
        datasets = table(root(mountpoint=str(tmp_path)))
        _verdicts, ends = foresee(host, self.trial(host, {"tank": HEX}), datasets, ["tank"])
        assert ends["tank"] == Preview(False, f"'tank' cannot be mounted: the mountpoint {tmp_path} is not empty")


class Reader(Host):
    """Answers a request for properties with a dataset for each name."""

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command.argv)
        names = [word for word in command.argv[1:] if word.startswith("tank")]
        properties = command.argv[7].split(",")
        text = "".join(f"{name}\t{one}\t-\t-\n" for name in names for one in properties)
        return Result(command.argv, 0, text, "")


class TestReadAbove:
    def test_what_lies_above_is_read_in_one_go(self) -> None:
        host = Reader({})
        found = read_above(host, table(root("tank/a/b")), "tank/a/b", ("type",))
        assert sorted(found) == ["tank", "tank/a"]
        assert len(host.commands) == 1

    def test_roots_that_lie_elsewhere_are_read_with_what_is_above_them(self) -> None:
        found = read_above(Reader({}), table(dataset("tank/c", "tank/o/r")), "tank/c", ("type",))
        assert sorted(found) == ["tank", "tank/o", "tank/o/r"]

    @pytest.mark.parametrize("name", [None, "tank"])
    def test_where_all_was_read_nothing_is_read(self, name: str | None) -> None:
        host = Reader({})
        assert read_above(host, table(root(), root("tank/a")), name, ("type",)) == {}
        assert host.commands == []


def test_an_offer_is_shown_without_its_text() -> None:
    assert HEX not in repr(candidates(root(), Offers({"tank": (Offer("here", HEX),)}), {}, True))
