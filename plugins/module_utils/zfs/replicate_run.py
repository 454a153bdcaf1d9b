# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a stream from one end to the other, and runs what is to be run at the target.

The kernel moves the bytes: the two programs share a pipe, and this process only reads what they say. So nothing is
copied through Python, and nothing of the stream can get into a message.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import selectors
import signal
import subprocess
import time
import typing as t
from dataclasses import dataclass, field

from ..command import Command, HostRunner, Runner
from ..errors import StorageError, in_a_sentence
from ..plan import Action, act
from ..secrets import Key, Mask, generate
from . import keystore
from .replicate_progress import Meter, ProgressFile
from .state import run_zfs

# Bytes. What Linux allows everybody; more than the usual 64 KiB keeps both ends busy.
_PIPE_SIZE = 1 << 20
# Seconds that one end gets to tell why it fails, after the other one has ended.
_GRACE = 30.0
# Seconds for a killed process to go; one that is stuck in the kernel does not.
_REAP = 10.0
_TICK = 0.5
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# The exit status that a shell gives a program that SIGTERM has ended.
_ENDED = 143
# Characters of what an end said that are worth keeping; the reason comes last.
_SAID = 8000
# What zfs send tells of a token.
_CONTENTS = re.compile(r"^(?:resume token contents:|nvlist version: \d+|\s+\w+ = .*)$", re.MULTILINE)
_TOKEN = re.compile(r"\b\d-[0-9a-f]+-[0-9a-f]+-[0-9a-f]{40,}\b")

# The key comes first on standard input, as a line, and the stream behind it. The shell reads no further than that line.
WITH_KEY = 'IFS= read -r key || exit 1; exec 4<&0; printf "%s\\n" "$key" | "$@" 3<&0 0<&4 4<&-'
# Where the program behind it finds the key then.
KEY_FD = "file:///dev/fd/3"


class End(Runner, t.Protocol):
    """A host that one end of a stream runs on."""

    def start(self, command: Command, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        """Start a program with a pipe for what it says."""


@dataclass
class Sent:
    """One stream that was carried over."""

    title: str
    source: str
    target: str
    estimate: int
    seconds: float
    resumed: bool

    def row(self) -> dict[str, t.Any]:
        return {
            "source": self.source,
            "target": self.target,
            "estimated_bytes": self.estimate,
            "seconds": round(self.seconds, 1),
            "resumed": self.resumed,
        }


class ReplicaRunner(HostRunner):
    """Runs programs on this host, the source; knows the target, its lock on this host, and what was carried over."""

    def __init__(self, mask: Mask, progress: ProgressFile) -> None:
        super().__init__(mask)
        self.progress = progress
        self.target: End = self
        self.lock = ""
        self.sent: list[Sent] = []


class Broken(StorageError):
    """A stream ended before all of it was received."""


class Stalled(StorageError):
    """Nothing has moved for too long."""


def replica_runner(runner: Runner) -> ReplicaRunner:
    """The runner of this module, which alone can do what these steps do."""
    if not isinstance(runner, ReplicaRunner):
        raise TypeError("a step of a replication needs the runner of a replication")
    return runner


@dataclass(frozen=True)
class AtTarget:
    """An action that is done at the target."""

    action: Action

    def __call__(self, runner: Runner) -> None:
        there = replica_runner(runner).target
        if isinstance(self.action, Command):
            run_zfs(there, self.action)
        else:
            act(self.action, there)


@dataclass(frozen=True)
class StoreTargetKey:
    """Writes the key file of a new replica at the target, durable before the first byte is received."""

    path: str
    key: Key | None = field(repr=False)
    key_format: str = "hex"
    remote: bool = False

    def __call__(self, runner: Runner) -> None:
        key = generate(self.key_format) if self.key is None else self.key
        if not self.remote:
            keystore.store(self.path, key)
            return
        replica_runner(runner).target.run(
            Command(("sh", "-c", _STORE_KEY, "sh", self.path), stdin=key.file_content(), timeout=60)
        )


# Under a name of its own until it is complete; a file that is there is never overwritten. One line, since the login
# shell of the other host may be csh, which takes no line break within quotes.
_STORE_KEY = (
    'umask 077; mkdir -p "$(dirname "$1")" && cat >"$1.$$" && chmod 400 "$1.$$" && sync && ln "$1.$$" "$1"; '
    'result=$?; rm -f "$1.$$"; sync; exit $result'
)


@dataclass(frozen=True)
class Transfer:
    """Carries one stream over.

    ``key`` is put in front of the stream, for a receiving command that expects it there. ``stall_timeout``: seconds
    without any progress after which it counts as broken, 0 for never.
    """

    title: str
    source: str
    target: str
    send: Command
    receive: Command
    key: Key | None = field(default=None, repr=False)
    stall_timeout: float = 300.0
    resumed: bool = False

    def __call__(self, runner: Runner) -> None:
        own = replica_runner(runner)
        begun = time.monotonic()
        meter = Meter()
        _carry(own, self, meter, begun)
        own.sent.append(Sent(self.title, self.source, self.target, meter.total, time.monotonic() - begun, self.resumed))


def _carry(runner: ReplicaRunner, transfer: Transfer, meter: Meter, begun: float) -> None:
    reading, writing = os.pipe()
    receiver: subprocess.Popen[bytes] | None = None
    sender: subprocess.Popen[bytes] | None = None
    try:
        try:
            _widen(writing)
            with held_back():
                receiver = runner.target.start(transfer.receive, reading, subprocess.DEVNULL)
            if transfer.key is not None:
                os.write(writing, transfer.key.stdin())
            with held_back():
                sender = runner.start(transfer.send, subprocess.DEVNULL, writing)
        finally:
            # Held open here, they would keep each end from noticing that the other one is gone.
            os.close(reading)
            os.close(writing)
        _Watch(runner, transfer, sender, receiver, meter, begun).until_the_end()
    finally:
        for process in (sender, receiver):
            if process is not None:
                end_process(process)


def _widen(pipe: int) -> None:
    """Let the pipe hold more, where that can be had."""
    # fcntl.F_SETPIPE_SZ is there since Python 3.10; its value on Linux has always been this.
    if hasattr(os, "posix_fadvise") and os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, 1031, _PIPE_SIZE)


class _Watch:
    """Reads what both ends say until both have ended, or one of them has to be ended."""

    def __init__(
        self,
        runner: ReplicaRunner,
        transfer: Transfer,
        sender: subprocess.Popen[bytes],
        receiver: subprocess.Popen[bytes],
        meter: Meter,
        begun: float,
    ) -> None:
        self._runner = runner
        self._transfer = transfer
        self._sender = sender
        self._receiver = receiver
        self._meter = meter
        self._begun = begun
        self._said = {id(sender): b"", id(receiver): b""}
        self._line = b""
        self._moved = time.monotonic()
        self._ended: float | None = None

    def until_the_end(self) -> None:
        """:raises StorageError: the stream broke, or stands still"""
        with selectors.DefaultSelector() as selector:
            for process in (self._sender, self._receiver):
                if process.stderr is not None:
                    os.set_blocking(process.stderr.fileno(), False)
                    selector.register(process.stderr, selectors.EVENT_READ, process)
            while self._running() or selector.get_map():
                for key, _events in selector.select(_TICK if selector.get_map() else 0):
                    if not self._listen(key.data):
                        selector.unregister(key.fileobj)
                if not selector.get_map():
                    self._pause()
                self._runner.progress.write(self._transfer.title, self._meter, self._begun)
                if not self._running():
                    # A process that one of them left behind may hold its standard error for ever.
                    break
                self._check()
        for process in (self._sender, self._receiver):
            while self._listen(process):
                pass
        self._verdict()

    def _running(self) -> bool:
        return self._sender.poll() is None or self._receiver.poll() is None

    def _pause(self) -> None:
        for process in (self._sender, self._receiver):
            if process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_TICK)
                return

    def _listen(self, process: subprocess.Popen[bytes]) -> bool:
        """Take what a process has said; False when there is nothing more to come, or nothing now."""
        if process.stderr is None:
            return False
        try:
            data = os.read(process.stderr.fileno(), 65536)
        except BlockingIOError:
            return False
        said = self._measure(data) if process is self._sender else data
        self._said[id(process)] = (self._said[id(process)] + said)[-_SAID:]
        return bool(data)

    def _measure(self, data: bytes) -> bytes:
        """Take the lines that tell how far it is; returns the others."""
        *lines, self._line = (self._line + data).split(b"\n")
        if not data:
            lines, self._line = [*lines, self._line], b""
        rest: list[bytes] = []
        for line in lines:
            before = (self._meter.sent, self._meter.steps)
            if not self._meter.take(line.decode("utf-8", "replace")):
                rest.append(line + b"\n" if line else b"")
            elif (self._meter.sent, self._meter.steps) != before:
                self._moved = time.monotonic()
        return b"".join(rest)

    def _check(self) -> None:
        now = time.monotonic()
        statuses = (self._sender.poll(), self._receiver.poll())
        if self._ended is None and any(status is not None for status in statuses):
            self._ended = self._moved = now
        broken = statuses[1] is not None or statuses[0] not in (None, 0)
        if broken and self._ended is not None and now - self._ended > _GRACE:
            # It does not notice that nobody listens, or that nothing comes any more.
            for process in (self._sender, self._receiver):
                end_process(process)
            self._verdict()
        limit = self._transfer.stall_timeout
        if limit and now - self._moved > limit:
            for process in (self._sender, self._receiver):
                end_process(process)
            raise Stalled(
                f"Nothing has moved for {limit:.0f} seconds; {self._meter.sent} bytes were sent until then. "
                + self._words(),
                hint=_AGAIN,
                **self._details(),
            )

    def _verdict(self) -> None:
        if self._sender.returncode == 0 and self._receiver.returncode == 0:
            return
        raise Broken(self._words(), hint=self._hint(), **self._details())

    def _words(self) -> str:
        parts = []
        for name, process in (("The sending end", self._sender), ("The receiving end", self._receiver)):
            said = in_a_sentence(_CONTENTS.sub("", self._text(process)))
            if not said and process is self._receiver and process.returncode == 255:
                said = "the connection to the target host was lost"
            parts.append(f"{name} {_end_of(process)}{': ' + said if said else ''}.")
        return " ".join(parts)

    def _hint(self) -> str:
        said = self._text(self._sender) + self._text(self._receiver)
        for sentence, hint in _HINTS:
            if sentence in said:
                return hint
        return _AGAIN

    def _text(self, process: subprocess.Popen[bytes]) -> str:
        return _TOKEN.sub("TOKEN", self._runner.redact(self._said[id(process)]))

    def _details(self) -> dict[str, t.Any]:
        return {
            "send": {
                "cmd": list(self._transfer.send.argv),
                "rc": self._sender.returncode,
                "stderr": self._text(self._sender),
            },
            "receive": {
                "cmd": list(self._transfer.receive.argv),
                "rc": self._receiver.returncode,
                "stderr": self._text(self._receiver),
            },
        }


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """How a process ended, in words."""
    status = process.returncode
    if status is None:
        return "was still running"
    if status == -signal.SIGPIPE:
        return "was ended because nobody read on (SIGPIPE)"
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


_AGAIN = "What was received is kept: run this again to go on where it broke off."
_HINTS = (
    ("IV set guid mismatch", "The replica was once received decrypted; raw increments need a new target."),
    ("has been modified", "Somebody has written to the replica: see 'force', and keep it read-only."),
    ("does not match incremental source", "The replica has a snapshot of its own: see 'force'."),
    ("pool must be upgraded", "Upgrade the target pool ('zpool upgrade'), or send to another one."),
    ("space quota exceeded", "Make room at the target, then run this again."),
    ("out of space", "Make room at the target, then run this again."),
    ("encryption key does not match", "The target is no replica of this source. Choose another target."),
    ("is busy", "Another stream is being received there, or the one that broke off is just ending. Run this again."),
    ("contains partially-complete state", "Another stream broke off there: see 'resume'."),
)


def end_in_order() -> None:
    """Let a signal that ends this process end both ends of a stream first, which would go on without the lock."""

    def stop(number: int, frame: t.Any) -> None:
        del number, frame
        for one in _ENDING:
            # A second one must not break off what the first has begun.
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(_ENDED)

    for one in _ENDING:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, stop)


@contextlib.contextmanager
def held_back() -> t.Iterator[None]:
    """A signal that comes while an end is started, and nobody could end it yet, counts afterwards."""
    came: list[int] = []

    def note(number: int, frame: t.Any) -> None:
        del frame
        came.append(number)

    before = {one: signal.getsignal(one) for one in _ENDING}
    own = {one: handler for one, handler in before.items() if callable(handler)}
    for one in own:
        signal.signal(one, note)
    try:
        yield
    finally:
        for one, handler in own.items():
            signal.signal(one, handler)
    for number in came[:1]:
        os.kill(os.getpid(), number)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process with those it has started, politely first: zfs receive keeps what it has got then."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REAP)
    if process.stderr is not None and process.returncode is not None:
        with contextlib.suppress(OSError):
            process.stderr.close()
