# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wanted of a host: after the plan was applied, the next plan is empty, and check mode had told it all."""

from __future__ import annotations

import contextlib
import tempfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import DiskContent
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.plan import NotConverged, Outcome, StepFailed, converge
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import encodings, generate
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool import plan_pools
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_options import WantedPool
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_result import describe
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_state import PoolHost
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import (
    ENCRYPTION_PROPERTIES,
    Pool,
    key_opens,
    read_datasets,
    read_importable,
    read_pool_properties,
    read_trees,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.model import Refusal, ZfsModel, Zpool
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.options import parse

Options = dict[str, t.Any]

NAMES = ("nasops-test-a", "nasops test:b")
DISKS = tuple(f"/dev/disk/by-id/ata-{letter}" for letter in "abcdefghijklmnopqrstuvwx")
SIZE = 4 << 30
TABLE = DeviceTable(
    tuple(
        BlockDevice(f"sd{disk[-1]}", f"/dev/sd{disk[-1]}", aliases=(disk,), size=SIZE, serial=disk[-1].upper())
        for disk in DISKS
    )
)


def read(model: ZfsModel, wanted: t.Sequence[WantedPool]) -> PoolHost:
    """What pool_read reads, but for the disks: with the real readers of ZFS and of key files."""
    names = [name for pool in wanted for name in pool.properties]
    trees = read_trees(model)
    found = read_pool_properties(model, names)
    asked = [pool for pool in wanted if pool.name in found]
    properties = (*ENCRYPTION_PROPERTIES, *(name for pool in asked for name in pool.filesystem_properties))
    datasets = read_datasets(model, [pool.name for pool in asked], properties) if asked else {}
    pools = {
        name: Pool(name, values["guid"].value, values["health"].value, values, trees.get(name, {}), datasets.get(name))
        for name, values in found.items()
    }
    contents = {disk: DiskContent(disk, TABLE.identity(disk), "write", kind="disk", size=SIZE) for disk in DISKS}
    files = {
        pool.key.file: keystore.read(model, pool.key.file, pool.key.format)
        for pool in wanted
        if pool.key is not None and pool.key.file
    }
    opens = {}
    for pool in asked:
        key = pool.key
        if key is None or model.named(pool.name).cipher == "off" or key.format != model.named(pool.name).key_format:
            continue
        file = files.get(key.file) if key.file else None
        if file is not None and file.key is not None:
            opens[pool.name] = key_opens(model, pool.name, None, file.location)
        elif key.value is not None:
            opens[pool.name] = key_opens(model, pool.name, key.value.stdin(), "prompt")
    return PoolHost(pools, read_importable(model), TABLE, contents, files, opens)


def play(model: ZfsModel, options: t.Sequence[Options], check_mode: bool = False) -> Outcome[PoolHost]:
    """Run the module's plan on the model."""
    wanted = parse({"pools": list(options)})
    return converge(lambda: read(model, wanted), lambda host: plan_pools(wanted, host), model, check_mode)


# --- what may be wanted ---------------------------------------------------------------------------------------------

POOL_PROPERTIES: dict[str, st.SearchStrategy[t.Any]] = {
    "autotrim": st.sampled_from([True, False, "on", "off", None]),
    "comment": st.sampled_from(["shelf 3", "a=b", None]),
    "cachefile": st.sampled_from(["none", None]),
    "failmode": st.sampled_from(["wait", "continue"]),
    "org.nasops:shelf": st.sampled_from([3, "x y", "two\n\nlines", None]),
}
FILESYSTEM_PROPERTIES: dict[str, st.SearchStrategy[t.Any]] = {
    "compression": st.sampled_from([True, False, "lz4", "zstd-3", "gzip-6", "inherit"]),
    "recordsize": st.sampled_from(["128K", "1M", 131072, "1 MiB", None]),
    "quota": st.sampled_from(["none", 0, "1.5G", 10**12, None]),
    "atime": st.sampled_from([True, False, "yes", "Off", None]),
    "acltype": st.sampled_from(["posixacl", "noacl", False]),
    "copies": st.sampled_from([1, 2, "2"]),
    "canmount": st.sampled_from(["on", "noauto", False]),
    "mountpoint": st.sampled_from(["/nasops-test/x", "/nasops-test/x y", "none", "legacy"]),
    "org.nasops:owner": st.sampled_from(["me", "$HOME ~", "a\tb", "tank\ttype\t-\tvolume", "two\n\nlines", None]),
}


def some(strategies: t.Mapping[str, st.SearchStrategy[t.Any]]) -> st.SearchStrategy[Options]:
    return st.fixed_dictionaries({}, optional=dict(strategies))


@st.composite
def keys(draw: st.DrawFn, folder: str) -> Options:
    key_format = draw(st.sampled_from(["hex", "raw", "passphrase"]))
    number = draw(st.integers(0, 255))
    value = {
        "hex": f"{number:02x}" * 32,
        "raw": "%s=" % ("QUJD" * 10 + "QUI"),
        "passphrase": f"pass phräse {number}",
    }[key_format]
    way = draw(st.sampled_from(["value", "value and file", "generate"]))
    key: Options = {"format": key_format}
    if way != "generate":
        key["value"] = value
    if way != "value":
        key["file"] = f"{folder}/{draw(st.sampled_from(['one', 'two']))}-{key_format}.key"
    if way == "generate":
        key["generate"] = True
    if key_format == "passphrase" and draw(st.booleans()):
        key["iterations"] = draw(st.sampled_from([100_000, 350_000]))
    return key


@st.composite
def vdevs(draw: st.DrawFn, disks: list[str]) -> list[Options]:
    """Vdevs of one redundancy; the disks they use are taken from the list."""

    def take(count: int) -> list[str]:
        taken = disks[:count]
        del disks[:count]
        return taken

    kind, count = draw(st.sampled_from([("stripe", 1), ("mirror", 2), ("raidz", 3), ("raidz2", 4), ("draid1", 4)]))
    found: list[Options] = [{"type": kind, "disks": take(count)} for _vdev in range(draw(st.integers(1, 2)))]
    if kind in ("stripe", "mirror") and draw(st.booleans()):
        found.append({"type": kind, "role": draw(st.sampled_from(["special", "dedup"])), "disks": take(count)})
    for role in draw(st.sets(st.sampled_from(["log", "cache", "spare"]))):
        found.append({"role": role, "disks": take(1)})
    return found


@st.composite
def pools(draw: st.DrawFn, folder: str) -> list[Options]:
    """One or two pools to create."""
    disks = list(DISKS)
    found = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True)):
        pool: Options = {"name": name, "vdevs": draw(vdevs(disks[:12]))}
        del disks[:12]
        cipher = draw(st.sampled_from([None, "on", "off", "aes-128-ccm", "aes-256-gcm"]))
        if cipher is not None:
            pool["cipher"] = cipher
        if cipher != "off":
            pool["key"] = draw(keys(f"{folder}/{name}"))
        pool["properties"] = draw(some(POOL_PROPERTIES))
        pool["filesystem_properties"] = draw(some(FILESYSTEM_PROPERTIES))
        if draw(st.booleans()):
            pool["ashift"] = 12
        found.append(pool)
    return found


def expected_refusal(error: StorageError) -> None:
    """Some of what is drawn must be refused; anything but a refusal is a failure of the test."""
    assert isinstance(error, Refused) and not isinstance(error, (StepFailed, NotConverged)), error
    event(error.message[:20])


def check(model: ZfsModel, wanted: list[Options]) -> Outcome[PoolHost] | None:
    """Check, apply, check, apply: the first two say the same, the others change nothing. None if it is refused."""
    before = model.state()
    try:
        checked = play(model, wanted, check_mode=True)
    except StorageError as error:
        expected_refusal(error)
        assert model.state() == before
        with pytest.raises(Refused):
            play(model, wanted)
        assert model.state() == before
        return None
    assert model.state() == before
    done = play(model, wanted)
    if checked.plan.reveals:
        assert done.plan.actions[: len(checked.plan.actions)] == checked.plan.actions
        assert "Check mode can't see everything" in " ".join(checked.plan.warnings)
    else:
        assert (done.plan.actions, done.plan.diff()) == (checked.plan.actions, checked.plan.diff())
    assert done.plan.changed == checked.plan.changed
    after = model.state()
    for check_mode in (True, False):
        again = play(model, wanted, check_mode)
        assert (again.plan.actions, again.plan.diff()) == ([], {"before": {}, "after": {}})
    assert model.state() == after
    return done


def assert_no_secret(model: ZfsModel, outcome: Outcome[PoolHost], wanted: list[Options]) -> None:
    """No key in what is told, shown or given as an argument."""
    told = [repr(outcome), repr(outcome.plan.diff()), *outcome.plan.actions, *outcome.plan.warnings]
    told += [repr(describe(pool, outcome.state)) for pool in parse({"pools": wanted})]
    told += [word for command in model.commands for word in command.argv]
    told += [repr(command) for command in model.commands]
    for pool in model.pools:
        if pool.key:
            for spelling in encodings(pool.key):
                assert all(spelling not in text for text in told)


# --- the properties -------------------------------------------------------------------------------------------------


@given(st.data())
def test_new_pools(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = data.draw(pools(folder))
        model = ZfsModel()
        done = check(model, wanted)
        if done is None:
            return
        assert_no_secret(model, done, wanted)
        for options in wanted:
            pool = model.named(options["name"])
            assert pool.cipher == {None: "aes-256-gcm", "on": "aes-256-gcm"}.get(
                options.get("cipher"), options.get("cipher")
            )
            assert pool.loaded == (pool.cipher != "off")
            after = done.plan.diff()["after"]["pools"][pool.name]
            assert after["encryption"] == pool.cipher
            assert after.get("keylocation", "none") == pool.location


@given(st.data())
def test_pools_that_changed_meanwhile(data: st.DataObject) -> None:
    """Another person exports, locks, unmounts, resets properties; the same task then brings back what is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = data.draw(pools(folder))
        model = ZfsModel()
        try:
            play(model, wanted)
        except Refused:
            assume(False)
        for pool in model.pools:
            for deed in data.draw(
                st.sets(st.sampled_from(["export", "move", "lock", "unmount", "unset", "set", "prompt"]))
            ):
                meddle(pool, deed)
        before = {pool.guid for pool in model.pools}
        done = check(model, wanted)
        if done is None:
            return
        assert_no_secret(model, done, wanted)
        # Nothing was created anew, and all is as it was wanted.
        assert {pool.guid for pool in model.pools} == before
        for pool in model.pools:
            assert pool.imported
            assert not pool.locked


@given(st.data())
def test_pools_of_which_something_else_is_wanted_now(data: st.DataObject) -> None:
    """Other properties, more vdevs, exported: what can't be is refused, everything else converges."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = data.draw(pools(folder))
        model = ZfsModel()
        try:
            play(model, wanted)
        except Refused:
            assume(False)
        free = [disk for disk in DISKS if disk not in model.used()]
        for options in wanted:
            pool = model.named(options["name"])
            other = data.draw(st.sampled_from(["properties", "vdev", "exported", "absent", "wrong guid", "cipher"]))
            if other == "properties":
                options["properties"] = data.draw(some(POOL_PROPERTIES))
                options["filesystem_properties"] = data.draw(some(FILESYSTEM_PROPERTIES))
            elif other == "vdev" and free:
                options["vdevs"] = [
                    *options["vdevs"],
                    {"role": data.draw(st.sampled_from(["cache", "data"])), "disks": [free.pop()]},
                ]
            elif other == "cipher":
                options["cipher"] = "aes-192-gcm"
            elif other in ("exported", "absent"):
                options.update(state=other, confirm_guid=pool.guid)
            elif other == "wrong guid":
                options.update(state="absent", confirm_guid=str(int(pool.guid) + 1))
        done = check(model, wanted)
        if done is None:
            return
        assert_no_secret(model, done, wanted)
        for one in parse({"pools": wanted}):
            assert describe(one, done.state)["state"] == one.state


def meddle(pool: Zpool, deed: str) -> None:
    """What another person may do to a pool."""
    if deed == "export":
        pool.imported = pool.loaded = pool.mounted = False
    elif deed == "move":
        pool.imported = pool.loaded = pool.mounted = False
        pool.options.clear()
    elif deed == "lock":
        pool.mounted = pool.loaded = False
    elif deed == "unmount":
        pool.mounted = False
    elif deed == "unset":
        pool.options.clear()
        pool.properties.clear()
    elif deed == "set":
        pool.options.update(autotrim="on", comment="mine")
        pool.properties.update(quota="1073741824", compression="zstd", recordsize="16384")
    elif deed == "prompt" and pool.cipher != "off":
        pool.location = "prompt"


@given(st.integers(0, 30), st.booleans(), st.data())
def test_a_failure_at_any_command_loses_no_key_and_the_next_run_converges(
    broken: int, halfway: bool, data: st.DataObject
) -> None:
    """A command fails before it has done anything, or after it has done everything."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = data.draw(pools(folder))
        model = ZfsModel()
        failed: list[Command] = []

        def fail(command: Command) -> None:
            if len(model.commands) == broken + 1 and not failed:
                failed.append(command)
                raise Refusal("cannot do it: I/O error")

        model.before, model.after = (model.before, fail) if halfway else (fail, model.after)
        with contextlib.suppress(StorageError):
            play(model, wanted)
        model.before = model.after = lambda command: None
        if failed and failed[0].argv[:2] == ("zpool", "create"):
            # A creation that failed is taken back.
            assert all(pool.name not in failed[0].argv for pool in model.pools)
        for pool in model.pools:
            # Every pool that came to be can be opened with what is left.
            assert pool.location in ("none", "prompt") or Path(pool.location[len("file://") :]).exists()
        check(model, wanted)


@given(st.sampled_from(["hex", "raw", "passphrase"]))
def test_a_generated_key_is_nowhere_but_in_its_file(key_format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = [
            {
                "name": NAMES[0],
                "vdevs": [{"disks": [DISKS[0]]}],
                "key": {"format": key_format, "file": f"{folder}/k", "generate": True},
            }
        ]
        model = ZfsModel()
        done = play(model, wanted)
        assert model.inputs == []
        assert_no_secret(model, done, wanted)
        assert generate(key_format).material not in repr(done).encode()
        assert model.pools[0].key
