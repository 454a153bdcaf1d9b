# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds what must not be in a product: paths and hosts of the machine it was written on, and work left undone.

    wording.py FILE...

Prints `file:line: what was found` and exits 1 if there is anything.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

# The bracketed letters keep this file from finding itself.
RULES = (
    (r"\b(TOD[O]|FIXM[E]|TB[D]|XX[X])\b", "work left undone"),
    (r"@[@]\w+@[@]", "a gap to be filled in"),
    (r"raise NotImplemente[d]|\bnot (yet implemente[d]|implemented ye[t])|lorem ipsu[m]", "a stub"),
    (r"@pytest\.mark\.(ski[p]|xfai[l])|\bpytest\.(ski[p]|xfai[l])\(", "a test that is skipped"),
    (r"(?<![\w.~])/(home|Users)/(?!(?:user|admin|ansible)\b)[a-z][\w.-]*/", "a path of someone's home"),
    (r"(?<![\w./-])\.\./share[d]\b", "a path outside the repository"),
    (r"\b(pypi\.or[g]|files\.pythonhosted\.or[g]|registry\.npmjs\.or[g]|proxy\.golang\.or[g])\b", "a package registry"),
    (r"\bPIP_(EXTRA_)?INDEX_UR[L]\b|--(extra-)?index-ur[l]\b", "a choice of package registry"),
)

# Folders of every machine (Filesystem Hierarchy Standard): they are no trace, even if the work tree is in one of them.
EVERYWHERE = frozenset(
    ("/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/usr/local", "/usr/local/src")
    + ("/usr/src", "/var", "/var/lib", "/var/tmp")
)


def machine(root: Path) -> Iterator[tuple[str, str]]:
    """Patterns of this very machine: its work tree, home and name, and the package registries it uses."""
    home = Path.home()
    for path in (root, root.parent, home):
        if str(path) not in EVERYWHERE:
            yield rf"(?<![\w.]){re.escape(str(path))}(?![\w-])", "a path of this machine"
    name = socket.gethostname().split(".")[0]
    if len(name) > 5 and name not in ("localhost", "debian", "ubuntu"):
        yield rf"\b{re.escape(name)}\b", "the name of this machine"
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    for url in re.findall(r"\b(?:https?|file)://[^\s'\"\\]+", pip.stdout):
        parts = urllib.parse.urlsplit(url)
        place = parts.hostname or parts.path
        yield rf"(?<![\w.]){re.escape(place)}\b", "a package registry of this machine"


def findings(text: str, rules: Iterable[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
    """Line number, matching text and what is wrong with it, for all that the rules find in the text."""
    compiled = [(re.compile(pattern), meaning) for pattern, meaning in rules]
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, meaning in compiled:
            for match in pattern.finditer(line):
                yield number, match.group(), meaning


def main() -> int:
    rules = [*RULES, *machine(Path(__file__).resolve().parents[2])]
    found = False
    for name in sys.argv[1:]:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or another binary file
        for number, match, meaning in findings(os.path.basename(name) + "\n" + text, rules):
            print(f"{name}:{max(number - 1, 1)}: {meaning}: {match}")
            found = True
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
