# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and playbooks by ansible-playbook, against this machine in the part of several hosts on which ZFS fails.

Whatever goes wrong, a run ends with one line for each host.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compiled import python

ROOT = Path(__file__).resolve().parents[2]
SECRET = "words that nobody may see"
KEY = "a1b2c3d4" * 8
POOL = {"nas_pools": [{"name": "nowhere"}]}
# Stands in for both commands, so that no ZFS of this machine is looked at.
BROKEN = "#!/bin/sh\necho 'it is broken' >&2\nexit 1\n"
# Else it looks a thousand times in each second whether a host is done, and ten thousand times whether a fork is free.
CONFIG = "[defaults]\ninternal_poll_interval = 0.02\nforks = 20\n"
# Only what hangs takes that long, also on a machine that is busy with something else.
SECONDS = 900


@dataclass(frozen=True)
class Run:
    """What a run of ansible-playbook came to."""

    status: int
    output: str

    @property
    def reports(self) -> list[list[str]]:
        """The lines of each report, in their order."""
        found = re.findall(r'^    "msg": \[\n((?: {8}".*",?\n)+) {4}\]', self.output, re.M)
        return [re.findall(r'^ {8}"(.*?)",?$', block, re.M) for block in found]


@dataclass
class Controller:
    """Runs playbooks in a folder of its own."""

    folder: Path

    def run(
        self,
        playbook: str,
        hosts: Mapping[str, Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        words: Sequence[str] = (),
    ) -> Run:
        """Run a playbook of the collection, or one in the folder, without a terminal."""
        done = subprocess.run(
            self.command(playbook, hosts, variables, words),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def command(
        self,
        playbook: str,
        hosts: Mapping[str, Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        words: Sequence[str] = (),
    ) -> list[str]:
        modules = str(python(self.folder))
        local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": modules}
        inventory = {"nas": {"hosts": hosts, "vars": local}}
        (self.folder / "inventory.json").write_text(json.dumps(inventory))
        (self.folder / "variables.json").write_text(json.dumps(variables or {}))
        return ["ansible-playbook", "-i", "inventory.json", "-e", "@variables.json", *words, playbook]

    def environment(self) -> dict[str, str]:
        places = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {
            **os.environ,
            "PATH": os.pathsep.join(places),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_RETRIES": "0",
            "LC_ALL": "C.UTF-8",
        }

    def playbook(self, **keywords: Any) -> str:
        """A play of a user's own, with the role unlock."""
        play = {"hosts": "nas", "gather_facts": False, "roles": ["nasops.encryption.unlock"], **keywords}
        (self.folder / "own.yml").write_text(json.dumps([play]))
        return "own.yml"


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    link = tmp_path / "collections" / "ansible_collections" / "nasops" / "encryption"
    link.parent.mkdir(parents=True)
    link.symlink_to(ROOT)
    (tmp_path / "ansible.cfg").write_text(CONFIG)
    (tmp_path / "bin").mkdir()
    for name in ("zfs", "zpool"):
        (tmp_path / "bin" / name).write_text(BROKEN)
        (tmp_path / "bin" / name).chmod(0o755)
    return Controller(tmp_path)


BACKUP = {"nas_key_backup": {"dest": "backup.keys", "unsealed": True}}
# Ends the module that started it, which leaves no result then.
DEADLY = "#!/bin/sh\nkill -9 $PPID\n"
REPLICA = {
    "source": "tank/a",
    "target": "backup/a",
    "target_host": "nas2",
    "mode": "reencrypt",
    "key": {"format": "passphrase", "value": SECRET},
}
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def test_one_line_for_each_host_whatever_became_of_it(controller: Controller) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "away": {**AWAY, **POOL},
        "broken": POOL,
        "idle": {},
        "nonsense": {"nas_pools": [{"name": "nowhere", "key": {"value": "{{ there_is_no_such_variable }}"}}]},
        "refused": {**POOL, "nas_policy": "none"},
    }
    run = controller.run("nasops.encryption.unlock", hosts)
    lines = ["away: UNREACHABLE", "broken: FAILED nowhere", "idle: nothing to do", "nonsense: FAILED unlock"]
    assert run.reports == [[*lines, "refused: FAILED unlock"]], run.output
    assert run.status
    assert "value of nas_policy must be one of" in run.output
    # the error of the host itself, once in a task and never as a trace of Python
    assert "Traceback" not in run.output


@pytest.mark.parametrize(
    ("playbook", "cases"),
    [
        ("unlock", [({"unlock_mount": "maybe"}, "unlock")]),
        ("lock", [(POOL, "lock")]),
        ("rotate_keys", [({"nas_new_keys": {"tank/x": SECRET}}, "rotation"), ({"nas_policy": "none"}, "rotation")]),
        (
            "backup_keys",
            [({}, "key backup"), ({"nas_key_backup": {"dest": "{{ there_is_no_such_variable }}"}}, "key backup")],
        ),
        ("replicate", [({}, "replication")]),
        (
            "migrate_geli",
            [({}, "migration"), ({"geli_migration_pool": "old", "geli_migration_target": "new/old"}, "new/old")],
        ),
    ],
)
def test_when_all_hosts_fail_each_has_its_line(
    controller: Controller, playbook: str, cases: Sequence[tuple[Mapping[str, Any], str]]
) -> None:
    """Two hosts for each reason to fail."""
    hosts = {f"h{2 * at + one}": case for at, case in enumerate(cases) for one in (1, 2)}
    run = controller.run(
        f"nasops.encryption.{playbook}", {host: variables for host, (variables, _name) in hosts.items()}
    )
    assert run.reports == [[f"{host}: FAILED {name}" for host, (_variables, name) in hosts.items()]], run.output
    assert run.status
    assert SECRET not in run.output


MANIFESTS = {
    "bad": (f'{{"tank": "{SECRET}"', "is not JSON"),
    "listed": (f'[{{"tank": "{SECRET}"}}]', "is a list; wanted is an object"),
    "native": ([{"tank": SECRET}], "is a list; wanted is an object"),
    "twice": (f'{{"tank": "{SECRET}", "tank": "{SECRET}"}}', "holds 'tank' twice"),
    "unquoted": ({"tank": 5}, "is a number; the text of a key is wanted"),
}


@pytest.mark.parametrize(
    "playbook,name,what",
    [
        # no pools to import, which would fail first
        ("unlock", "unlock", {"unlock_datasets": ["tank"]}),
        ("rotate_keys", "rotation", {"nas_pools": [{"name": "tank", "key": {"file": "auto", "generate": True}}]}),
        ("backup_keys", "key backup", {"nas_key_backup": {"dest": "keys", "unsealed": True}}),
    ],
)
def test_a_bad_manifest_is_told_in_the_words_of_the_module(
    controller: Controller, playbook: str, name: str, what: Mapping[str, Any]
) -> None:
    hosts = {host: {**what, "nas_manifest": manifest} for host, (manifest, _message) in MANIFESTS.items()}
    # without the variable that a backup needs, that host fails too
    idle = "FAILED key backup" if playbook == "backup_keys" else "nothing to do"
    run = controller.run(f"nasops.encryption.{playbook}", {**hosts, "idle": {}})
    lines = [f"{host}: {idle if host == 'idle' else f'FAILED {name}'}" for host in sorted([*hosts, "idle"])]
    assert run.reports == [lines], run.output
    for host, (_manifest, message) in MANIFESTS.items():
        assert re.search(rf"^fatal: \[{host}\]: FAILED! .*{re.escape(message)}", run.output, re.M), run.output
    assert SECRET not in run.output


def make_recovery(folder: Path) -> None:
    """A certificate for backups, and the private key that opens them."""
    argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-subj", "/CN=recovery", "-days", "100", "-keyout", "private.pem", "-out", "certificate.pem"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=SECONDS)


def test_a_sealed_backup_that_can_not_be_opened_has_its_line(controller: Controller) -> None:
    """The host where it can be opened comes as far as ZFS, which is broken here."""
    make_recovery(controller.folder)
    (controller.folder / "right.pem").write_bytes((controller.folder / "private.pem").read_bytes())
    plain = json.dumps({"tank": KEY}).encode()
    argv = ["openssl", "cms", "-encrypt", "-aes-256-gcm", "-outform", "PEM", "-out", "nas.keys", "certificate.pem"]
    subprocess.run(argv, cwd=controller.folder, input=plain, check=True, capture_output=True, timeout=SECONDS)
    make_recovery(controller.folder)
    sealed = {"unlock_datasets": ["tank"], "nas_sealed_manifest": str(controller.folder / "nas.keys")}
    text = (controller.folder / "private.pem").read_text()
    hosts: dict[str, dict[str, Any]] = {
        "absent": {**sealed, "nas_sealed_manifest": "nowhere.keys", "nas_recovery_key": "right.pem"},
        "good": {**sealed, "nas_recovery_key": "right.pem"},
        "idle": {},
        "keyless": sealed,
        "text": {**sealed, "nas_recovery_key": text},
        "wrong": {**sealed, "nas_recovery_key": "private.pem"},
    }
    run = controller.run("nasops.encryption.unlock", hosts)
    lines = [f"{host}: {'nothing to do' if host == 'idle' else 'FAILED unlock'}" for host in hosts]
    assert run.reports == [lines], run.output
    for host, message in {
        "absent": "nowhere.keys",
        "good": "it is broken",
        "keyless": "nas_sealed_manifest is set, but not nas_recovery_key, which opens it.",
        "text": "private key",
        "wrong": "private key",
    }.items():
        assert re.search(rf"^fatal: \[{host}\]: FAILED! .*{re.escape(message)}", run.output, re.M), run.output
    assert KEY not in run.output
    assert text.splitlines()[1] not in run.output


def test_keys_are_not_changed_when_they_can_not_be_backed_up(controller: Controller) -> None:
    make_recovery(controller.folder)
    described = {"nas_pools": [{"name": "tank", "key": {"file": "auto", "generate": True}}]}
    backup = {"dest": "{{ inventory_hostname }}.keys", "seal_to": ["certificate.pem"]}
    hosts: dict[str, dict[str, Any]] = {
        "away": {**AWAY, **described, "nas_key_backup": backup},
        "broken": {**described, "nas_key_backup": backup},
        "idle": {"nas_key_backup": backup},
        "nonsense": {**described, "nas_key_backup": {**backup, "dest": "{{ there_is_no_such_variable }}"}},
        "stranger": {**described, "nas_key_backup": {**backup, "seal_to": ["nowhere.pem"]}},
    }
    unsaved = "FAILED key backup, so nothing was rotated"
    run = controller.run("nasops.encryption.rotate_keys", hosts)
    assert run.reports == [
        [
            "away: UNREACHABLE",
            f"broken: {unsaved}",
            "idle: nothing to do",
            "nonsense: FAILED rotation",
            f"stranger: {unsaved}",
        ]
    ], run.output
    for name in ("Give datasets their new keys", "Back up the new keys"):
        after = run.output.split(f"{name}]")[1].split("TASK [")[0]
        assert not re.search(r"^(ok|changed): ", after, re.M), run.output
    run = controller.run("nasops.encryption.backup_keys", hosts)
    assert run.reports == [
        [
            "away: UNREACHABLE",
            "broken: FAILED key backup",
            "idle: FAILED key backup",
            "nonsense: FAILED key backup",
            "stranger: FAILED key backup",
        ]
    ], run.output


# A pool that has nothing but its root dataset, which is not encrypted, and does nothing that is asked of it.
BARE = """#!/bin/sh
case "$1 $*" in
    "get "*encryption*) facts="type=filesystem encryption=off keystatus=none mounted=yes mountpoint=/tank" ;;
    "get "*) facts="guid=1 health=ONLINE readonly=off" ;;
    *) exit 1 ;;
esac
for word in "$@"; do
    case $word in *,*) asked=$word ;; esac
done
for one in $(echo "$asked" | tr , ' '); do
    value=-
    for fact in $facts; do
        [ "${fact%%=*}" = "$one" ] && value=${fact#*=}
    done
    printf 'tank\\t%s\\t-\\t%s\\n' "$one" "$value"
done
"""


@pytest.mark.parametrize("words", [(), ("--check",)])
def test_no_dataset_is_created_to_change_its_key(controller: Controller, words: Sequence[str]) -> None:
    for name in ("zfs", "zpool"):
        (controller.folder / "bin" / name).write_text(BARE)
    key = {"file": str(controller.folder / "gone.key"), "generate": True}
    hosts = {"h": {"nas_pools": [{"name": "tank", "datasets": [{"name": "gone", "key": key}]}]}}
    run = controller.run("nasops.encryption.rotate_keys", hosts, words=words)
    assert run.reports == [["h: FAILED tank/gone"]], run.output
    assert "There is no dataset 'tank/gone', and this task creates none." in run.output
    assert not (controller.folder / "gone.key").exists()


@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_with_a_strategy_that_does_not_wait_each_host_tells_of_itself(controller: Controller, strategy: str) -> None:
    hosts = {"h1": POOL, "h2": POOL, "h3": {}, "h4": POOL}
    run = controller.run(controller.playbook(strategy=strategy), hosts, words=("--forks", "2"))
    assert sorted(line for report in run.reports for line in report) == [
        "h1: FAILED nowhere",
        "h2: FAILED nowhere",
        "h3: nothing to do",
        "h4: FAILED nowhere",
    ], run.output


@pytest.mark.parametrize(
    ("playbook", "cases"),
    [
        ("unlock", {"h: FAILED nowhere": {}}),
        ("lock", {"h: FAILED lock": {"lock_datasets": ["nowhere"]}}),
        (
            "rotate_keys",
            {
                "h: FAILED rotation": {"nas_new_keys": {"nowhere": "12345678"}},
                "saved: FAILED key backup, so nothing was rotated": {
                    "nas_new_keys": {"nowhere": "12345678"},
                    **BACKUP,
                },
            },
        ),
        ("backup_keys", {"h: FAILED key backup": BACKUP}),
    ],
)
def test_a_module_that_dies_is_told_of(
    controller: Controller, playbook: str, cases: Mapping[str, Mapping[str, Any]]
) -> None:
    for name in ("zfs", "zpool"):
        (controller.folder / "bin" / name).write_text(DEADLY)
    pools = {"nas_pools": [{"name": "nowhere", "key": {"format": "passphrase", "value": SECRET}}]}
    hosts = {line.split(":")[0]: {**pools, **variables} for line, variables in cases.items()}
    run = controller.run(f"nasops.encryption.{playbook}", hosts)
    assert run.reports == [list(cases)], run.output
    assert run.status


def test_one_replica_does_not_hold_up_the_other(controller: Controller) -> None:
    backwards = {"source": "tank/a", "target": "tank/a/b"}
    run = controller.run(
        "nasops.encryption.replicate", {"away": AWAY, "h": {}}, {"nas_replicas": [backwards, REPLICA]}, words=("-vvv",)
    )
    assert run.reports == [["away: UNREACHABLE", "h: FAILED nas2:backup/a, tank/a/b"]], run.output
    assert "one lies in the other" in run.output
    assert SECRET not in run.output


def test_one_host_after_the_other_with_host_pinned(controller: Controller) -> None:
    hosts = {"h1": {}, "h2": POOL, "h3": {}}
    run = controller.run(controller.playbook(strategy="host_pinned"), hosts, words=("--forks", "1"))
    assert run.reports == [["h1: nothing to do"], ["h2: FAILED nowhere"], ["h3: nothing to do"]], run.output


def test_each_batch_tells_of_its_own_hosts(controller: Controller) -> None:
    lost = {"unlock_mount": "maybe"}
    hosts: dict[str, dict[str, Any]] = {"h1": lost, "h2": {}, "h3": POOL, "h4": {}, "h5": {}, "h6": lost}
    run = controller.run(controller.playbook(serial=2), hosts)
    assert run.reports == [
        ["h1: FAILED before anything could be done", "h2: nothing to do"],
        ["h3: FAILED nowhere", "h4: nothing to do"],
        ["h5: nothing to do", "h6: FAILED before anything could be done"],
    ], run.output


def test_a_second_play_tells_of_itself_alone(controller: Controller) -> None:
    plays = [
        {"hosts": "h2", "gather_facts": False, "roles": ["nasops.encryption.unlock"], "vars": {"unlock_mount": False}},
        {"hosts": "nas", "gather_facts": False, "roles": ["nasops.encryption.unlock"]},
    ]
    (controller.folder / "own.yml").write_text(json.dumps(plays))
    run = controller.run("own.yml", {"h1": {}, "h2": {}, "h3": POOL})
    assert run.reports == [
        ["h2: nothing to do"],
        ["h1: nothing to do", "h2: nothing to do", "h3: FAILED nowhere"],
    ], run.output


def test_what_the_roles_make_of_the_inventory(controller: Controller) -> None:
    make_recovery(controller.folder)
    variables = {"recovery": str(controller.folder)}
    run = controller.run(str(ROOT / "tests" / "vm" / "playbooks" / "roles.yml"), {"h1": {}}, variables)
    assert run.status == 0, run.output


# What a play of a user sees of the keys, after it asked for them or took them out of a vault.
SEEN = {
    "name": "The keys that the module was given",
    "ansible.builtin.assert": {"that": ["__unlock_manifests == wanted", "__unlock_keys == wanted_keys"], "quiet": True},
    "no_log": True,
}


def test_keys_that_are_typed_in_are_for_hosts_that_have_the_dataset(controller: Controller) -> None:
    """At a real prompt, on a terminal. What was typed in counts before nas_keys; an empty answer is none."""
    playbook = controller.playbook(tasks=[SEEN])
    hosts = {"h1": {}, "h2": {"unlock_ask_for": ["tank/a", "tank/b", "tank/c"]}}
    variables = {
        "nas_keys": {"tank/a": "from nas_keys", "tank/b": "from nas_keys"},
        "wanted": [{"tank/a": SECRET, "tank/c": "more words"}, {}, {}, {}],
        "wanted_keys": {"tank/b": "from nas_keys"},
    }
    answers = {"tank/a": SECRET, "tank/b": "", "tank/c": "more words"}
    run = typed(controller, controller.command(playbook, hosts, variables), answers)
    assert run.status == 0, run.output
    assert re.findall(r"Key or passphrase of (\S+)", run.output) == list(answers)
    assert SECRET not in run.output


def test_without_a_terminal_nothing_is_asked_and_nothing_waits(controller: Controller) -> None:
    variables = {"unlock_ask_for": ["tank/a"], "wanted": [{}, {}, {}, {}], "wanted_keys": {}}
    run = controller.run(controller.playbook(tasks=[SEEN]), {"h1": {}}, variables)
    assert run.status == 0, run.output


def typed(controller: Controller, argv: Sequence[str], answers: Mapping[str, str]) -> Run:
    """Run ansible-playbook on a terminal of its own and answer its prompts in their order."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(controller.folder)
        os.execvpe(argv[0], list(argv), controller.environment())
    said = b""
    left = list(answers.items())
    try:
        for part in parts(terminal):
            said += part
            if left and f"Key or passphrase of {left[0][0]} (output is hidden):".encode() in said:
                wait_until_it_reads(child)
                os.write(terminal, f"{left.pop(0)[1]}\n".encode())
    finally:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        os.close(terminal)
    return Run(os.waitstatus_to_exitcode(status), said.decode("utf-8", "replace").replace("\r\n", "\n"))


def wait_until_it_reads(child: int) -> None:
    """Ansible throws away what was typed before it reads, and does not block when it does."""
    for _attempt in range(SECONDS * 100):
        flags = re.search(r"^flags:\s*([0-7]+)$", Path(f"/proc/{child}/fdinfo/0").read_text(), re.M)
        if flags and int(flags[1], 8) & os.O_NONBLOCK:
            return
        time.sleep(0.01)
    raise AssertionError("it shows a prompt and does not read")


def parts(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal, until nobody can write to it any more, or is silent for too long."""
    while select.select([terminal], [], [], SECONDS)[0]:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:
            return
        if not part:
            return
        yield part


def test_a_key_out_of_a_vault_and_one_out_of_a_lookup(controller: Controller) -> None:
    (controller.folder / "password").write_text("the password of the vault\n")
    sealed = subprocess.run(
        ["ansible-vault", "encrypt_string", "--vault-password-file", "password", "--stdin-name", "vault_key"],
        cwd=controller.folder,
        env=controller.environment(),
        input=SECRET,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=SECONDS,
        check=True,
    ).stdout
    assert SECRET not in sealed
    (controller.folder / "group_vars").mkdir()
    (controller.folder / "group_vars" / "nas.yml").write_text(sealed)
    file = controller.folder / "key"
    file.write_text("from a file")
    hosts = {
        "h1": {
            "nas_pools": [
                {
                    "name": "tank",
                    "key": {"value": "{{ vault_key }}"},
                    "datasets": [
                        {"name": "a", "key": {"value": f"{{{{ lookup('ansible.builtin.file', '{file}') }}}}"}},
                    ],
                }
            ]
        }
    }
    wanted = {"wanted": [{}, {}, {}, {"tank": "{{ vault_key }}", "tank/a": "from a file"}], "wanted_keys": {}}
    # the role itself would fail at the broken ZFS before it came to the keys
    playbook = controller.playbook(roles=[], vars_files=[str(ROOT / "roles/unlock/vars/main.yml")], tasks=[SEEN])
    run = controller.run(playbook, hosts, wanted, ("--vault-password-file", "password", "-vvv"))
    assert run.status == 0, run.output
    failing = controller.run("nasops.encryption.unlock", hosts, words=("--vault-password-file", "password", "-vvv"))
    assert failing.reports == [["h1: FAILED tank"]], failing.output
    for text in (SECRET, "from a file"):
        assert text not in run.output + failing.output
