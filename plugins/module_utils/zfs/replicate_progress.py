# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a stream is: read off what ``zfs send -vP`` says, and kept in a file for whoever watches."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import typing as t

from ..errors import BadInput

_SIZE = re.compile(r"size\t(\d+)")
# Time of day, bytes, with -vv blocks, and the snapshot.
_SENT = re.compile(r"\d\d:\d\d:\d\d\t(\d+)\t(?:\d+\t)?(.+@.+)")


class Meter:
    """Counts what one stream has sent. ``steps`` grows while zfs works out how much there is to send."""

    def __init__(self) -> None:
        self.total = 0
        self.steps = 0
        self._sent: dict[str, int] = {}

    @property
    def sent(self) -> int:
        """Bytes of all snapshots in the stream up to now."""
        return sum(self._sent.values())

    def add(self, count: int) -> None:
        """Count bytes of a stream that is read here."""
        self._sent[""] = self._sent.get("", 0) + count

    def take(self, line: str) -> bool:
        """Understand a line of zfs; False for one that does not tell how far it is."""
        size = _SIZE.fullmatch(line)
        if size or line.startswith(("full\t", "incremental\t")):
            self.total = int(size.group(1)) if size else self.total
            self.steps += 1
            return True
        sent = _SENT.fullmatch(line)
        if sent:
            self._sent[sent.group(2)] = int(sent.group(1))
            return True
        return False


class ProgressFile:
    """A file that only its owner can read, replaced as a whole, and gone when the run ends."""

    def __init__(self, path: str | None) -> None:
        """:raises BadInput: there can't be such a file"""
        self._path = path
        self._last = 0.0
        if path is None:
            return
        if not path.startswith("/"):
            raise BadInput(f"progress_file is '{path}'; wanted is an absolute path on the source.")
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise BadInput(f"The folder of progress_file {path} can't be made: {error.strerror}.") from None

    def write(self, what: str, meter: Meter, begun: float, final: bool = False) -> None:
        """Tell how far a stream is, at most once a second."""
        now = time.monotonic()
        if self._path is None or (now - self._last < 1 and not final):
            return
        self._last = now
        seconds = round(now - begun, 1)
        content = {"what": what, "bytes": meter.sent, "total": meter.total, "seconds": seconds, "done": final}
        with contextlib.suppress(OSError):
            temporary = self._path + ".new"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(temporary, self._path)

    def close(self) -> None:
        """Take the file away."""
        if self._path is not None:
            for path in (self._path, self._path + ".new"):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def parse_progress(text: str) -> dict[str, t.Any] | None:
    """What such a file says, None if it says nothing."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("what"), str):
        return None
    if not all(isinstance(found.get(name), (int, float)) for name in ("bytes", "total", "seconds")):
        return None
    return found


def tell(found: t.Mapping[str, t.Any], before: t.Mapping[str, t.Any] | None) -> str:
    """One line for a person: bytes, how much of all, rate since the last look, and how long it will take."""
    sent, total, seconds = found["bytes"], found["total"], found["seconds"]
    if not sent and not total:
        # Of what is in no snapshot, zfs does not tell how far it is.
        return f"{found['what']}: {_clock(seconds)} up to now"
    if before is not None and before["what"] == found["what"] and seconds > before["seconds"]:
        rate = max(0.0, (sent - before["bytes"]) / (seconds - before["seconds"]))
    else:
        rate = sent / seconds if seconds > 0 else 0.0
    parts = [f"{human(sent)} of about {human(total)}" if total else human(sent)]
    if total:
        parts.append(f"{min(100, 100 * sent // total):.0f} %")
    parts.append(f"{human(rate)}/s")
    if total and rate > 0:
        parts.append(f"{_clock(max(0.0, total - sent) / rate)} left")
    return f"{found['what']}: {', '.join(parts)}"


def human(count: float) -> str:
    """Bytes in a unit that leaves a readable number."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
