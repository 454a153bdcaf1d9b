# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm import copies
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import Description, Disk
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.paths import Files

GUEST = "12345678-1234-5678-1234-567812345678"


@pytest.fixture
def source(tmp_path: Path, description: Description) -> Files:
    files = Files(tmp_path / "first")
    files.directory.mkdir()
    for path in (files.root_disk, *(files.data_disk(disk.serial) for disk in description.disks)):
        path.write_text(path.name)
    for key in (files.client_key, files.host_key):
        key.write_text("private")
        key.chmod(0o600)
        key.with_suffix(".pub").write_text("public")
    files.description.write_text(description.to_json())
    # what belongs to the running process alone
    files.run.write_text("{}")
    files.console.write_text("booting")
    return files


def test_a_copy_has_disks_keys_and_the_ids_of_the_guest_but_its_own_name(
    source: Files, description: Description
) -> None:
    target = Files(source.directory.with_name("second"))
    copies.copy(source, description, target, "second", GUEST)
    found = Description.read(target.description)
    assert found is not None
    assert (found.name, found.disks, found.image) == ("second", description.disks, description.image)
    for path in (target.root_disk, *(target.data_disk(disk.serial) for disk in description.disks)):
        assert path.read_text() == path.name
    assert target.guest.read_text() == GUEST + "\n"
    assert target.client_key.stat().st_mode & 0o777 == 0o600
    assert target.directory.stat().st_mode & 0o777 == 0o700
    assert not target.run.exists() and not target.console.exists()


def test_what_could_not_be_copied_whole_is_no_vm(source: Files, description: Description) -> None:
    source.data_disk(description.disks[-1].serial).unlink()
    target = Files(source.directory.with_name("second"))
    with pytest.raises(TestNasError, match="cannot copy .*Destroy second, then try again"):
        copies.copy(source, description, target, "second", GUEST)
    assert Description.read(target.description) is None


def test_a_copy_of_another_number_of_disks(source: Files, description: Description) -> None:
    other = Description(**{**vars(description), "disks": (Disk.make("A1", "1G", "scsi"),)})
    target = Files(source.directory.with_name("second"))
    copies.copy(source, other, target, "second", GUEST)
    assert sorted(path.name for path in target.directory.glob("*.qcow2")) == ["disk-A1.qcow2", "root.qcow2"]
