# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether KVM boots the image on this machine, found out by booting it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from .command_line import KERNEL_ARGUMENTS, accelerator
from .process import boot_id

READY = b"test-nas: ready"
# A machine that runs KVM well is through in 10 s; one that can't shows nothing at all.
SECONDS_TO_FIRST_SIGN = 20
SECONDS_TO_READY = 60


def _trial(qemu: str, image: Path, directory: Path) -> bool:
    console = directory / "console.log"
    argv: list[str] = [
        qemu,
        *("-machine", "q35", *accelerator("kvm"), "-m", "768", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"), "-append", KERNEL_ARGUMENTS),
        *("-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"),
        *("-drive", "file=%s,format=qcow2,if=none,id=root,snapshot=on" % str(image / "root.qcow2").replace(",", ",,")),
        *("-device", "virtio-blk-pci,drive=root"),
    ]
    began = time.monotonic()
    with (directory / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(os.environ, TMPDIR=str(directory)),
        )
    try:
        while process.poll() is None:
            said = console.read_bytes() if console.exists() else b""
            passed = time.monotonic() - began
            if READY in said:
                return True
            if passed > SECONDS_TO_READY or (passed > SECONDS_TO_FIRST_SIGN and b"test-nas:" not in said):
                return False
            time.sleep(0.2)
        return False
    finally:
        process.kill()
        process.wait()


def kvm_works(qemu: str, image: Path, cache: Path) -> bool:
    """The answer, tried once for each boot of this machine, version of QEMU and image."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    version = subprocess.run([qemu, "--version"], check=True, stdout=subprocess.PIPE).stdout.decode("utf-8", "replace")
    question = {"boot_id": boot_id(), "qemu": version.splitlines()[0], "image": image.name}
    answer_file = cache / "kvm.json"
    with (cache / ".kvm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            known = json.loads(answer_file.read_text("utf-8"))
            if known["question"] == question:
                return bool(known["works"])
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            pass
        with tempfile.TemporaryDirectory(dir=str(cache), prefix=".kvm-trial.") as directory:
            works = _trial(qemu, image, Path(directory))
        temporary = answer_file.with_name(answer_file.name + ".new")
        temporary.write_text(json.dumps({"question": question, "works": works}) + "\n", "utf-8")
        temporary.replace(answer_file)
        return works
