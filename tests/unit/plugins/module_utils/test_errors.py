# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused, StorageError


def test_the_text_is_the_message_and_the_hint() -> None:
    assert str(StorageError("Found this.", hint="Do that.")) == "Found this. Do that."


def test_without_a_hint_the_text_is_the_message_alone() -> None:
    error = StorageError("Found this.", disk="sda")
    assert str(error) == "Found this."
    assert (error.message, error.hint, error.details) == ("Found this.", "", {"disk": "sda"})


def test_bad_input_and_refusals_can_be_caught_as_one() -> None:
    for kind in (BadInput, Refused):
        assert issubclass(kind, StorageError)
    assert not issubclass(BadInput, Refused)
    assert not issubclass(Refused, BadInput)
