# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs what the tests and the demo need, once, and says so.

    setup.py                    installs what is missing
    setup.py COMMAND [ARG...]   then runs COMMAND with Ansible on its PATH and this collection where Ansible looks

Everything lands in ${XDG_CACHE_HOME:-~/.cache}/nasops-encryption, keyed by its inputs; Debian packages, also those that
build and boot the test NAS, are installed where root or passwordless sudo allows it. CORE=2.20 in the environment asks
for that release of ansible-core, CORE=2.22.0rc1 for that very version.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import drives

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tests" / "requirements"
GATES = (REQUIREMENTS / "gates.txt", REQUIREMENTS / "units.txt", ROOT / "tests" / "unit" / "requirements.txt")
UNITS = GATES[1:]

CONTROLLER_PYTHONS = ((3, 11), (3, 14))
"""Oldest and newest Python that a supported ansible-core runs on."""
MODULE_PYTHONS = tuple((3, minor) for minor in range(9, 15))
"""Pythons the modules support on a host: TrueNAS CORE has 3.9."""

PROGRAMS = {
    "git": "git",
    "grub-fstest": "grub-common",
    "openssl": "openssl",
    "shellcheck": "shellcheck",
    "ssh": "openssh-client",
}
"""Programs the gates and the tests need, and the Debian package of each."""
BUILD_IMAGE = ROOT / "roles" / "test_nas" / "files" / "build_image.sh"
"""Builds the image of the NAS; knows what this machine lacks for that."""

Version = tuple[int, int]

# ansible-test would download this script; ensurepip does the same job from what Python brings along.
GET_PIP = "import ensurepip\n\nensurepip.bootstrap(upgrade=True)\n"


class SetupError(Exception):
    """Something the tests need can't be installed; the message says what to do."""


@dataclass(frozen=True)
class Tools:
    """What set-up leaves behind."""

    venv: Path
    units: Mapping[str, Path]
    """Python version -> the environment its unit tests run in."""
    missing: tuple[str, ...]
    """What this machine lacks, each with its reason."""
    home: Path
    """A home directory for ansible-test, so that it leaves the user's own alone."""
    collections: Path
    """A collections path on which nasops.encryption is this very work tree."""
    sedutil: Path | None = None
    """Where Debian's sedutil-cli was unpacked, if it was asked for and could be had."""

    def environment(self) -> dict[str, str]:
        """The environment for any command: Ansible first on PATH, this collection, a UTF-8 locale."""
        env = {
            key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        }
        bins = [str(path / "bin") for path in (self.venv, *self.units.values())]
        env["PATH"] = os.pathsep.join(bins + search_path())
        env["ANSIBLE_COLLECTIONS_PATH"] = str(self.collections)
        env["LC_ALL"] = env["LANG"] = "C.UTF-8"
        # A clone that belongs to another user (a container's mount) is ours all the same.
        env.update(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0=str(ROOT))
        return env


def say(text: str) -> None:
    # in one piece: environments are made side by side
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


def cache() -> Path:
    """The user's cache directory of this project."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "nasops-encryption"


def search_path() -> list[str]:
    """PATH without the shims of pyenv, which exist for Pythons that then refuse to start."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [entry for entry in entries if entry and not entry.rstrip("/").endswith("/shims")]


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold the file lock at path; say what is waited for when another run has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {what}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    say(f"{title} ...")
    start = time.monotonic()
    yield
    say(f"{title}: done in {time.monotonic() - start:.0f} s")


def run(argv: Sequence[str]) -> str:
    """Run a command quietly and return what it printed; on failure show all it said."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(
            f"`{' '.join(argv)}` failed with status {done.returncode}:\n{done.stdout}{done.stderr}".rstrip()
        )
    return done.stdout


# Debian packages


def apt_install(packages: Sequence[str]) -> bool:
    """Install Debian packages if this machine is a Debian and lets us; False where it does not."""
    if not shutil.which("apt-get"):
        return False
    sudo: list[str] = []
    if os.geteuid():
        sudo = ["sudo", "-n"]
        if not shutil.which("sudo") or subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode:
            return False
    # sudo drops the environment; a machine that updates itself holds dpkg's lock for a while
    apt_get = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]
    install = [*apt_get, "install", "-y", "-qq", "--no-install-recommends", *packages]
    with step(f"Debian packages {' '.join(packages)}"):
        try:
            run(install)
        except SetupError:  # a fresh machine has no package lists yet, an old one has stale ones
            run([*apt_get, "update", "-qq"])
            run(install)
    return True


def programs() -> list[str]:
    """Install missing programs; return what is still missing, with the reason."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        apt_install([PROGRAMS[name] for name in absent])
    return [
        f"{name}: not installed, and no right to install it; as root: apt-get install {PROGRAMS[name]}"
        for name in absent
        if not shutil.which(name)
    ]


def nas_packages(build_image: Path = BUILD_IMAGE) -> list[str]:
    """Install what building and booting the NAS lacks; return what is still missing, with the reason."""
    needs = ["bash", str(build_image), "needs"]
    packages = run(needs).split()
    if packages and apt_install(packages):
        packages = run(needs).split()
    if not packages:
        return []
    words = " ".join(packages)
    text = f"the NAS needs Debian packages, and there is no right to install them; as root: apt-get install {words}"
    say(text)
    return [text]


def sedutil_root() -> tuple[Path | None, list[str]]:
    """Unpack Debian's sedutil-cli, and see to a compiler; where that fails, the reason."""
    if not shutil.which("cc"):
        apt_install(["gcc", "libc6-dev"])
    if not shutil.which("cc"):
        return None, ["emulated drives: no C compiler, and no right to install one; as root: apt-get install gcc"]
    place = cache() / f"sedutil-{digest(drives.SUITE, *drives.PACKAGES)}"
    try:
        drives.unpack(place)
    except drives.Unobtainable as error:
        return None, [f"sedutil-cli: {error}"]
    return place, []


# Pythons


def interpreters() -> dict[Version, Path]:
    """The supported Pythons of this machine, the first of each version: on PATH, from pyenv, from uv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    uv = Path(os.path.expanduser("~/.local/share/uv/python"))
    places = [Path(entry) for entry in search_path()]
    places += sorted([*pyenv.glob("versions/*/bin"), *uv.glob("*/bin")], reverse=True)
    found: dict[Version, Path] = {}
    for version in MODULE_PYTHONS:
        for place in places:
            path = place / f"python{version[0]}.{version[1]}"
            if os.access(path, os.X_OK) and works(path, "import sys"):
                found[version] = path
                break
    return found


def works(python: Path, code: str) -> bool:
    done = subprocess.run([python, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def can_make_venvs(version: Version, python: Path) -> bool:
    """Whether `python -m venv` works; Debian keeps half of it in a package of its own."""
    code = "import ensurepip, venv"
    if works(python, code):
        return True
    package = f"python{version[0]}.{version[1]}-venv"
    return python.is_relative_to("/usr/bin") and apt_install([package]) and works(python, code)


Environment = tuple[Path, Path, Sequence[Path], Sequence[str], str]
"""What make_venv needs."""


def make_venv(path: Path, python: Path, requirements: Sequence[Path], extra: Sequence[str], what: str) -> Path:
    """Make a virtual environment; one that was not finished is made again.

    :param extra: one more requirement, and others to try in its place while there is nothing that meets it
    :return: where it is; with another requirement than the first in a place of its own, since that may be met one day
    """
    files = [option for file in requirements for option in ("-r", str(file))]
    for number, wanted in enumerate(extra or [""]):
        place = path.with_name(f"{path.name}-{digest(wanted)}") if number else path
        marker = place / ".complete"
        if marker.exists():
            return place
        shutil.rmtree(place, ignore_errors=True)
        with step(what):
            run([str(python), "-m", "venv", str(place)])
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *files]
            try:
                run([*pip, wanted] if wanted else pip)
            except SetupError as error:
                if "No matching distribution" not in str(error) or wanted == (extra or [""])[-1]:
                    raise
                say(f"nothing meets {wanted}, so the next best is tried")
                continue
        marker.touch()
        return place
    raise AssertionError("the last one is made or raises")


def make_venvs(wanted: Sequence[Environment]) -> list[Path]:
    """Make virtual environments side by side: pip keeps one processor busy. Returns where each is."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [made.result() for made in [pool.submit(make_venv, *one) for one in wanted]]


def venv_key(python: Path, requirements: Sequence[Path], *extra: str) -> str:
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout
    return digest(str(python), version, *(file.read_text() for file in requirements), *extra)


# ansible-test


def get_pip_name(venv: Path) -> str:
    """The name under which the installed ansible-test looks for its pip bootstrap script, as `get_pip_25_2.py`."""
    source = next(venv.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"))
    match = re.search(r"default_packages = dict\(\s*pip='([\d.]+)'", source.read_text())
    if not match:
        raise SetupError(f"{source} no longer says which pip it wants: adapt get_pip_name in tests/tools/setup.py.")
    return f"get_pip_{match.group(1).replace('.', '_')}.py"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink() or Path(os.readlink(path)) != target:
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def ansible_test_home(venv: Path) -> Path:
    """A home for ansible-test: its pip bootstrap without a download, and pip set up as the user has it.

    ansible-test hands HOME to pip, but no PIP_ variable: those become a configuration file.
    """
    home = cache() / "home"
    write(home / ".ansible" / "test" / "cache" / get_pip_name(venv), GET_PIP)
    user = Path(os.path.expanduser("~"))
    link(home / ".cache", Path(os.environ.get("XDG_CACHE_HOME") or user / ".cache"))
    link(home / ".config", user / ".config")
    options = {key[4:].lower().replace("_", "-"): value for key, value in os.environ.items() if key.startswith("PIP_")}
    lines = [f"{key} = {value}" for key, value in sorted(options.items()) if value and key != "config-file"]
    write(home / ".pip" / "pip.conf", "\n".join(["[global]", *lines, ""]))
    return home


def prepare(nas: bool, emulated: bool = False) -> Tools:
    """Install what is missing, for a NAS also what builds and boots it, and return where everything is.

    :param emulated: what the tests with emulated drives need, too
    """
    with lock(cache() / "setup.lock", "another set-up to finish"):
        missing = programs()
        if nas:
            missing += nas_packages()
        sedutil = None
        if emulated:
            sedutil, absent = sedutil_root()
            missing += absent
        pythons = {version: path for version, path in interpreters().items() if can_make_venvs(version, path)}
        for version in MODULE_PYTHONS:
            if version not in pythons:
                missing.append(f"Python {version[0]}.{version[1]}: not on this machine, or without its venv module")
        usable = [version for version in pythons if CONTROLLER_PYTHONS[0] <= version <= CONTROLLER_PYTHONS[1]]
        if not usable:
            raise SetupError("no Python 3.11 or newer that can make a venv; on Debian: apt-get install python3-venv")
        core = os.environ.get("CORE", "")
        # a requirement of its own on top of the file's: the two must not contradict each other
        extra = core_requirements(core) if core else []
        gates = [core_free(GATES[0])] if core else [GATES[0]]
        newest = max(usable)
        python = pythons[newest]
        venv = cache() / f"venv-{venv_key(python, [*gates, *UNITS], *extra)}"
        what = f"Ansible and the gates on Python {newest[0]}.{newest[1]}"
        wanted: list[Environment] = [(venv, python, [*gates, *UNITS], extra, what)]
        names = [f"{newest[0]}.{newest[1]}"]
        for version, path in pythons.items():
            if version != newest:
                name = f"{version[0]}.{version[1]}"
                names.append(name)
                place = cache() / f"units-{name}-{venv_key(path, UNITS)}"
                wanted.append((place, path, UNITS, [], f"unit tests on Python {name}"))
        made = make_venvs(wanted)
        venv, units = made[0], dict(zip(names, made))
        collections = cache() / f"live-{digest(str(ROOT))}"
        link(collections / "ansible_collections" / "nasops" / "encryption", ROOT)
        ordered = dict(sorted(units.items(), key=minor))
        return Tools(venv, ordered, tuple(missing), ansible_test_home(venv), collections, sedutil)


def core_requirements(core: str) -> list[str]:
    """What pip is asked for: the newest version of a release, or of one that is not out yet its newest pre-release."""
    found = re.fullmatch(r"2\.(\d+)(\.\d+(?:(?:a|b|rc)\d+)?)?", core)
    if not found:
        raise SetupError(
            f"CORE={core} is not a release of ansible-core; wanted: two numbers, as CORE=2.20, or all of a version, as "
            "CORE=2.22.0rc1"
        )
    if found.group(2):
        return [f"ansible-core=={core}"]
    # pip takes pre-releases only where one is named
    return [f"ansible-core=={core}.*", f"ansible-core>={core}.0a0,<2.{int(found.group(1)) + 1}"]


def minor(item: tuple[str, Path]) -> int:
    return int(item[0].split(".")[1])


def core_free(requirements: Path) -> Path:
    """The requirements without their own choice of ansible-core, as a file in the cache."""
    lines = requirements.read_text().splitlines(keepends=True)
    path = cache() / "gates-any-core.txt"
    write(path, "".join(line for line in lines if not line.startswith("ansible-core")))
    return path


def main() -> int:
    try:
        # every command there is boots a NAS
        tools = prepare(nas=True)
    except SetupError as error:
        say(str(error))
        return 1
    command = sys.argv[1:]
    if not command:
        for text in tools.missing:
            say(text)
        say(f"Ansible and the gates are in {tools.venv / 'bin'}")
        return 0
    if not os.access(ROOT / command[0], os.X_OK):
        say(f"{command[0]} is not a program of this work tree")
        return 1
    return subprocess.run([ROOT / command[0], *command[1:]], cwd=ROOT, env=tools.environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
