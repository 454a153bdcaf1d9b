# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking away what was left on a disk, so that it is blank for a new owner.

Only signatures are overwritten, not data: this is no secure erasure.
"""

from __future__ import annotations

import os
import typing as t

from ..command import Runner
from ..errors import Refused, StorageError
from ..plan import Change, Step
from .content import DiskContent, Finding, probe
from .host import Host, this_host
from .identity import number_of


def wipe_step(content: DiskContent, host: Host | None = None) -> Step:
    """The step that makes a disk blank again, partitions first.

    Right before writing, the disk is looked at once more: it must be the same one (device number, size, serial
    number), hold nothing that was not found before, and be in use by nothing.

    :raises Refused: it is in use or can't be written, now; the action raises it when that happens later
    :raises ValueError: it is blank already
    """
    check_wipeable(content)
    if content.blank:
        raise ValueError(f"{content.path} is blank: there is nothing to wipe")

    def work(runner: Runner) -> None:
        _wipe(runner, content, this_host() if host is None else host)

    return Step(
        title=f"Wipe {describe(content)}: {content.words()}",
        action=work,
        changes=(Change(("disks", content.path, "content"), content.words(), None),),
    )


def check_wipeable(content: DiskContent) -> None:
    """Whether a disk may be wiped at all.

    :raises Refused: it is in use, or can't be written
    """
    if content.access != "write":
        raise Refused(f"{content.path} can't be wiped: {content.problem}", disk=content.path)
    if content.used:
        words = ", ".join(f"{finding.what} ({finding.where})" for finding in content.used)
        raise Refused(
            f"{content.path} can't be wiped while it is in use: {words}.",
            hint="Unmount, export or stop what uses it, if it is the right disk.",
            disk=content.path,
        )


def check_same(before: DiskContent, now: DiskContent) -> None:
    """Whether a path still leads to the disk that was examined.

    :raises Refused: it does not
    """
    facts = (
        ("device", before.device, now.device),
        ("device number", before.number, now.number),
        ("size", before.size, now.size),
        ("serial number", before.serial, now.serial),
        ("WWN", before.wwn, now.wwn),
    )
    for name, was, found in facts:
        if was != found:
            raise Refused(
                f"{before.path} is not the disk any more that was examined: its {name} is '{found}', it was '{was}'. "
                "Nothing was written.",
                hint="Disks were added or removed meanwhile; run the task again.",
                disk=before.path,
            )


def check_unchanged(before: DiskContent, now: DiskContent) -> None:
    """Whether a path still leads to the disk that was examined, with nothing new on it.

    :raises Refused: it does not
    """
    check_same(before, now)
    check_wipeable(now)
    known = {(finding.type, finding.where, finding.what) for finding in before.findings}
    new = [finding for finding in now.findings if (finding.type, finding.where, finding.what) not in known]
    if new:
        words = ", ".join(f"{finding.what} ({finding.where})" for finding in new)
        raise Refused(
            f"{before.path} holds something now that was not there when it was examined: {words}. Nothing was written.",
            hint="Somebody else is using this disk; find out who before the task is run again.",
            disk=before.path,
        )


def describe(content: DiskContent) -> str:
    """A disk in words that let a person find it: path, serial number and size."""
    facts = [f"serial {content.serial}"] if content.serial else []
    facts.append(size_words(content.size))
    return f"{content.path} ({', '.join(facts)})"


def size_words(size: int) -> str:
    """Bytes as disk makers count, in powers of 1000: ``4.0 TB``."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000:
            return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} PB"


def _wipe(runner: Runner, content: DiskContent, host: Host) -> None:
    now = probe(runner, host.read_table(runner), content.path, host)
    check_unchanged(content, now)
    if now.blank:
        return
    for place in now.partitions[::-1]:
        host.erase(runner, place, _number(place), _spans(now.findings, place), whole=False)
    if now.partitions:
        # udev looks at the partitions that were just written, and the kernel can't forget them while it does.
        host.settle(runner)
        for place in now.partitions[::-1]:
            host.forget_partition(runner, place)
    whole = now.kind not in ("partition", "file")
    host.erase(runner, now.device, now.number, _spans(now.findings, now.device), whole)
    host.settle(runner)
    after = probe(runner, host.read_table(runner), content.path, host)
    if not after.blank:
        raise StorageError(
            f"{content.path} was wiped, but is still not blank: {after.words() or after.problem}.",
            hint="Another program may have written to it meanwhile, or the disk ignores writes.",
            disk=content.path,
        )


def _number(path: str) -> str:
    try:
        return number_of(os.stat(path))
    except OSError as error:
        raise Refused(
            f"{path} disappeared just before it would have been wiped: {error.strerror}.",
            hint="The partition table was changed meanwhile; run the task again.",
        ) from None


def _spans(findings: t.Iterable[Finding], place: str) -> tuple[tuple[int, int], ...]:
    return tuple(span for finding in findings if finding.where == place for span in finding.spans)
