# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do so that a KMIP server has the keys a task wants.

A rotation stores the new key beside the former one, under a name of its own, and reads it back. Only then do the two
change names. So whatever the moment a run ends at, both keys are on the server and their names tell which is which, and
the next run goes on from there.
"""

from __future__ import annotations

import secrets as random_source
import typing as t

from ..errors import BadInput, StorageError
from ..plan import Change, Failure, Plan, Step, Work, join
from ..secrets import is_hex, parse_offered
from .link import LinkFailed
from .names import NEXT, PREVIOUS
from .objects import ACTIVE, PRE_ACTIVE, SECRET_DATA, SYMMETRIC_KEY, Held, Stored, listed
from .options import Wish
from .read import Found, Server, Survey

Generate = t.Callable[[str], str]
"""Makes a new random key of a format, as text."""

_NEW = "given by the server"


class _Refusal(Exception):
    """A key with which nothing can be done."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def decide(server: Server, generate: Generate, wishes: t.Iterable[Wish], found: Survey) -> Plan:
    """The plan for all keys. It asks nothing: ``server`` and ``generate`` are for the steps."""
    return join(_decide_one(server, generate, wish, found) for wish in wishes)


def _decide_one(server: Server, generate: Generate, wish: Wish, survey: Survey) -> Plan:
    found = survey.keys[wish.label]
    if found.fault is not None:
        return Plan(failures=(found.fault,))
    try:
        work = _Planner(server, generate, wish, found)
        if wish.state == "absent":
            return work.absent()
        if wish.state == "present":
            return work.present()
        return work.rotated(survey.settled)
    except _Refusal as refusal:
        return Plan(failures=(Failure(wish.label, refusal.message, refusal.hint),))


class _Planner:
    """Makes the plan for one key."""

    def __init__(self, server: Server, generate: Generate, wish: Wish, found: Found) -> None:
        self._server = server
        self._generate = generate
        self._wish = wish
        self._name = wish.name
        self._current = self._one(wish.label, found.current)
        self._next = self._one(self._name + NEXT, found.next)
        self._former = self._one(self._name + PREVIOUS, found.previous)

    # What is wanted

    def present(self) -> Plan:
        held = self._current
        if held is None:
            self._refuse_leftovers()
            if self._wish.value is None and not self._wish.generate:
                raise _Refusal(
                    f"There is no key '{self._name}' on the KMIP server {self._server.place}.",
                    "Give its value, or generate: true. Keys of other clients are invisible to this one.",
                )
            fresh = _Fresh(self._server, self._name, self._new_text)
            change = Change((self._name, "state"), "absent", ACTIVE)
            hint = "Run the task again: it finds what is there, and goes on."
            return Plan((self._step(f"Store a key as '{self._name}' and read it back", fresh.store, change, hint),))
        if self._wish.value is not None and not _same(held, self._wish.value):
            raise _Refusal(
                f"'{self._name}' on the KMIP server {self._server.place} (uid '{held.uid}') is another key than the "
                "one that is given.",
                "Nothing was overwritten. To replace it, use state: rotated.",
            )
        return Plan(self._activation(held, self._name))

    def absent(self) -> Plan:
        wish, held = self._wish, self._current
        left = [one for one in (self._next, self._former) if one is not None]
        warning = (
            f"What a rotation of '{wish.label}' left is not removed with it: {_both(left)}. One of these may be what "
            "opens the dataset."
        )
        warnings = (warning,) if left else ()
        if held is None:
            return Plan(warnings=warnings)
        if wish.uid and wish.name and wish.name not in held.stored.names:
            raise _Refusal(f"'{wish.uid}' is not '{wish.name}': its name is {listed(held.stored.names) or 'none'}.")
        if wish.value is not None and not _same(held, wish.value):
            raise _Refusal(
                f"'{wish.label}' (uid '{held.uid}') is another key than the one that is given; it was not touched."
            )
        return Plan(self._removal(held, wish.label, wish.label), warnings)

    def rotated(self, settled: bool) -> Plan:
        """A rotation that was interrupted is finished, and no second one begun."""
        wish, current, coming, former = self._wish, self._current, self._next, self._former
        kept = former is not None and wish.keep_previous
        if settled and current is not None and coming is None and (former is None or kept):
            return Plan()
        if current is not None and coming is None:
            if wish.value is not None and _same(current, wish.value):
                return join((Plan(self._activation(current, self._name)), self._retirement(former)))
            if former is None:
                return self._rotation(current)
            if wish.value is None and wish.keep_previous:
                return join((Plan(self._activation(current, self._name)), self._waiting(former)))
            if wish.value is None and former.state != ACTIVE:
                # Its removal had begun, by a run like this one or by a person.
                return join((Plan(self._activation(current, self._name)), self._retirement(former)))
        if former is not None and current is not None:
            raise _Refusal(
                f"The key before '{self._name}' is still kept as '{self._name}{PREVIOUS}' (uid '{former.uid}').",
                "Once ZFS opens its dataset with the present key, remove that with state: absent and its name. Then "
                "rotate again.",
            )
        if coming is not None:
            return self._resumption(coming)
        if former is not None:
            raise _Refusal(
                f"Of '{self._name}' there is only the former key, as '{self._name}{PREVIOUS}' (uid '{former.uid}').",
                "Store it under its name: state: present with value from the lookup of that uid.",
            )
        raise _Refusal(
            f"There is no key '{self._name}' on the KMIP server {self._server.place} that could be rotated.",
            "Use state: present to store one. Keys of other clients are invisible to this one.",
        )

    # The parts of a rotation

    def _rotation(self, current: Held) -> Plan:
        fresh = _Fresh(self._server, self._name + NEXT, self._new_text)
        title = f"Store a new key as '{self._name}{NEXT}' and read it back"
        hint = f"'{self._name}' is still the former key, uid '{current.uid}'. Run the task again to finish."
        store = self._step(title, fresh.store, None, hint)
        return join((Plan((store,)), self._switch(current, fresh.renamed, _NEW)))

    def _resumption(self, coming: Held) -> Plan:
        """Finish with the new key that an earlier run has left."""
        current, former = self._current, self._former
        if not self._is_wanted(coming):
            if current is None:
                raise _Refusal(
                    f"A rotation of '{self._name}' was interrupted, with other keys than the one that is given: "
                    f"{_both([one for one in (coming, former) if one is not None])}.",
                    "Finish it with generate: true, which takes the new key that is there, or with that key as value.",
                )
            name = f"{self._name}{NEXT}"
            return join(
                (
                    Plan(self._removal(coming, name, "the key that an interrupted rotation left")),
                    self._rotation(current),
                )
            )
        start = Plan(self._activation(coming, self._name + NEXT))
        move = self._renaming(coming.stored, self._name + NEXT, self._name)
        if current is not None:
            return join((start, self._switch(current, move, coming.uid)))
        change = Change((self._name, "uid"), None, coming.uid)
        step = self._step(f"Finish the rotation: rename '{coming.uid}' to '{self._name}'", move, change, _again())
        return join((start, Plan((step,)), self._retirement(former)))

    def _switch(self, current: Held, move: Work, uid: str) -> Plan:
        """The former and the new key change names; both are on the server at any moment."""
        former = self._name + PREVIOUS
        away = self._step(
            f"Rename the former key '{current.uid}' to '{former}'",
            self._renaming(current.stored, self._name, former),
            Change((former, "uid"), None, current.uid),
            f"'{self._name}' is still the former key, the new one is '{self._name}{NEXT}'. {_again()}",
        )
        there = self._step(
            f"Rename the new key to '{self._name}'",
            move,
            Change((self._name, "uid"), current.uid, uid),
            f"The former key is '{former}' (uid '{current.uid}'), the new one '{self._name}{NEXT}'. {_again()}",
        )
        return join((Plan((away, there)), self._retirement(current)))

    def _retirement(self, former: Held | None) -> Plan:
        if former is None or self._wish.keep_previous:
            return Plan()
        return Plan(self._removal(former, self._name + PREVIOUS, "the former key"))

    def _waiting(self, former: Held) -> Plan:
        """No second rotation before the first one is through: ZFS may still need the former key."""
        warning = (
            f"'{self._name}' has been rotated, and its former key is still kept as '{self._name}{PREVIOUS}' (uid "
            f"'{former.uid}'): no further rotation was begun. Remove that once ZFS opens the dataset with the present "
            "key."
        )
        return Plan(warnings=(warning,))

    def _is_wanted(self, coming: Held) -> bool:
        """Whether the new key that is there is the one this task would have stored."""
        if coming.text is None:
            return False
        if self._wish.value is not None:
            return _same(coming, self._wish.value)
        try:
            parse_offered(self._wish.generate, coming.text, "the key")
        except BadInput:
            return False
        return True

    # Steps

    def _activation(self, held: Held, name: str) -> tuple[Step, ...]:
        if held.state == ACTIVE:
            return ()
        if held.state != PRE_ACTIVE:
            raise _Refusal(
                f"'{name}' on the KMIP server {self._server.place} (uid '{held.uid}') is {_words(held.state)}, not "
                "active.",
                "It can still be read by the lookup with allow_inactive. It was taken out of service by somebody: "
                "remove it with state: absent and store the key anew, or choose another name.",
            )
        change = Change((name, "state"), held.state, ACTIVE)
        activate = self._server.activate
        return (self._step(f"Activate '{name}' ({held.uid})", lambda _runner: activate(held.uid), change, _again()),)

    def _removal(self, held: Held, name: str, what: str) -> tuple[Step, ...]:
        """Revoke, then destroy: a server destroys nothing that is active."""
        server, uid = self._server, held.uid
        label = f"'{what}'" if what == name else what
        steps: list[Step] = []
        hint = f"It is still on the server, as '{name}' (uid '{uid}'). {_again()}"
        if held.state == ACTIVE:
            change = Change((name, "state"), ACTIVE, "deactivated")
            steps.append(self._step(f"Revoke {label} ({uid})", lambda _runner: server.revoke(uid), change, hint))
        change = Change((name, "state"), held.state, "absent")
        steps.append(self._step(f"Destroy {label} ({uid})", lambda _runner: server.destroy(uid), change, hint))
        return tuple(steps)

    def _renaming(self, stored: Stored, old: str, new: str) -> Work:
        return lambda _runner: _rename(self._server, stored.uid, old, new)

    def _step(self, title: str, action: Work, change: Change | None, hint: str) -> Step:
        changes = () if change is None else (change,)
        return Step(title, action, changes, hint=hint, branch=self._wish.label)

    # What is refused

    def _one(self, name: str, held: tuple[Held, ...]) -> Held | None:
        """The only object of that name that is a key, None if there is none."""
        if len(held) > 1:
            raise _Refusal(
                f"'{name}' is the name of {len(held)} objects on the KMIP server {self._server.place}, with the uids "
                f"{listed(one.uid for one in held)}.",
                "Nothing was done. Read each with the lookup by its uid, see which key opens the dataset, and remove "
                "the others with state: absent and their uid.",
            )
        for one in held:
            if one.stored.kind not in (SECRET_DATA, SYMMETRIC_KEY):
                raise _Refusal(f"'{name}' (uid '{one.uid}') is a {_words(one.stored.kind)}, not a key.")
            return one
        return None

    def _refuse_leftovers(self) -> None:
        left = [one for one in (self._next, self._former) if one is not None]
        if left:
            raise _Refusal(
                f"A rotation of '{self._name}' was interrupted: {_both(left)}.",
                "Run it again, with state: rotated: it goes on where it stopped.",
            )

    def _new_text(self) -> str:
        return self._generate(self._wish.generate) if self._wish.value is None else self._wish.value


class _Fresh:
    """An object that a step makes, for the step that names it."""

    def __init__(self, server: Server, name: str, text: t.Callable[[], str]) -> None:
        self._server = server
        self._name = name
        self._text = text
        self._stored: Stored | None = None

    def store(self, _runner: object) -> None:
        """Register the key and see that it comes back as it went; only then activate it."""
        text = self._text()
        uid = self._server.register(self._name, text)
        try:
            self._stored = self._server.describe(uid)
            came_back = self._stored is not None and _equal(self._server.fetch(self._stored), text)
            if came_back:
                self._server.activate(uid)
        except StorageError as error:
            kind = LinkFailed if isinstance(error, LinkFailed) else StorageError
            raise kind(
                f"{error.message} The key is stored as '{self._name}' with uid '{uid}', but not active, or not proven "
                "to be readable.",
                hint=error.hint,
            ) from None
        if not came_back:
            raise self._useless(uid)

    def _useless(self, uid: str) -> StorageError:
        """Take away what is another key than the one that was stored, lest a later run takes it for good."""
        message = f"What comes back of '{self._name}' (uid '{uid}') is not the key that was stored; "
        hint = "The server is broken, or somebody else writes there."
        try:
            self._server.destroy(uid)
        except LinkFailed:
            raise
        except StorageError as error:
            return StorageError(
                f"{message}it is not active, and could not be destroyed: {error.message}",
                hint=f"{hint} Remove that uid with state: absent before anything else is stored.",
            )
        return StorageError(f"{message}it was destroyed, and is not used.", hint=hint)

    def renamed(self, _runner: object) -> None:
        """Give it its lasting name."""
        if self._stored is None:
            raise StorageError(f"'{self._name}' was not stored.")
        _rename(self._server, self._stored.uid, self._name, self._name[: -len(NEXT)])


def _rename(server: Server, uid: str, old: str, new: str) -> None:
    """Rename an object as it is now, and see that it has the new name, and all its other ones as before.

    What follows a rename may be that the former key is destroyed, by the word of these names.
    """
    before = server.describe(uid)
    if before is None or old not in before.names:
        raise StorageError(
            f"'{uid}' is not '{old}' any more.", hint="Somebody else changes the same keys; run the task again then."
        )
    server.rename(before, old, new)
    after = server.describe(uid)
    wanted = sorted(new if name == old else name for name in before.names)
    if after is None or sorted(after.names) != wanted:
        raise StorageError(
            f"After renaming, '{uid}' has other names than it should: "
            f"{listed(() if after is None else after.names) or 'none'} instead of {listed(wanted)}.",
            hint="The server counts names in its own way, or somebody else changes the same keys. Nothing was "
            "destroyed.",
        )


def _same(held: Held, value: str) -> bool:
    return held.text is not None and _equal(held.text, value)


def _equal(one: str, other: str) -> bool:
    """Whether two texts are the same key: hexadecimal digits are the same in either case."""
    if is_hex(one) and is_hex(other):
        one, other = one.lower(), other.lower()
    return random_source.compare_digest(one.encode("utf-8"), other.encode("utf-8"))


def _both(held: t.Iterable[Held]) -> str:
    return " and ".join(f"{listed(one.stored.names)} (uid '{one.uid}', {_words(one.state)})" for one in held)


def _words(name: str) -> str:
    return name.replace("_", "-" if name == PRE_ACTIVE else " ")


def _again() -> str:
    return "Run the task again to finish."
