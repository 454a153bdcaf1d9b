# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates count what their tools report, and a part that fails or does not run shows in the closing table."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import gates
import pytest
from gates import (
    Counts,
    Result,
    Runner,
    ask_for_examples,
    count_sanity,
    count_summary,
    documented,
    junit,
    parsed,
    table,
)
from setup import Tools

SANITY = """\
Running sanity test "compile" on Python 3.9
Running sanity test "import" on Python 3.9
Running sanity test "pep8"
ERROR: Found 1 pep8 issue(s) which need to be resolved:
ERROR: plugins/modules/a.py:1:1: E302: expected 2 blank lines
WARNING: Skipping sanity test "import" on Python 3.10 because it could not be found.
WARNING: Skipping sanity test "pslint" because PowerShell is missing.
FATAL: The 1 sanity test(s) listed below (out of 3) failed. See error output above for details.
pep8
"""


def test_sanity_counts_each_test_and_names_the_skipped() -> None:
    assert count_sanity(SANITY) == Counts(2, 1, ('Skipping sanity test "pslint" because PowerShell is missing.',))


def test_no_sanity_test_at_all_is_a_failure() -> None:
    assert count_sanity("WARNING: All targets skipped.\n") == Counts(0, 1)


def test_junit_adds_up_files(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<testsuites><testsuite><testcase classname="t" name="ok"/><testcase classname="t" name="bad"><failure/>'
        '</testcase><testcase classname="t" name="off"><skipped message="no cat"/></testcase></testsuite></testsuites>'
    )
    (tmp_path / "b.xml").write_text('<testsuite><testcase classname="t" name="ok"/></testsuite>')
    assert junit(tmp_path) == Counts(2, 1, ("t.off: no cat",))


def test_no_unit_test_at_all_is_a_failure(tmp_path: Path) -> None:
    assert junit(tmp_path) == Counts(0, 1)


def test_a_missing_summary_is_a_failure() -> None:
    count = count_summary("vm")
    assert count("booting\nvm: 12 passed, 1 failed\n") == Counts(12, 1)
    assert count("booting\nTraceback ...\n") == Counts(0, 1)


def test_what_a_part_leaves_out_is_named_at_the_end() -> None:
    counts = count_summary("vm")("vm: not run: 300 cases (make vm-all)\nvm: 12 passed, 0 failed\n")
    assert counts == Counts(12, 0, ("300 cases (make vm-all)",))
    assert list(table([Result("vm", counts)], []))[-3:] == [
        "Not run:",
        "  vm: 300 cases (make vm-all)",
        "12 passed, 0 failed",
    ]


def test_an_undocumented_plugin_is_a_failure() -> None:
    count = documented(["a", "b"])
    assert count('[WARNING]: b was not found\n{"nasops.encryption.a": {"doc": {}}}') == Counts(
        1, 1, ("b: ansible-doc finds no documentation",)
    )
    assert count("ERROR! no such plugin") == Counts(0, 1)


def test_a_playbook_that_was_not_read_is_a_failure() -> None:
    paths = [Path("/c/lock.yml"), Path("/c/unlock.yml")]
    assert parsed(paths, "\nplaybook: /c/lock.yml\n\nplaybook: /c/unlock.yml\n") == Counts(2)
    assert parsed(paths, "\nplaybook: /c/unlock.yml\nERROR! lock.yml: no tasks\n") == Counts(1, 1)
    assert parsed([], "") == Counts(0, 1)


def test_the_table_ends_with_the_sum_and_names_what_did_not_run() -> None:
    results = [
        Result("lint", Counts(8, 1, ("shellcheck: not installed",)), 3.0),
        Result("unit", Counts(40), 12.0),
        Result("vm", None, reason="an earlier part failed"),
    ]
    lines = list(table(results, ["Python 3.14: not on this machine"]))
    assert lines[-1] == "48 passed, 1 failed"
    assert "  lint: shellcheck: not installed" in lines
    assert "  vm: an earlier part failed" in lines
    assert "  Python 3.14: not on this machine" in lines
    assert [line.split()[1] for line in lines[1:4]] == ["failed", "passed", "not"]


def test_nothing_left_out_is_said() -> None:
    assert list(table([Result("lint", Counts(1))], []))[-2:] == ["Not run: nothing", "1 passed, 0 failed"]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(gates, "LOGS", tmp_path)
    tools = Tools(tmp_path, {}, (), tmp_path, tmp_path)
    return Runner("part", tools, dict(os.environ), [])


def test_gates_side_by_side_count_as_one_after_the_other(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """Each waits for the other, so that neither ends unless both run."""
    meet = (
        "import os, sys, time\nopen(sys.argv[1], 'w').close()\nwhile not os.path.exists(sys.argv[2]): time.sleep(.01)"
    )
    one, two = (str(runner.tools.venv / name) for name in ("one", "two"))
    runner.together(
        lambda: runner.run("good", [sys.executable, "-c", meet, one, two]),
        lambda: runner.run("bad", [sys.executable, "-c", f"{meet}\nsys.exit('it is bad')", two, one]),
    )
    assert runner.counts == Counts(1, 1)
    assert "it is bad" in capsys.readouterr().out


def test_when_one_of_them_is_interrupted_the_others_are_ended(runner: Runner) -> None:
    begun = runner.tools.venv / "begun"
    endless = f"import time; open({str(begun)!r}, 'w').close(); time.sleep(3600)"

    def interrupted() -> None:
        while not begun.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    def several() -> None:
        for name in ("endless", "after it"):
            runner.run(name, [sys.executable, "-c", endless])

    with pytest.raises(KeyboardInterrupt):
        runner.together(interrupted, several)
    assert runner.counts == Counts(0, 1)


class Playing:
    """Parts that only tell of themselves; what was begun and ended, in order."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.tools = Tools(place, {}, (), place, place)
        self.faults: set[str] = set()
        self.begun = threading.Event()
        monkeypatch.setattr(gates, "BUILD", place)
        monkeypatch.setattr(gates, "VM", place / "none")
        monkeypatch.setattr(gates, "product_files", lambda _env: [])
        monkeypatch.setattr(gates, "copy_tree", lambda _files: None)
        monkeypatch.setattr(gates, "PARTS", {"lint": self.quick, "sanity": self.slow, "vm": self.quick})

    def quick(self, gate: Runner) -> None:
        if gate.part == "lint":
            assert self.begun.wait(60), "the slow one was not begun beside it"
        self.said.append(gate.part)
        gate.counts += Counts(1)

    def slow(self, gate: Runner) -> None:
        self.begun.set()
        while "lint" not in self.said:
            time.sleep(0.01)
        self.said.append(gate.part)
        gate.counts += Counts(0, 1) if "sanity" in self.faults else Counts(1)

    def run(self) -> list[tuple[str, bool]]:
        return [(one.part, one.counts is not None) for one in gates.run_parts(["lint", "sanity", "vm"], self.tools)]


def test_the_slow_part_goes_on_beside_the_others_and_ends_before_the_nas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Playing(tmp_path, monkeypatch)
    assert parts.run() == [("lint", True), ("sanity", True), ("vm", True)]
    assert parts.said == ["lint", "sanity", "vm"]


def test_when_the_slow_part_fails_there_is_no_nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEEP_GOING", raising=False)
    parts = Playing(tmp_path, monkeypatch)
    parts.faults.add("sanity")
    assert parts.run() == [("lint", True), ("sanity", True), ("vm", False)]


def test_the_number_of_examples_is_handed_on_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "output" / "examples"
    ask_for_examples(path, "1000")
    assert path.read_text() == "1000\n"
    ask_for_examples(path, "")
    assert not path.exists()
