# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the NAS under test: one long-lived process that carries out what the suite asks for.

    agent.py LIBRARY

Reads one JSON object a line from stdin and answers with one a line on stdout. Modules run in a fork of this process,
so that imports are paid for once and nothing survives a run. Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import hashlib
import importlib
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import time
import traceback
import typing as t
import zlib

Request = dict[str, t.Any]
Reply = dict[str, t.Any]

PACKAGE = "ansible_collections.nasops.encryption.plugins.modules"
KEY_FOLDERS = ("/etc/zfs/keys", "/root/keys")
WORK = "/root/work"
HISTORY = "/run/suite-zpool-history"
TOP = "/var/lib/suite-top-folders"
AUDIT_LOG = "/var/log/audit/audit.log"
AUDIT_RULES = "/etc/audit/rules.d/suite.rules"
AUDIT_UNIT = "suite-audit.service"
UNITS = "/etc/systemd/system"
# Bytes. Larger files in /run are databases of the system.
LARGE = 4 << 20

MIB = 1024 * 1024
BLKRRPART = 0x125F
BLKZEROOUT = 0x127F
BLKGETSIZE64 = 0x80081272


_RULES = """\
-D
-b 16384
--backlog_wait_time 60000
-f 1
-a always,exclude -F msgtype=PATH
-a always,exclude -F msgtype=CWD
-a always,exclude -F msgtype=PROCTITLE
-a always,exclude -F msgtype=BPRM_FCAPS
-a always,exclude -F msgtype=SERVICE_START
-a always,exclude -F msgtype=SERVICE_STOP
-a always,exit -F arch=b64 -S execve -S execveat -F success=1
-e 1
"""

# Debian's own unit begins after the filesystems, so after what unlocks them.
_UNIT = f"""\
[Unit]
Description=Record of all that is executed
DefaultDependencies=no
After=systemd-remount-fs.service
Before=nasops-unlock-drives.service nasops-unlock-drives-kmip.service zfs-import-cache.service zfs-import-scan.service
Before=nasops-zfs-unlock.service local-fs.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=forking
PIDFile=/run/auditd.pid
ExecStart=/usr/sbin/auditd
ExecStartPost=/usr/sbin/auditctl -R {AUDIT_RULES}
"""


class Failure(Exception):
    """A request that can't be carried out; the text goes back to the suite."""


# --- what was executed -------------------------------------------------------------------------------------------


class Execution(t.NamedTuple):
    """One successful execve."""

    pid: int
    parent: int
    argv: tuple[bytes, ...]


class Audit:
    """Every argv on this host, recorded by the kernel's audit system and auditd."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []
        self._offset = 0
        self._rest = b""
        self._callers: dict[bytes, tuple[int, int]] = {}
        self._marks = 0

    def start(self) -> None:
        with open("/etc/audit/auditd.conf", "w", encoding="ascii") as config:
            config.write(
                f"log_file = {AUDIT_LOG}\nlog_format = RAW\nwrite_logs = yes\nflush = none\nfreq = 0\n"
                "max_log_file = 2000\nmax_log_file_action = ignore\nspace_left = 2\nadmin_space_left = 1\n"
                "space_left_action = ignore\nadmin_space_left_action = ignore\n"
                "disk_full_action = ignore\ndisk_error_action = ignore\n"
                "name_format = none\nlocal_events = yes\nq_depth = 20000\npriority_boost = 4\n"
            )
        os.makedirs(os.path.dirname(AUDIT_LOG), mode=0o700, exist_ok=True)
        self._at_boot()
        call(["systemctl", "start", AUDIT_UNIT])
        self.sync()

    def _at_boot(self) -> None:
        """Let the record begin anew at every boot, before the pools are imported."""
        unit = f"{UNITS}/{AUDIT_UNIT}"
        if os.path.exists(unit):
            return
        for path, content in ((AUDIT_RULES, _RULES), (unit, _UNIT)):
            with open(path, "w", encoding="ascii") as file:
                file.write(content)
        os.makedirs(f"{UNITS}/sysinit.target.wants", exist_ok=True)
        os.symlink(unit, f"{UNITS}/sysinit.target.wants/{AUDIT_UNIT}")
        # it would take the rules away for a moment, and set them again
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{UNITS}/multi-user.target.wants/audit-rules.service")
        call(["systemctl", "daemon-reload"])

    def lost(self) -> int:
        """How many records the kernel had to drop."""
        match = re.search(r"^lost (\d+)$", call(["auditctl", "-s"]).stdout.decode(), re.M)
        return int(match.group(1)) if match else -1

    def sync(self) -> None:
        """Wait until everything that was executed up to now is in :attr:`executions`."""
        self._marks += 1
        mark = b"suite-mark-%d-%d" % (os.getpid(), self._marks)
        _send_audit_message(mark)
        end = time.monotonic() + 30
        while not self._read_until(mark):
            if time.monotonic() > end:
                raise Failure("auditd did not write a record within 30 seconds; nothing can be said about argv.")
            time.sleep(0.005)

    def _read_until(self, mark: bytes) -> bool:
        with open(AUDIT_LOG, "rb") as log:
            log.seek(self._offset)
            data = log.read()
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        found = False
        for line in lines:
            self._take(line)
            found = found or mark in line
        return found

    def _take(self, line: bytes) -> None:
        if b"msg=audit(" not in line:
            # torn by a power cut
            return
        if line.startswith(b"type=SYSCALL "):
            numbers = dict(re.findall(rb" (pid|ppid)=(\d+)", line))
            self._callers[_serial(line)] = (int(numbers.get(b"pid", 0)), int(numbers.get(b"ppid", 0)))
        elif line.startswith(b"type=EXECVE "):
            pid, parent = self._callers.pop(_serial(line), (0, 0))
            self.executions.append(Execution(pid, parent, arguments(line)))

    def descendants(self, pid: int, since: int) -> list[tuple[bytes, ...]]:
        """What a process and those it started have executed, from index ``since`` on."""
        family = {pid}
        found: list[tuple[bytes, ...]] = []
        for execution in self.executions[since:]:
            if execution.pid in family or execution.parent in family:
                family.add(execution.pid)
                found.append(execution.argv)
        return found


def _serial(line: bytes) -> bytes:
    return line.split(b"msg=audit(", 1)[1].split(b")", 1)[0]


def arguments(line: bytes) -> tuple[bytes, ...]:
    """The argv of an EXECVE record: quoted words as they are, all others in hex, long ones in pieces."""
    words: dict[int, bytes] = {}
    for index, value in re.findall(rb' a(\d+)(?:\[\d+\])?=("[^"]*"|[0-9A-F]+)(?= |$)', line):
        text = value[1:-1] if value.startswith(b'"') else bytes.fromhex(value.decode("ascii"))
        words[int(index)] = words.get(int(index), b"") + text
    return tuple(words[index] for index in sorted(words))


def _send_audit_message(text: bytes) -> None:
    """A record of our own; the kernel queues it behind all that happened before."""
    payload = text + b"\0"
    netlink_audit, audit_user, request = 9, 1005, 1
    header = struct.pack("=IHHII", 16 + len(payload), audit_user, request, 1, 0)
    with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_audit)) as link:
        link.sendto(header + payload, (0, 0))


# --- programs and scripts ----------------------------------------------------------------------------------------


def call(argv: t.Sequence[str], ok: bool = True) -> subprocess.CompletedProcess[bytes]:
    if not ok and shutil.which(argv[0]) is None:
        # a case may have hidden it
        return subprocess.CompletedProcess(argv, 127, b"", b"")
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ok and done.returncode:
        raise Failure(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done


def run_script(request: Request) -> Reply:
    """A bash script that is in no argv, since it may hold keys: bash reads it from memory."""
    script = os.memfd_create("script")
    os.write(script, request["script"].encode())
    os.lseek(script, 0, os.SEEK_SET)
    environment = {**os.environ, "LC_ALL": "C", "WORK": WORK, "KEYS": KEY_FOLDERS[1]}
    try:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", f"/proc/self/fd/{script}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(script,),
            env=environment,
            timeout=request.get("timeout", 150),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return {"rc": -1, "out": text(error.stdout or b""), "err": "the script did not end in time"}
    finally:
        os.close(script)
    return {"rc": done.returncode, "out": text(done.stdout), "err": text(done.stderr)}


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode("utf-8")


# --- modules -----------------------------------------------------------------------------------------------------


class Modules:
    """Runs modules of the collection."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._begun: Begun | None = None

    def run(self, request: Request) -> Reply:
        """Run ``module`` with ``args`` in a fork; optionally as another ``uid``, counting what it executes."""
        count = bool(request.get("count"))
        if count:
            self._audit.sync()
        since = len(self._audit.executions)
        begun = _begin(request)
        reply = _end(begun, request.get("timeout", 300))
        if count:
            self._audit.sync()
            executed = self._audit.descendants(begun.pid, since)
            reply["executed"] = [[os.path.basename(text(argv[0])), *map(text, argv[1:2])] for argv in executed]
        return reply

    def begin(self, request: Request) -> Reply:
        """Start a module as :meth:`run` does, and do not wait for it: something is to happen to it meanwhile."""
        if self._begun is not None:
            raise Failure("a module is running already")
        self._begun = _begin(request)
        return {"pid": self._begun.pid}

    def running(self, _request: Request) -> Reply:
        """Whether the module that was begun still runs."""
        ended = os.waitid(os.P_PID, self._in_progress().pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return {"running": ended is None}

    def strike(self, request: Request) -> Reply:
        """Kill what runs of the module that was begun, and tell whom.

        ``whom`` is "module" for it alone, "all" for it and what it has started, or "program" for what it has started
        that begins with ``words``.
        """
        pid, whom = self._in_progress().pid, request["whom"]
        struck: list[tuple[int, list[str]]] = []
        if whom == "program":
            words = request["words"]
            struck = _kill(one for one in _family(pid) if one[1][: len(words)] == words)
        elif whom == "all":
            # so that it starts nothing more
            os.kill(pid, signal.SIGSTOP)
            while True:
                more = _kill(one for one in _family(pid) if one not in struck)
                if not more:
                    break
                struck += more
        if whom != "program":
            struck += _kill([(pid, ["module"])])
        return {"struck": [" ".join(words) for _pid, words in struck]}

    def end(self, request: Request) -> Reply:
        """Wait for the module that was begun; the reply is that of :meth:`run`."""
        begun = self._in_progress()
        self._begun = None
        return _end(begun, request.get("timeout", 300))

    def _in_progress(self) -> Begun:
        if self._begun is None:
            raise Failure("no module is running")
        return self._begun


class Begun(t.NamedTuple):
    """A module that runs in a fork, and where it writes to."""

    pid: int
    out: int
    err: int
    since: float


def _begin(request: Request) -> Begun:
    module = importlib.import_module(f"{PACKAGE}.{request['module']}")
    out, err = os.memfd_create("out"), os.memfd_create("err")
    begun = Begun(os.fork(), out, err, time.monotonic())
    if begun.pid == 0:
        _run_in_child(module.main, request, out, err)
    return begun


def _end(begun: Begun, seconds: float) -> Reply:
    status = _wait(begun.pid, seconds)
    return {
        "status": os.waitstatus_to_exitcode(status) if status is not None else None,
        "out": _content(begun.out),
        "err": _content(begun.err),
        "seconds": time.monotonic() - begun.since,
    }


def _kill(processes: t.Iterable[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Those of these processes that were there to be killed."""
    killed = []
    for pid, words in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, words))
    return killed


def _family(ancestor: int) -> list[tuple[int, list[str]]]:
    """What a process has started, and what that has started: their numbers, and their words without folders."""
    parents: dict[int, int] = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        # what has ended meanwhile is not there any more
        with contextlib.suppress(OSError):
            # behind the name, which may hold blanks and brackets: state and parent
            state, parent = _read(path).rpartition(b")")[2].split()[:2]
            if state != b"Z":
                parents[int(path.split("/")[2])] = int(parent)
    family = {ancestor}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            break
        family |= more
    found = []
    for pid in sorted(family - {ancestor}):
        with contextlib.suppress(OSError):
            words = [text(word) for word in _read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]]
            found.append((pid, [os.path.basename(words[0]), *words[1:]] if words else []))
    return found


def _run_in_child(main: t.Callable[[], None], request: Request, out: int, err: int) -> t.NoReturn:
    code = 70
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), encoding="utf-8", write_through=True)
        os.chdir("/")
        uid = request.get("uid")
        if uid is not None:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        if request.get("engine") == "zfs":
            _use_programs()
        testing = importlib.import_module("ansible.module_utils.testing")
        with testing.patch_module_args(request["args"]):
            main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 71
    except BaseException:  # noqa: BLE001  (whatever it is, it must not get past the fork)
        traceback.print_exc()
    finally:
        os._exit(code)


def _use_programs() -> None:
    """Let this process change keys by programs, as on a host whose libzfs_core can't be used."""
    keys = importlib.import_module(f"{PACKAGE.rsplit('.', 1)[0]}.module_utils.zfs.keys")
    keys.engine = lambda runner, prefer="auto": keys.CommandKeys(runner)  # type: ignore[attr-defined]


def _wait(pid: int, seconds: float) -> int | None:
    """The wait status, or None for a process that had to be killed because it took too long."""
    handle = os.pidfd_open(pid)
    try:
        ready = select.select([handle], [], [], seconds)[0]
    finally:
        os.close(handle)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return status if ready else None


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb") as handle:
        return text(handle.read())


# --- disks -------------------------------------------------------------------------------------------------------


class Disks:
    """The data disks: every disk with a serial number that is not the root disk."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._blank: dict[str, tuple[str, ...]] = {}
        self._digests: dict[str, tuple[tuple[str, ...], int]] = {}

    def partition(self, serials: t.Sequence[str]) -> None:
        """Put one partition on each of these disks, which stays there: a pool on it costs a fraction of the time."""
        for disk in self.find(serials):
            call(["sgdisk", "--clear", "--new=1:0:0", disk["kernel"]])
        self.names.clear()

    def find(self, serials: t.Sequence[str], suffix: str = "") -> list[Reply]:
        """The disks with these serial numbers, in this order, with all their names.

        :param suffix: "1" for their first partitions instead
        """
        call(["udevadm", "settle", "--timeout=30"])
        part = f"-part{suffix}" if suffix else ""
        links: dict[str, dict[str, list[str]]] = {}
        for folder in ("by-id", "by-path"):
            for link in sorted(glob.glob(f"/dev/disk/{folder}/*")):
                name = os.path.basename(os.path.realpath(link))
                links.setdefault(name, {}).setdefault(folder, []).append(link)
        by_serial: dict[str, str] = {}
        for name in sorted(os.listdir("/sys/block")):
            for file in ("serial", "device/serial", "device/vpd_pg80"):
                with contextlib.suppress(OSError), open(f"/sys/block/{name}/{file}", "rb") as handle:
                    serial = re.sub(rb"[^ -~]", b"", handle.read()).decode().strip()
                    by_serial.setdefault(serial, name)
        found: list[Reply] = []
        for serial in serials:
            if serial not in by_serial:
                raise Failure(f"there is no disk with the serial number {serial}; found: {sorted(by_serial)}")
            name = by_serial[serial]
            names = links.get(name, {})
            wwn = [link for link in names.get("by-id", []) if "/wwn-" in link]
            ids = [link for link in names.get("by-id", []) if serial in link] or names.get("by-id", [])
            path = names.get("by-path", [])
            found.append(
                {
                    "serial": serial,
                    "kernel": f"/dev/{name}{suffix}",
                    "name": f"{name}{suffix}",
                    "id": f"{ids[0]}{part}",
                    "wwn": f"{wwn[0]}{part}",
                    "path": f"{path[0]}{part}",
                    "size": _size(f"/dev/{name}{suffix}"),
                }
            )
        self.names += [disk["kernel"] for disk in found]
        return found

    def blank(self) -> bool:
        """Make every data disk read as zeros, a discard for the virtual disk; returns whether any was written to."""
        dirty = [path for path in self.names if self._blank.get(path) != _written(path)]
        for path in dirty:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_EXCL)
            except OSError as error:
                raise Failure(f"{path} is still in use after the reset: {error}") from None
            try:
                fcntl.ioctl(descriptor, BLKZEROOUT, struct.pack("QQ", 0, _size(path)))
                with contextlib.suppress(OSError):
                    fcntl.ioctl(descriptor, BLKRRPART)
            finally:
                os.close(descriptor)
            self._blank[path] = _written(path)
        return bool(dirty)

    def digest(self) -> dict[str, int | str]:
        """A checksum over both ends of each disk, where every signature is; disks in use change all the time."""
        found: dict[str, int | str] = {}
        for path in self.names:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_EXCL)
            except OSError:
                found[path] = "in use"
                continue
            try:
                written = _written(path)
                if self._digests.get(path, ((), 0))[0] != written:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    head = os.pread(descriptor, 2 * MIB, 0)
                    tail = os.pread(descriptor, 9 * MIB, _size(path) - 9 * MIB)
                    self._digests[path] = (written, zlib.crc32(tail, zlib.crc32(head)))
                found[path] = self._digests[path][1]
            finally:
                os.close(descriptor)
        return found


def _written(path: str) -> tuple[str, ...]:
    """The kernel's counters of what was written to and discarded from a disk: as long as they stand, so does it."""
    fields = _read(f"/sys/class/block/{os.path.basename(path)}/stat").decode("ascii").split()
    return (fields[4], fields[6], fields[11], fields[13])


def _size(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


# --- the host's state --------------------------------------------------------------------------------------------


class Host:
    """Brings the host back to where it was, and tells what is on it."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self._top = _top_folders()
        self._noted: set[bytes] = set()

    def note_keys(self) -> None:
        """Remember the keys that are in key files now: the next run may replace them."""
        for path in self._key_files():
            with contextlib.suppress(OSError):
                content = _read(path)
                if _like_a_key(content):
                    self._noted.add(content)

    def reset(self) -> list[str]:
        """Take away all that a case may have left. Returns the contents of key files since the last time, in base64."""
        for hidden in glob.glob("/usr/sbin/*.hidden"):
            os.rename(hidden, hidden[: -len(".hidden")])
        for shim in glob.glob("/usr/local/sbin/*"):
            os.unlink(shim)
        for rule in glob.glob("/etc/modprobe.d/suite-*.conf"):
            os.unlink(rule)
        if not os.path.exists("/dev/zfs"):
            call(["modprobe", "zfs"])
            call(["udevadm", "settle", "--timeout=30"])
        keys = {_read(path) for path in self._key_files()} | self._noted
        self._noted.clear()
        self._unstack()
        self._destroy_pools()
        dirty = self._disks.blank()
        for folder in (*KEY_FOLDERS, WORK):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (KEY_FOLDERS[1], WORK):
            os.mkdir(folder, 0o700)
        for name in set(os.listdir("/")) - self._top:
            _remove(f"/{name}")
        for path in glob.glob("/mnt/*"):
            _remove(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/etc/zfs/zpool.cache")
        if dirty:
            call(["udevadm", "settle", "--timeout=30"])
        return [base64.b64encode(key).decode("ascii") for key in keys]

    def state(self) -> Reply:
        """What a refused task must not have changed."""
        pools = call(["zpool", "status", "-P"], ok=False).stdout.decode(errors="replace")
        told = r"(?m)^ *(scan|scan warning|status|action|see|remove|checkpoint): .*\n(?:(?:\t| {8}).*\n)*"
        config = re.sub(told, "", pools)
        columns = "name,property,source,value"
        properties = (
            "guid,mounted,mountpoint,canmount,encryptionroot,keyformat,keystatus,keylocation,pbkdf2iters,volsize,"
            "refreservation,readonly,quota,compression,atime"
        )
        datasets = call(["zfs", "get", "-Hp", "-o", columns, properties], ok=False).stdout.decode(errors="replace")
        # also what "mounted" does not tell: legacy mounts, and one on top of another
        mounts = [line for line in _read("/proc/mounts").decode(errors="replace").splitlines() if " zfs " in line]
        datasets += "\n".join(sorted(line.split(" zfs ")[0] for line in mounts))
        keys = {}
        for path in self._key_files():
            status = os.stat(path)
            keys[path] = [oct(status.st_mode), status.st_mtime_ns, hashlib.sha256(_read(path)).hexdigest()]
        return {"pools": config, "datasets": datasets, "keys": keys, "disks": self._disks.digest()}

    def _key_files(self) -> list[str]:
        found = (
            path for folder in KEY_FOLDERS for path in glob.glob(f"{folder}/**", recursive=True, include_hidden=True)
        )
        return sorted(path for path in found if os.path.isfile(path))

    def _unstack(self) -> None:
        """Take down what is built on the disks other than pools."""
        if len(_read("/proc/swaps").splitlines()) > 1:
            call(["swapoff", "-a"], ok=False)
        mounts = [line.split(" ")[1] for line in _read("/proc/mounts").decode().splitlines()]
        for mountpoint in reversed([path for path in mounts if path.startswith("/mnt/")]):
            call(["umount", mountpoint.replace("\\040", " ")], ok=False)
        if glob.glob("/sys/block/dm-*"):
            call(["vgchange", "-an"], ok=False)
            call(["dmsetup", "remove_all", "--force"], ok=False)
        if glob.glob("/sys/block/md*"):
            call(["mdadm", "--stop", "--scan"], ok=False)

    def _destroy_pools(self) -> None:
        pools = sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob("/proc/spl/kstat/zfs/*/state"))
        if pools:
            # -i for internal events, too: a key must be in neither
            history = call(["zpool", "history", "-il"], ok=False).stdout
            with open(HISTORY, "ab") as file:
                file.write(history)
        for pool in pools:
            for _attempt in range(5):
                if not call(["zpool", "destroy", "-f", pool], ok=False).returncode:
                    break
                # udev may still look at a new volume
                call(["udevadm", "settle", "--timeout=30"], ok=False)
        if glob.glob("/sys/block/loop*/loop/backing_file"):
            call(["losetup", "-D"], ok=False)
        left = glob.glob("/proc/spl/kstat/zfs/*/state")
        if left:
            raise Failure(f"these pools could not be destroyed: {left}")


def _like_a_key(content: bytes) -> bool:
    """Whether this is a hex or raw key that was made at random, not something that a case has put there instead."""
    return bool(re.fullmatch(rb"[0-9a-fA-F]{64}\n?", content)) or (len(content) == 32 and len(set(content)) > 16)


def _top_folders() -> set[str]:
    """What was in the root folder when the first agent began here; what is there later is a mountpoint of some case."""
    if not os.path.exists(TOP):
        with open(TOP, "w", encoding="utf-8") as file:
            file.write("\n".join(os.listdir("/")))
    return set(_read(TOP).decode("utf-8").split("\n"))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        if os.path.ismount(path):
            raise Failure(f"{path} is still mounted after the reset")
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


# --- evidence ----------------------------------------------------------------------------------------------------


# Where programs leave files. Left out are the audit log, whose hex-coded words are in ``argv`` as plain text, the
# journal's binary files, and the history of pools, which are read in other ways.
SEARCHED = ("/tmp", "/var/tmp", "/var/log", "/run", "/dev/shm", "/root/.ansible")
KNOWN = ("/var/log/audit", "/var/log/journal", "/run/log/journal", HISTORY)


class Evidence:
    """All places on this host where a key might have been left."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def collect(self) -> Reply:
        """A tar file in base64: argv of every process, journal, files, zpool history, environments."""
        self._audit.sync()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
            for name, data in self._parts():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return {
            "tar": base64.b64encode(buffer.getvalue()).decode("ascii"),
            "executions": len(self._audit.executions),
            "lost": self._audit.lost(),
        }

    def _parts(self) -> t.Iterator[tuple[str, bytes]]:
        yield "argv", b"\n".join(b"\0".join(execution.argv) for execution in self._audit.executions)
        yield "journal", call(["journalctl", "--no-pager", "-a", "-o", "export"]).stdout
        if os.path.exists(HISTORY):
            yield "zpool-history", _read(HISTORY)
        yield "environ", b"\n".join(_environments())
        for folder in SEARCHED:
            for path in _files_below(folder):
                # what is gone meanwhile was not left
                with contextlib.suppress(OSError):
                    yield f"files{path}", _read(path)


def _environments() -> t.Iterator[bytes]:
    """What the processes that run now have in their environments."""
    for path in glob.glob("/proc/[0-9]*/environ"):
        with contextlib.suppress(OSError):
            yield _read(path)


def _files_below(folder: str) -> t.Iterator[str]:
    """The regular files that are worth searching."""
    for place, _folders, files in os.walk(folder):
        for path in (os.path.join(place, name) for name in files):
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and not path.startswith(KNOWN) and _small(path, status.st_size):
                    yield path


def _small(path: str, size: int) -> bool:
    return size <= LARGE or not path.startswith("/run/")


# --- the loop ----------------------------------------------------------------------------------------------------


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    # root's usual path, so that a case can put something in front of a program
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # what a program prints by mistake must not be taken for an answer
    os.dup2(2, 1)
    audit, disks = Audit(), Disks()
    host, modules, evidence = Host(disks), Modules(audit), Evidence(audit)

    def start(request: Request) -> Reply:
        audit.start()
        for name in request["modules"]:
            importlib.import_module(f"{PACKAGE}.{name}")
        importlib.import_module("ansible.module_utils.testing")
        disks.partition(request["partitioned"])
        return {
            "disks": disks.find(request["whole"]),
            "partitions": disks.find(request["partitioned"], "1"),
            "python": sys.version.split()[0],
        }

    def noted(reply: Reply) -> Reply:
        host.note_keys()
        return reply

    operations: dict[str, t.Callable[[Request], Reply]] = {
        "start": start,
        "script": run_script,
        "module": lambda request: noted(modules.run(request)),
        "begin": modules.begin,
        "running": modules.running,
        "strike": modules.strike,
        "end": lambda request: noted(modules.end(request)),
        "reset": lambda request: {"keys": host.reset()},
        "state": lambda request: host.state(),
        "evidence": lambda request: evidence.collect(),
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = operations[request["op"]](request)
        except Failure as error:
            reply = {"failure": str(error)}
        except Exception:  # noqa: BLE001  (the suite shows it, and goes on with the next case)
            reply = {"failure": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
