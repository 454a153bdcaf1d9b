# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls throw-away NAS VMs from a shell or a program; needs nothing but Python 3.9 and what built the image.

    python3 vm.py start dev                        build the image if need be, make the VM, boot it, wait until it answers
    python3 vm.py exec dev -- zpool status         run something in it
    python3 vm.py snapshot dev clean               save memory and disks ...
    python3 vm.py restore dev clean                ... and go back to them, seconds later
    python3 vm.py destroy dev

Every command but exec, hmp and list prints one JSON object: "changed", and the VM as "status" shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from nasvm.description import Description, Disk, check_name
from nasvm.errors import TestNasError
from nasvm.machine import Machine
from nasvm.paths import cache_directory

SECONDS_TO_ANSWER = 300
DISK_COUNT = 16
DISK_SIZE = "512M"
DISK_BUS = "scsi"


def build_image(action: str) -> Dict[str, str]:
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
    answer: Dict[str, str] = json.loads(done.stdout)
    return answer


def parse_disk(text: str) -> Disk:
    """A disk from ``SERIAL``, ``SERIAL:SIZE`` or ``SERIAL:SIZE:BUS``."""
    words = text.split(":")
    if len(words) > 3:
        raise TestNasError("%r is no disk: SERIAL:SIZE:BUS is" % text)
    return Disk.make(words[0], words[1] if len(words) > 1 else DISK_SIZE, words[2] if len(words) > 2 else DISK_BUS)


def wanted_disks(arguments: argparse.Namespace, present: Optional[Description]) -> List[Disk]:
    """The disks that the command line names, else those the VM has, else the default set."""
    if arguments.disk is not None or arguments.no_disks:
        return [parse_disk(text) for text in arguments.disk or []]
    if present is not None and arguments.disks is None and arguments.disk_size is None:
        return list(present.disks)
    count = DISK_COUNT if arguments.disks is None else arguments.disks
    return [
        Disk.make("NAS%04d" % number, arguments.disk_size or DISK_SIZE, DISK_BUS) for number in range(1, count + 1)
    ]


def wanted(arguments: argparse.Namespace, present: Optional[Description]) -> Description:
    """The VM that the command line describes; what it leaves out stays as it is."""
    if arguments.image:
        image, qemu, qemu_img = arguments.image, arguments.qemu, arguments.qemu_img
    elif present is not None:
        image, qemu, qemu_img = present.image, present.qemu, present.qemu_img
    else:
        built = build_image("check" if arguments.check else "build")
        image, qemu, qemu_img = built["image"], built["qemu"], built["qemu_img"]

    def choose(value: Any, attribute: str, default: Any) -> Any:
        if value is not None:
            return value
        return default if present is None else getattr(present, attribute)

    return Description(
        name=arguments.name,
        image=str(image),
        qemu=str(qemu),
        qemu_img=str(qemu_img),
        memory=choose(arguments.memory, "memory", 1536),
        cpus=choose(arguments.cpus, "cpus", 2),
        accel=choose(arguments.accel, "accel", "auto"),
        disks=tuple(wanted_disks(arguments, present)),
        qemu_args=tuple(choose(arguments.qemu_arg, "qemu_args", ())),
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
    start.add_argument("--image", type=Path, help="directory of the image (default: built or taken from the cache)")
    start.add_argument("--qemu", default="qemu-system-x86_64", help="with --image: the QEMU to use")
    start.add_argument("--qemu-img", default="qemu-img", help="with --image: the qemu-img to use")
    start.add_argument("--memory", type=int, metavar="MIB")
    start.add_argument("--cpus", type=int)
    start.add_argument("--accel", choices=("auto", "kvm", "tcg"))
    start.add_argument("--disks", type=int, metavar="COUNT", help="that many disks NAS0001, NAS0002, ... (16)")
    start.add_argument("--disk-size", metavar="SIZE", help="size of each of them (512M)")
    start.add_argument("--disk", action="append", metavar="SERIAL[:SIZE[:BUS]]", help="a disk by name; may be repeated")
    start.add_argument("--no-disks", action="store_true", help="no data disk at all")
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
    inside = command("exec", "run a command in the VM; its exit code becomes this program's")
    inside.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    command("hmp", "send a command to QEMU's human monitor, print the answer").add_argument("words", nargs="+")
    commands.add_parser("list", help="names of the VMs, one a line")
    return top


def run(arguments: argparse.Namespace) -> int:
    """Carries out one command; the result is the exit code."""
    if arguments.command == "list":
        for found in sorted(arguments.dir.glob("*/vm.json")):
            print(found.parent.name)
        return 0
    machine = Machine(arguments.dir.absolute(), check_name(arguments.name))
    changed = False
    if arguments.command == "exec":
        words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
        return subprocess.run(machine.ssh_command(words), check=False).returncode
    if arguments.command == "hmp":
        with machine.monitor() as monitor:
            print(monitor.human(" ".join(arguments.words)), end="")
        return 0
    if arguments.command == "start":
        changed = machine.start(wanted(arguments, machine.description()), arguments.timeout, arguments.check)
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
    elif arguments.command == "forget":
        changed = machine.delete_snapshot(arguments.tag, arguments.check)
    print(json.dumps({"changed": changed, **machine.status()}))
    return 0


def main() -> int:
    """The program."""
    try:
        return run(parser().parse_args())
    except TestNasError as error:
        print("test_nas: %s" % error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
