# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PyKMIP, loaded when it is needed: no host has to have it that does not talk to a KMIP server."""

from __future__ import annotations

import importlib
import logging
import re
import typing as t
from dataclasses import dataclass
from importlib import metadata

from ansible.module_utils.basic import missing_required_lib

from ..errors import StorageError

_OLDEST = (0, 11)


class LibraryMissing(StorageError):
    """PyKMIP is not installed for this Python, or too old."""


@dataclass(frozen=True)
class Library:
    """The parts of PyKMIP that are used. It has no type hints."""

    client: t.Any
    enums: t.Any
    objects: t.Any
    attributes: t.Any
    streams: t.Any
    failure: type[Exception]


def load() -> Library:
    """Import PyKMIP.

    :raises LibraryMissing: it can't be imported
    """
    _check_version()
    try:
        # What it logs could hold names and keys, and would go to the terminal where nothing else takes it.
        logger = logging.getLogger("kmip")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        failures = importlib.import_module("kmip.pie.exceptions")
        return Library(
            client=importlib.import_module("kmip.pie.client").ProxyKmipClient,
            enums=importlib.import_module("kmip.core.enums"),
            objects=importlib.import_module("kmip.pie.objects"),
            attributes=importlib.import_module("kmip.core.factories.attributes").AttributeFactory(),
            streams=importlib.import_module("kmip.core.utils").BytearrayStream,
            failure=failures.KmipOperationFailure,
        )
    except ImportError as error:
        raise LibraryMissing(
            missing_required_lib("PyKMIP", reason="to talk to a KMIP server"),
            hint=f"It is installed with: python3 -m pip install 'pykmip>=0.11'. Python said: {error}.",
        ) from None


def _check_version() -> None:
    """Older versions send other messages, or don't run on current Pythons at all."""
    try:
        version = metadata.version("PyKMIP")
    except metadata.PackageNotFoundError:
        return  # it can be there without; and if it is not, the import tells
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST:
        raise LibraryMissing(
            f"PyKMIP {version} is too old; wanted is {'.'.join(str(part) for part in _OLDEST)} or later.",
            hint="It is installed with: python3 -m pip install 'pykmip>=0.11'.",
        )
