# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls throw-away NAS VMs from a shell or a program; needs nothing but Python 3.9 and what built the image.

    python3 vm.py start dev                 build the image if need be, make the VM, boot it, wait until it answers
    python3 vm.py exec dev -- zpool status  run something in it
    python3 vm.py snapshot dev clean        save memory and disks ...
    python3 vm.py restore dev clean         ... and go back to them, seconds later
    python3 vm.py clone dev other           a copy of one that is off, with its snapshots
    python3 vm.py destroy dev

Every command but exec, hmp and list prints one JSON object: "changed", and the VM as "status" shows it. That of start
also says whether the VM is "new", made from scratch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from nasvm.description import Description, check_name
from nasvm.errors import TestNasError
from nasvm.machine import Machine
from nasvm.paths import cache_directory
from nasvm.wanted import CPUS, DISK_COUNT, DISK_SIZE, MEMORY, Words, from_json, from_words, new

SECONDS_TO_ANSWER = 300


def build_image(action: str) -> dict[str, Any]:
    """What build_image.sh says: the image and the programs that go with it."""
    script = Path(__file__).resolve().parent / "build_image.sh"
    done = subprocess.run(
        ["bash", str(script), action],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=dict(os.environ, TEST_NAS_PYTHON=sys.executable),
        check=False,
    )
    if done.returncode:
        raise TestNasError("the image could not be built, see above")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def wanted(machine: Machine, arguments: argparse.Namespace) -> Description:
    """The VM that is to be started; an image is built only for one that does not exist yet."""
    if arguments.json:
        return from_json(arguments.name, arguments.json)
    base = machine.description() or new(arguments.name, build_image("check" if arguments.check else "build"))
    return from_words(
        base, Words(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Words)})
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument(
        "--dir", type=Path, default=cache_directory() / "vm", help="directory that holds the VMs (default: %(default)s)"
    )
    top.add_argument("--check", action="store_true", help="change nothing, say whether something would change")
    top.add_argument(
        "--timeout", type=float, default=SECONDS_TO_ANSWER, help="seconds to wait for the VM to answer (%(default)s)"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("name", help="name of the VM")
        return added

    start = command("start", "make the VM if need be, boot it, wait until it answers")
    start.add_argument("--recreate", action="store_true", help="destroy a VM that can't become the one described")
    start.add_argument("--json", metavar="OBJECT", help="the whole description (what the role test_nas uses)")
    start.add_argument("--memory", type=int, metavar="MIB", help=f"memory ({MEMORY})")
    start.add_argument("--cpus", type=int, help=f"processors ({CPUS})")
    start.add_argument("--accel", choices=("auto", "kvm", "tcg"), help="auto tries KVM once and remembers (auto)")
    start.add_argument("--disks", type=int, metavar="COUNT", help=f"disks NAS0001, NAS0002, ... ({DISK_COUNT})")
    start.add_argument("--disk-size", metavar="SIZE", help=f"size of each of them ({DISK_SIZE})")
    start.add_argument("--disk", action="append", metavar="SERIAL[:SIZE[:BUS]]", help="a disk by name; may be repeated")
    start.add_argument("--qemu-arg", action="append", metavar="WORD", help="a further word for QEMU; may be repeated")
    command("wait", "wait until the VM answers")
    stop = command("stop", "shut the VM down")
    stop.add_argument("--cut", action="store_true", help="cut the power instead: the guest writes nothing more")
    command("destroy", "remove the VM and its disks")
    command("reset", "press the reset button, wait until the VM answers again")
    command("status", "show the VM")
    snapshot = command("snapshot", "save memory and disks under a name")
    snapshot.add_argument("tag")
    snapshot.add_argument("--keep", action="store_true", help="leave a snapshot that has this name as it is")
    command("restore", "go back to a snapshot").add_argument("tag")
    command("forget", "delete a snapshot").add_argument("tag")
    command("clone", "copy a VM that is off, with its snapshots").add_argument("copy", help="name of the new VM")
    inside = command("exec", "run a command in the VM; its exit code becomes this program's")
    inside.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    command("hmp", "send a command to QEMU's human monitor, print the answer").add_argument("words", nargs="+")
    commands.add_parser("list", help="names of the VMs, one a line")
    return top


def run(arguments: argparse.Namespace) -> int:
    """Carries out one command; the result is the exit code."""
    if arguments.command == "list":
        for found in sorted(arguments.dir.glob("*/vm.json")):
            sys.stdout.write(found.parent.name + "\n")
        return 0
    machine = Machine(arguments.dir.absolute(), check_name(arguments.name))
    changed = False
    more: dict[str, Any] = {}
    if arguments.command == "exec":
        words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
        return subprocess.run(machine.ssh_command(words), check=False).returncode
    if arguments.command == "hmp":
        with machine.monitor() as monitor:
            sys.stdout.write(monitor.human(" ".join(arguments.words)))
        return 0
    if arguments.command == "start":
        description = wanted(machine, arguments)
        more["new"] = machine.is_new(description, arguments.recreate)
        changed = machine.start(description, arguments.recreate, arguments.timeout, arguments.check)
    elif arguments.command == "wait":
        machine.wait(arguments.timeout)
    elif arguments.command == "stop":
        changed = machine.stop(arguments.cut, arguments.check)
    elif arguments.command == "destroy":
        changed = machine.destroy(arguments.check)
    elif arguments.command == "reset":
        machine.reset(arguments.timeout)
        changed = True
    elif arguments.command == "snapshot":
        changed = machine.snapshot(arguments.tag, arguments.keep, arguments.check)
    elif arguments.command == "restore":
        changed = machine.restore(arguments.tag, arguments.timeout, arguments.check)
    elif arguments.command == "clone":
        source, machine = machine, Machine(machine.parent, check_name(arguments.copy))
        changed = machine.clone(source, arguments.check)
    elif arguments.command == "forget":
        changed = machine.delete_snapshot(arguments.tag, arguments.check)
    sys.stdout.write(json.dumps({"changed": changed, **more, **machine.status()}) + "\n")
    return 0


def main() -> int:
    """The program."""
    try:
        return run(parser().parse_args())
    except TestNasError as error:
        sys.stderr.write(f"test_nas: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
