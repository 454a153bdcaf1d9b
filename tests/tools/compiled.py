# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Python for the modules of a test, which compiles what they import once.

Ansible hands a module over in an archive with all it imports, and Python keeps nothing of what it compiled from one.
That takes several times as long as what a module does.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

# Python runs a module of this name when it starts.
_SITE = """
import _imp, marshal, os, sys, zipimport
COMPILE = zipimport._compile_source
def compiled(path, source):
    kept = "%s/%s-%d-%s" % ({kept!r}, sys.implementation.cache_tag, len(source), _imp.source_hash(0, source).hex())
    try:
        with open(kept, "rb") as file:
            return marshal.load(file)
    except FileNotFoundError:
        code = COMPILE(path, source)
    part = "%s.%d" % (kept, os.getpid())
    with open(part, "wb") as file:
        marshal.dump(code, file)
    os.rename(part, kept)
    return code
zipimport._compile_source = compiled
"""


def python(folder: Path, more: str = "", program: str = "python-of-modules", **variables: str) -> Path:
    """Make a program in the folder ``bin`` of that one, for ``ansible_python_interpreter``.

    :param folder: of a test; what is compiled is beside it, for the other tests as well
    :param more: what a module runs before all else
    :param variables: of its environment
    """
    kept, site, path = folder.parent / "compiled", folder / "site", folder / "bin" / program
    for place in (kept, site, path.parent):
        place.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE.format(kept=str(kept)) + more)
    words = [f"{name}={shlex.quote(value)}" for name, value in {"PYTHONPATH": str(site), **variables}.items()]
    path.write_text(f'#!/bin/sh\n{" ".join(words)} exec {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    return path
