# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One VM and what can be done with it. Every action says whether it changed something and works a second time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import shutil
import subprocess
import uuid as uuid_module
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import command_line, copies, probe, process, seed, ssh
from .description import SAME, Description, compare
from .errors import EmulatorFailed, TestNasError
from .monitor import Monitor
from .paths import Files, cache_directory, socket_directory

# An emulated CPU shuts down in about 15 s.
SECONDS_TO_STOP = 90
# A machine of 1.5 GiB is saved in some seconds; a slow disk may need more.
SECONDS_FOR_SNAPSHOT = 600


class Machine:
    """The VM ``name`` below the directory ``parent``."""

    def __init__(self, parent: Path, name: str) -> None:
        self.parent = parent
        self.name = name
        self.files = Files(parent / name)

    # --- what there is ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps two programs from changing the same VM at once; the second one waits."""
        self.parent.mkdir(parents=True, exist_ok=True)
        with (self.parent / (".%s.lock" % self.name)).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def description(self) -> Description | None:
        """What the VM consists of, None if there is no such VM."""
        return Description.read(self.files.description)

    def running(self) -> process.Running | None:
        """Its process, None if it is off."""
        return process.read_running(self.files)

    def _existing(self) -> Description:
        description = self.description()
        if description is None:
            raise TestNasError("there is no VM %s in %s: start it first" % (self.name, self.parent))
        return description

    def _started(self) -> process.Running:
        self._existing()
        running = self.running()
        if running is None:
            raise TestNasError("%s is not running: start it first" % self.name)
        return running

    def monitor(self) -> Monitor:
        """A connection to QEMU's monitor."""
        self._started()
        return Monitor(self.files.monitor, SECONDS_FOR_SNAPSHOT)

    def status(self) -> dict[str, Any]:
        """The VM as data: state, where it is, how to reach it."""
        description = self.description()
        running = self.running() if description else None
        result: dict[str, Any] = {
            "name": self.name,
            "directory": str(self.files.directory),
            "state": "absent" if description is None else "stopped" if running is None else "started",
        }
        if description is not None:
            result["disks"] = [dataclasses.asdict(disk) for disk in description.disks]
            result["snapshots"] = self.snapshots()
        if description is not None and running is not None:
            result.update(
                pid=running.pid,
                port=running.port,
                accel=running.accel,
                ssh_config=str(self.files.ssh_config),
                inventory=str(self.files.inventory),
                host_variables=ssh.host_variables(description, self.files, running),
            )
        return result

    # --- made, started, ended --------------------------------------------------------------------------------------

    def _create_disk(self, description: Description, path: Path, size: int | None) -> None:
        command = [description.qemu_img, "create", "-q", "-f", "qcow2"]
        if size is None:
            command += ["-F", "qcow2", "-b", description.image + "/root.qcow2", str(path)]
        else:
            command += [str(path), str(size)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise TestNasError("cannot make the disk %s: %s" % (path, done.stderr.decode("utf-8", "replace").strip()))

    def _create(self, description: Description) -> None:
        """Makes what is missing of the VM's files; the description comes last and makes them a VM."""
        self.files.directory.mkdir(mode=0o700, exist_ok=True)
        ssh.make_keys(self.files, self.name)
        if self.description() is None:
            # what an interrupted creation left is not known to be whole
            self._create_disk(description, self.files.root_disk, None)
            missing = description.disks
        else:
            missing = tuple(disk for disk in description.disks if not self.files.data_disk(disk.serial).exists())
        for disk in missing:
            self._create_disk(description, self.files.data_disk(disk.serial), disk.size)
        temporary = self.files.description.with_name("vm.json.new")
        temporary.write_text(description.to_json(), "utf-8")
        temporary.replace(self.files.description)

    def _adaptation(self, wanted: Description, present: Description, running: bool) -> bool:
        """Whether the present VM has to be adapted. Raises TestNasError if it can't be."""
        difference = compare(present, wanted)
        if difference.fixed:
            raise TestNasError(
                "%s is not the VM that is described, and only a new one can be: %s. Destroy it, or let it be recreated"
                % (self.name, "; ".join(difference.fixed + difference.at_start))
            )
        if difference.at_start and running:
            raise TestNasError(
                "%s runs, but not as described: %s. Stop it first" % (self.name, "; ".join(difference.at_start))
            )
        return bool(difference.at_start)

    def _choose_accelerator(self, description: Description) -> str:
        if description.accel != "auto":
            return description.accel
        return "kvm" if probe.kvm_works(description.qemu, Path(description.image), cache_directory()) else "tcg"

    def _boot(self, description: Description, snapshot: str | None) -> process.Running:
        """Starts QEMU, with the memory of a snapshot or with a fresh boot."""
        accel = self._choose_accelerator(description)
        identity = self._identity()
        base = Path(description.image)
        if not (base / "root.qcow2").exists():
            raise TestNasError("the image %s of %s is gone: destroy the VM and make it anew" % (base, self.name))
        self.files.initrd.write_bytes(
            (base / "initrd.img").read_bytes() + seed.build(self.files, self.name, self._guest())
        )
        self.files.initrd.chmod(0o600)
        self.files.console.unlink(missing_ok=True)
        extra = ["-loadvm", snapshot] if snapshot else []
        running = self._launch(description, accel, identity, extra)
        ssh.write_config(self.files, self.name, running.port)
        self._write_inventory(description, running)
        return running

    def _identity(self) -> str:
        """What this VM's process is known by."""
        return str(uuid_module.uuid5(uuid_module.NAMESPACE_URL, self.files.directory.resolve().as_uri()))

    def _guest(self) -> str:
        """What the ids of the guest are made of; a copy keeps those that the pools on its disks know."""
        try:
            return self.files.guest.read_text("ascii").strip()
        except FileNotFoundError:
            return self._identity()

    def _launch(self, description: Description, accel: str, identity: str, extra: list[str]) -> process.Running:
        """QEMU on a free port, preferably the one of the last run."""
        preferred = self._last_port()
        attempts = 5
        while True:
            port = ssh.free_port(preferred)
            argv = command_line.build(description, accel, port, identity) + extra
            try:
                return process.start(argv, self.files, identity, port, accel)
            except TestNasError as error:
                # between the search and QEMU's start another program may take the port
                attempts -= 1
                if attempts == 0 or "host forwarding" not in str(error):
                    raise
                preferred = 0

    def _last_port(self) -> int:
        """The port of the last run, so that written inventories stay right if it is still free; 0 for none."""
        try:
            return int(json.loads(self.files.run.read_text("utf-8"))["port"])
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            return 0

    def _write_inventory(self, description: Description, running: process.Running) -> None:
        variables = ssh.host_variables(description, self.files, running)
        lines = ["---", "test_nas:", "  hosts:", "    %s:" % json.dumps(self.name)]
        # a JSON scalar is a YAML scalar
        lines += ["      %s: %s" % (name, json.dumps(value)) for name, value in variables.items()]
        self.files.inventory.write_text("\n".join(lines) + "\n", "utf-8")

    def is_new(self, wanted: Description, recreate: bool) -> bool:
        """Whether ``start`` makes this VM from scratch, because there is none or in place of the one that is there."""
        present = self.description()
        return present is None or (recreate and compare(present, wanted) != SAME)

    def start(self, wanted: Description, recreate: bool, seconds: float, check: bool) -> bool:
        """The VM as wanted, running and answering. True if it had to be made, changed or started.

        ``recreate`` destroys one that can't become what is wanted.
        """
        with self.lock():
            present = self.description()
            if present is not None and self.is_new(wanted, recreate):
                if check:
                    return True
                self._remove()
                present = None
            running = self.running() if present else None
            adapt = present is None or self._adaptation(wanted, present, running is not None)
            if check:
                return running is None
            if running is not None:
                ssh.wait(wanted, self.files, running, seconds)
                return False
            if adapt:
                self._create(wanted)
            ssh.close_connections(self.files, self.name)
            self._boot_and_wait(wanted, seconds)
            return True

    def _boot_and_wait(self, description: Description, seconds: float) -> None:
        """Boots it, once more if QEMU fails by itself.

        With more than one emulated processor QEMU 9 now and then dies of ``iotlb_to_section: Assertion`` while the
        guest lays out the memory of its devices.
        """
        try:
            ssh.wait(description, self.files, self._boot(description, None), seconds)
        except EmulatorFailed:
            ssh.wait(description, self.files, self._boot(description, None), seconds)

    def clone(self, source: Machine, check: bool) -> bool:
        """This VM as a copy of another one that is off, with its disks, snapshots and keys. Never finds it done."""
        with source.lock(), self.lock():
            description = source._existing()
            if source.running() is not None:
                raise TestNasError("%s runs: stop it first, a copy of disks that change is of no use" % source.name)
            if self.files.directory.exists():
                raise TestNasError("there is %s already: destroy it first" % self.files.directory)
            if not check:
                copies.copy(source.files, description, self.files, self.name, source._guest())
                ssh.make_keys(self.files, self.name)
            return True

    def wait(self, seconds: float) -> None:
        """Waits until the VM answers."""
        ssh.wait(self._existing(), self.files, self._started(), seconds)

    def _power_off(self, running: process.Running) -> bool:
        """Asks the guest to shut down; False if it did not."""
        words = ["systemctl", "--no-block", "poweroff"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ssh.command(self.files, self.name, words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=60,
            )
        return running.wait_for_end(SECONDS_TO_STOP)

    def _end(self, running: process.Running) -> None:
        """Ends QEMU at once, as a power cut does; what the guest had not written is lost."""
        with contextlib.suppress(OSError, TestNasError), Monitor(self.files.monitor, 10) as monitor:
            monitor.execute("quit")
        if not running.wait_for_end(10):
            running.kill()

    def stop(self, cut: bool, check: bool) -> bool:
        """The VM off: shut down, or with ``cut`` without a word to the guest. True if it was running."""
        with self.lock():
            running = self.running()
            if running is None or check:
                return running is not None
            clean = not cut and self._power_off(running)
            ssh.close_connections(self.files, self.name)
            if not clean:
                self._end(running)
            return True

    def destroy(self, check: bool) -> bool:
        """The VM gone with all its disks. True if there was something."""
        with self.lock():
            directory = self.files.directory
            if not directory.is_dir() or directory.is_symlink():
                return False
            if self.description() is None and not self.files.client_key.exists() and any(directory.iterdir()):
                raise TestNasError("%s was not made as a test NAS: it is left alone" % directory)
            if not check:
                self._remove()
            return True

    def _remove(self) -> None:
        """Ends the VM and removes its directory, with the lock held."""
        running = self.running()
        if running is not None:
            self._end(running)
        if self.files.ssh_config.exists():
            ssh.close_connections(self.files, self.name)
            shutil.rmtree(str(socket_directory(self.files.directory)))
        # without its description it is no VM any more, however far the rest gets
        self.files.description.unlink(missing_ok=True)
        shutil.rmtree(str(self.files.directory))

    def reset(self, seconds: float) -> None:
        """The reset button: the guest starts anew without having written anything. Waits until it answers."""
        with self.lock():
            description, running = self._existing(), self._started()
            ssh.close_connections(self.files, self.name)
            with self.monitor() as monitor:
                monitor.execute("system_reset")
            try:
                ssh.wait(description, self.files, running, seconds)
            except EmulatorFailed:
                self._boot_and_wait(description, seconds)

    # --- snapshots -------------------------------------------------------------------------------------------------

    def snapshots(self) -> list[str]:
        """The names of the snapshots, oldest first."""
        description = self._existing()
        command = [description.qemu_img, "info", "--force-share", "--output=json", str(self.files.root_disk)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            raise TestNasError(
                "cannot read the snapshots of %s: %s" % (self.name, done.stderr.decode("utf-8", "replace"))
            )
        return [entry["name"] for entry in json.loads(done.stdout).get("snapshots", [])]

    def _human(self, command: str) -> None:
        """Runs a command of the human monitor that says nothing when it works."""
        with self.monitor() as monitor:
            answer = monitor.human(command).strip()
        if answer:
            raise TestNasError("QEMU refused %r: %s" % (command, answer))

    def snapshot(self, tag: str, keep: bool, check: bool) -> bool:
        """Memory and disks saved under this name; ``keep`` leaves an older one of that name as it is."""
        with self.lock():
            running = self._started()
            if keep and tag in self.snapshots():
                return False
            if not check:
                # what udev has not done yet, it might not do after each restore, or only when nobody expects it
                ssh.settle(self.files, self.name, running)
                self._human("savevm %s" % tag)
            return True

    def restore(self, tag: str, seconds: float, check: bool) -> bool:
        """Memory and disks as they were when the snapshot was taken; starts the VM with it if it is off."""
        with self.lock():
            description = self._existing()
            if tag not in self.snapshots():
                raise TestNasError(
                    "%s has no snapshot %s, it has: %s" % (self.name, tag, ", ".join(self.snapshots()) or "none")
                )
            if check:
                return True
            ssh.close_connections(self.files, self.name)
            running = self.running()
            if running is None:
                running = self._boot(description, tag)
            else:
                self._human("loadvm %s" % tag)
            ssh.wait(description, self.files, running, seconds)
            return True

    def delete_snapshot(self, tag: str, check: bool) -> bool:
        """The snapshot gone. True if there was one."""
        with self.lock():
            if tag not in self.snapshots():
                return False
            if not check:
                self._human("delvm %s" % tag)
            return True

    # --- inside ----------------------------------------------------------------------------------------------------

    def ssh_command(self, words: list[str]) -> list[str]:
        """The command line that runs something in the VM."""
        self._started()
        return ssh.command(self.files, self.name, words)
