# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the parts of `make test`, and says at the end what ran, what did not and why.

    gates.py [PART...]

The gates look at a copy of the work tree in .build/ansible_collections/nasops/encryption, the place ansible-test asks
for. What each of them said is in .build/logs. The last line is `N passed, M failed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from setup import ROOT, SetupError, Tools, lock, prepare

BUILD = ROOT / ".build"
TREE = BUILD / "ansible_collections" / "nasops" / "encryption"
LOGS = BUILD / "logs"
COLLECTION = "nasops.encryption"
VM = ROOT / "tests" / "vm" / "run"


@dataclass(frozen=True)
class Counts:
    """Tests that passed and failed, and what was not tested, each with its reason."""

    passed: int = 0
    failed: int = 0
    missing: tuple[str, ...] = ()

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.missing + other.missing)


def at_least_one(counts: Counts) -> Counts:
    """A gate that tested nothing proves nothing: that is a failure."""
    return counts if counts.passed or counts.failed else counts + Counts(failed=1)


@dataclass
class Result:
    """What became of a part; None in place of counts: it did not run, for this reason."""

    part: str
    counts: Counts | None
    seconds: float = 0.0
    reason: str = ""


@dataclass
class Runner:
    """Runs the commands of one part and adds up what they count."""

    part: str
    tools: Tools
    env: dict[str, str]
    files: list[Path]
    counts: Counts = field(default_factory=Counts)
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _ended: bool = False
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def together(self, *gates: Callable[[], object]) -> None:
        """Run gates side by side, those that keep one processor busy and leave the others idle."""
        with ThreadPoolExecutor(len(gates)) as pool:
            try:
                for one in [pool.submit(gate) for gate in gates]:
                    one.result()
            except BaseException:  # interrupted: the others would be waited for
                self.stop()
                raise

    def stop(self) -> None:
        """End what runs, and start nothing more."""
        with self._mutex:
            self._ended = True
            for process in self._running:
                process.terminate()

    def run(
        self,
        name: str,
        argv: Sequence[str | Path],
        cwd: Path = ROOT,
        count: Callable[[str], Counts] | None = None,
        env: dict[str, str] | None = None,
        show: Literal["on failure", "always", "never"] = "on failure",
    ) -> bool:
        """Run one gate: its output goes to a log, and to the terminal, unless told otherwise, if it fails.

        `count` reads the counts from the output; without it, and where it finds no failure in a command that failed,
        the gate is one test.
        """
        start = time.monotonic()
        path = LOGS / f"{self.part}-{name}.log"
        with path.open("w+", encoding="utf-8", errors="replace") as log:
            process = self._start(argv, cwd, {**self.env, **(env or {})})
            if process.stdout is None:
                raise ValueError("a pipe was asked for and is not there")
            try:
                for line in process.stdout:
                    log.write(line)
                    if show == "always":
                        print(line, end="", flush=True)
            except BaseException:  # interrupted: leave nothing running
                process.terminate()
                raise
            finally:
                status = process.wait()
                with self._mutex:
                    self._running.discard(process)
        output = path.read_text(encoding="utf-8")
        counts = count(output) if count else Counts(passed=int(status == 0))
        if status and not counts.failed:
            counts += Counts(failed=1)
        self.add(name, counts, time.monotonic() - start, output if show == "on failure" else "")
        return status == 0

    def _start(self, argv: Sequence[str | Path], cwd: Path, env: dict[str, str]) -> subprocess.Popen[str]:
        """Start a program, unless its gate is one of several that were interrupted."""
        with self._mutex:
            if self._ended:
                raise InterruptedError("another gate was interrupted")
            process = subprocess.Popen(
                [str(word) for word in argv],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            self._running.add(process)
            return process

    def add(self, name: str, counts: Counts, seconds: float, output: str) -> None:
        """Report one gate in a line, with all it said if it failed."""
        word = "FAILED" if counts.failed else "ok"
        with self._mutex:
            self.counts += counts
            if counts.failed and output:
                print(output, end="" if output.endswith("\n") else "\n")
            # in one piece: another part may go on beside this one
            sys.stdout.write(f"{word:6} {self.part}/{name} ({seconds:.1f} s)\n")
            sys.stdout.flush()


# The working copy


def product_files(env: dict[str, str]) -> list[Path]:
    """Every file of the work tree that git does not ignore, relative to it."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(Path(name) for name in set(names) if name and os.path.lexists(ROOT / name))


def copy_tree(files: Sequence[Path]) -> None:
    """Bring the working copy up to date; unchanged files keep their times, so caches stay good."""
    wanted = set(files)
    for path in sorted(TREE.rglob("*"), reverse=True):
        relative = path.relative_to(TREE)
        if relative.parts[:2] == ("tests", "output"):
            continue
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # not empty: still in use
                path.rmdir()
        elif relative not in wanted:
            path.unlink()
    for relative in files:
        source, target = ROOT / relative, TREE / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target) or changed(source, target):
            target.unlink(missing_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def changed(source: Path, target: Path) -> bool:
    old, new = target.lstat(), source.lstat()
    return (old.st_mode, old.st_size, old.st_mtime_ns) != (new.st_mode, new.st_size, new.st_mtime_ns)


# Counting


def junit(directory: Path) -> Counts:
    """The counts of all JUnit files in a directory; a skipped test is named, not counted."""
    counts = Counts()
    for path in sorted(directory.glob("*.xml")):
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            skipped = case.find("skipped")
            if skipped is not None:
                name = f"{case.get('classname')}.{case.get('name')}"
                counts += Counts(missing=(f"{name}: {skipped.get('message')}",))
            elif case.find("failure") is not None or case.find("error") is not None:
                counts += Counts(failed=1)
            else:
                counts += Counts(passed=1)
    return at_least_one(counts)


def count_sanity(output: str) -> Counts:
    """Each sanity test counts once for each Python it ran on. A Python that is not there is set-up's to tell."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", output)
    run = len(re.findall(r"^Running sanity test ", plain, re.M))
    lines = re.findall(r"^\w+: The \d+ sanity test\(s\) listed below .* failed.*\n((?:.+\n?)*)", plain, re.M)
    failed = sum(len(block.splitlines()) for block in lines)
    skipped = re.findall(r"^WARNING: (Skipping (?!.*because it could not be found).*)$", plain, re.M)
    return at_least_one(Counts(max(run - failed, 0), failed, tuple(dict.fromkeys(skipped))))


def count_summary(prefix: str) -> Callable[[str], Counts]:
    """Reads the last line of the form `prefix: N passed, M failed`, and those of the form `prefix: not run: WHAT`."""

    def count(output: str) -> Counts:
        found = re.findall(rf"^{prefix}: (\d+) passed, (\d+) failed$", output, re.M)
        missing = tuple(re.findall(rf"^{prefix}: not run: (.+)$", output, re.M))
        return Counts(int(found[-1][0]), int(found[-1][1]), missing) if found else Counts(failed=1)

    return count


# The parts


def licenses(gate: Runner) -> None:
    gate.run("reuse", ["reuse", "lint"])


def changelog(gate: Runner) -> None:
    gate.run("fragments", ["antsibull-changelog", "lint"], TREE)
    gate.run("changelog", ["antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml"], TREE)


def lint(gate: Runner) -> None:
    gate.run("ruff", ["ruff", "check", "--output-format", "concise", "."])
    gate.run("format", ["ruff", "format", "--check", "--diff", "."])
    gate.run("yamllint", ["yamllint", "--strict", "."])
    gate.run("wording", [sys.executable, "tests/tools/wording.py", *gate.files])
    scripts = [path for path in gate.files if is_shell(path)]
    if shutil.which("shellcheck", path=gate.env["PATH"]):
        gate.run("shellcheck", ["shellcheck", "-x", "-P", "SCRIPTDIR", *scripts])
    else:
        gate.counts += Counts(missing=("shellcheck: not installed",))
    report = BUILD / "tools"
    shutil.rmtree(report, ignore_errors=True)
    # one worker for each processor; most of these tests wait for one program after the other
    pytest = ["pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "--dist", "worksteal"]
    pytest += [f"--junit-xml={report}/tools.xml", "tests/tools"]
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "tools"), str(BUILD)])}
    # ansible-playbook makes a socket below each test's own folder, and the path of one has 107 bytes at most; the one
    # that pytest would choose is too long for that with a worker's name in it, once its number has three digits
    with tempfile.TemporaryDirectory(prefix="t-") as short:
        pytest += [f"--basetemp={short}/t"]
        gate.run("tools", pytest, count=lambda _output: junit(report), env=path)
    package = f"ansible_collections.{COLLECTION}"
    # the program of the role test_nas runs on any Python of a host too
    on_hosts = packages(package, "plugins/modules", "plugins/module_utils", "roles")
    on_controller = packages(package, "plugins", "roles", "tests")

    def types() -> None:
        # one after the other: they share a cache
        gate.run("mypy-hosts", ["mypy", "--python-version", "3.9", *on_hosts])
        gate.run("mypy-controller", ["mypy", *on_controller])

    gate.together(
        types,
        lambda: gate.run("ansible-lint", ["ansible-lint"], TREE, env={"ANSIBLE_COLLECTIONS_PATH": str(BUILD)}),
    )


def is_shell(path: Path) -> bool:
    """A shell script: by its name, or by its first line."""
    if path.suffix == ".sh":
        return True
    if path.suffix:
        return False
    with (ROOT / path).open("rb") as file:
        return re.match(rb"#!.*\b(ba|da)?sh\b", file.readline()) is not None


def packages(package: str, *directories: str) -> list[str]:
    """The options that make mypy look at those directories of the working copy that hold Python."""
    found = [name for name in directories if any((TREE / name).rglob("*.py"))]
    return [word for name in found for word in ("-p", f"{package}.{name.replace('/', '.')}")]


def docs(gate: Runner) -> None:
    # looks for collections where this one is installed from its copy, like a reader's own
    command = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all"]
    options = ["--disallow-unknown-collection-refs", "--check-extra-docs-refs", "."]
    gate.run("antsibull-docs", [*command, *options], TREE, env={"ANSIBLE_COLLECTIONS_PATH": str(BUILD)})


def build(gate: Runner) -> None:
    """The collection builds, installs into an empty place, and is whole and usable there."""
    dist, place = BUILD / "dist", BUILD / "installed"
    for path in (dist, place):
        shutil.rmtree(path, ignore_errors=True)
    galaxy = ["ansible-galaxy", "collection"]
    if not gate.run("build", [*galaxy, "build", "--output-path", dist], TREE):
        return
    env = {"ANSIBLE_COLLECTIONS_PATH": str(place)}
    if not gate.run("install", [*galaxy, "install", "--offline", "-p", place, *dist.glob("*.tar.gz")], dist, env=env):
        return
    installed = place / "ansible_collections" / "nasops" / "encryption"
    absent = [str(path) for path in gate.files if belongs_to_users(path) and not (installed / path).exists()]
    problems = "".join(
        f"{name}: in the work tree, but galaxy.yml does not put it into the collection\n" for name in absent
    )
    gate.add("complete", Counts(passed=int(not absent), failed=len(absent)), 0.0, problems)
    for kind in ("module", "lookup", "filter", "test", "role"):
        folder = {"module": "modules", "role": "../roles"}.get(kind, kind)
        if (installed / "plugins" / folder).is_dir():
            expected = names(installed / "plugins" / folder)
            argv = ["ansible-doc", "-t", kind, "--json", *(f"{COLLECTION}.{name}" for name in expected)]
            gate.run(f"doc-{kind}", argv, place, documented(expected), env, show="never")
    playbooks = sorted((installed / "playbooks").glob("*.yml"))
    # in one run: most of what each of them would take is the start of Ansible
    argv = ["ansible-playbook", "--syntax-check", *(f"{COLLECTION}.{playbook.stem}" for playbook in playbooks)]
    gate.run("playbooks", argv, place, lambda output: parsed(playbooks, output), env)


def parsed(playbooks: Sequence[Path], output: str) -> Counts:
    """Ansible names each playbook that it could read, and stops at the first that it could not."""
    missing = [path for path in playbooks if f"playbook: {path}\n" not in output]
    return at_least_one(Counts(len(playbooks) - len(missing), len(missing)))


def belongs_to_users(path: Path) -> bool:
    return path.parts[0] in ("plugins", "roles", "playbooks", "meta", "docs", "LICENSES") or path.name == "README.md"


def names(folder: Path) -> list[str]:
    """The plugins or roles in a folder: files by their stem, folders by their name."""
    found = {path.stem for path in folder.iterdir() if path.suffix in (".py", ".yml") or path.is_dir()}
    return sorted(name for name in found if not name.startswith("_"))


def documented(expected: Sequence[str]) -> Callable[[str], Counts]:
    """Counts the plugins ansible-doc knows; one that is not documented fails."""

    def count(output: str) -> Counts:
        try:
            known = json.loads(output[output.index("{") : output.rindex("}") + 1])
        except ValueError:
            return Counts(failed=1)
        unknown = [name for name in expected if f"{COLLECTION}.{name}" not in known]
        missing = tuple(f"{name}: ansible-doc finds no documentation" for name in unknown)
        return Counts(len(expected) - len(unknown), len(unknown), missing)

    return count


def ansible_test(gate: Runner) -> dict[str, str]:
    """A home of its own, and the working copy as it is: git above it ignores all of it."""
    return {"HOME": str(gate.tools.home), "ANSIBLE_TEST_CONTENT_ROOT": str(TREE)}


def unit(gate: Runner) -> None:
    output = TREE / "tests" / "output"
    report = output / "junit"
    shutil.rmtree(report, ignore_errors=True)
    ask_for_examples(output / "examples", os.environ.get("EXAMPLES", ""))
    argv = ["ansible-test", "units", "--color", "no"]
    gate.run("ansible-test", argv, TREE, lambda _output: junit(report), ansible_test(gate))


def ask_for_examples(path: Path, number: str) -> None:
    """Tell the unit tests how many examples each property is tried with; it is theirs to choose if nothing is asked."""
    path.unlink(missing_ok=True)
    if number:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{int(number)}\n")


def drives(gate: Runner) -> None:
    """Emulated drives; without sedutil-cli, which set-up then names, those tests that do without it."""
    report = BUILD / "drives"
    shutil.rmtree(report, ignore_errors=True)
    env = {"PYTHONPATH": str(BUILD)}
    places = [str(TREE / "tests" / "opal" / "native")]
    measures = bool(os.environ.get("NASOPS_SED_SPEED"))
    if measures:
        # it takes time, in both senses, and so is not for a machine that does something else as well
        places = [str(TREE / "tests" / "opal" / "speed")]
    elif gate.tools.sedutil:
        env["NASOPS_SEDUTIL_ROOT"] = str(gate.tools.sedutil)
        places.append(str(TREE / "tests" / "opal" / "upstream"))
    # most of the time programs wait for drives; and some tests wait many times as long as others
    pytest = ["pytest", "-q", "-p", "no:cacheprovider", "-n", "4", "--dist", "worksteal"]
    # with what a test that measures has printed, which is what one wants to know
    pytest += [f"--junit-xml={report}/drives.xml", *(["-rP"] if measures else []), *places]
    show: Literal["on failure", "always"] = "always" if measures else "on failure"
    gate.run("emulated", pytest, TREE, count=lambda _output: junit(report), env=env, show=show)


def sanity(gate: Runner) -> None:
    ignores = [str(path) for path in gate.files if path.match("tests/sanity/ignore-*")]
    problems = "".join(
        f"{name}: the collection passes without ignored findings; mend them instead\n" for name in ignores
    )
    gate.add("no-ignores", Counts(passed=int(not ignores), failed=len(ignores)), 0.0, problems)
    argv = ["ansible-test", "sanity", "--color", "no"]
    if gate.run("set-up", [*argv, "--prime-venvs"], TREE, lambda _output: Counts(), ansible_test(gate)):
        gate.run("ansible-test", argv, TREE, count_sanity, ansible_test(gate))


def vm(gate: Runner) -> None:
    gate.run("cases", [VM], count=count_summary("vm"), show="always")


# In this order: quick answers first.
PARTS: dict[str, Callable[[Runner], None]] = {
    "licenses": licenses,
    "changelog": changelog,
    "lint": lint,
    "docs": docs,
    "build": build,
    "unit": unit,
    "drives": drives,
    "sanity": sanity,
    "vm": vm,
}


SLOW = "sanity"
"""The part that keeps a single processor busy for minutes."""


class Image:
    """The NAS image, built in the background while the gates run."""

    def __init__(self, env: dict[str, str]) -> None:
        self.log = LOGS / "vm-prepare.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [VM, "--prepare"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        print(f"       vm: preparing the image in the background, see {self.log.relative_to(ROOT)}", flush=True)

    def ready(self) -> bool:
        """Wait until the image is there; False if it could not be built."""
        if self.process.poll() is None:
            print("       vm: waiting for the image", flush=True)
        if self.process.wait() == 0:
            return True
        print(self.log.read_text(errors="replace"))
        return False

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()


class Aside:
    """A part that keeps one processor busy, and goes on while others run."""

    def __init__(self, gate: Runner) -> None:
        self.part = gate.part
        self._gate = gate
        self._pool = ThreadPoolExecutor(1)
        self._ended = self._pool.submit(self._run)

    def _run(self) -> Result:
        start = time.monotonic()
        PARTS[self.part](self._gate)
        return Result(self.part, self._gate.counts, time.monotonic() - start)

    def result(self) -> Result:
        """Wait for its end."""
        return self._ended.result()

    def stop(self) -> None:
        self._gate.stop()
        self._pool.shutdown()


def run_parts(parts: Sequence[str], tools: Tools) -> Iterator[Result]:
    """Run the parts, most of them in order.

    The NAS comes last and has the processors to itself; once a part has failed, it needs KEEP_GOING to run at all.
    """
    env = tools.environment()
    files = product_files(env)
    failed = False
    image: Image | None = None
    aside: Aside | None = None
    with contextlib.ExitStack() as stack:
        if parts != ["vm"]:
            stack.enter_context(lock(BUILD / "lock", "another run of the gates in this work tree"))
            copy_tree(files)
        if "vm" in parts and len(parts) > 1 and VM.exists():
            image = Image(env)
            stack.callback(image.stop)
        if SLOW in parts and set(parts) - {SLOW, "vm"}:
            aside = Aside(Runner(SLOW, tools, env, files))
            stack.callback(aside.stop)
        for part in parts:
            if aside and part == aside.part:
                continue
            if part == "vm" and aside:
                result, aside = aside.result(), None
                failed = failed or result.counts is None or bool(result.counts.failed)
                yield result
            if part == "vm" and failed and not os.environ.get("KEEP_GOING"):
                yield Result(part, None, reason="an earlier part failed (KEEP_GOING=1 runs it all the same)")
                continue
            start = time.monotonic()
            gate = Runner(part, tools, env, files)
            if part == "vm" and image and not image.ready():
                gate.add("image", Counts(failed=1), time.monotonic() - start, "")
            else:
                PARTS[part](gate)
            failed = failed or bool(gate.counts.failed)
            yield Result(part, gate.counts, time.monotonic() - start)
        if aside:
            yield aside.result()


def table(results: Sequence[Result], missing: Sequence[str]) -> Iterator[str]:
    """The closing lines: what ran, what did not and why, and the sum."""
    total = Counts()
    reasons: list[str] = []
    yield f"{'part':<11}{'result':<9}{'passed':>7}{'failed':>8}{'seconds':>9}"
    for result in results:
        if result.counts is None:
            yield f"{result.part:<11}{'not run':<9}"
            reasons.append(f"{result.part}: {result.reason}")
            continue
        total += result.counts
        word = "failed" if result.counts.failed else "passed"
        counts = result.counts
        yield f"{result.part:<11}{word:<9}{counts.passed:>7}{counts.failed:>8}{result.seconds:>9.0f}"
        reasons += [f"{result.part}: {text}" for text in counts.missing]
    reasons += missing
    yield f"Not run: {'nothing' if not reasons else ''}".rstrip()
    yield from (f"  {text}" for text in reasons)
    yield f"{total.passed} passed, {total.failed} failed"


def main() -> int:
    parts = sys.argv[1:] or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"There is no part {', '.join(unknown)}. The parts are: {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    examples = os.environ.get("EXAMPLES", "")
    if examples and not re.fullmatch("[1-9][0-9]{0,5}", examples):
        print(f"EXAMPLES={examples} is no number of examples; wanted is one such as EXAMPLES=1000.", file=sys.stderr)
        return 2
    parts = [part for part in PARTS if part in parts]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        tools = prepare(nas="vm" in parts, emulated="drives" in parts)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        print("0 passed, 1 failed")
        return 1
    LOGS.mkdir(parents=True, exist_ok=True)
    results = list(run_parts(parts, tools))
    missing = [f"part {part}: not asked for" for part in PARTS if part not in parts]
    print()
    print("\n".join(table(results, [*missing, *tools.missing])))
    return int(any(result.counts is None or result.counts.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
