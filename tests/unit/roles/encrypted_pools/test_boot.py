# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What unlocks at boot, and what installs it: the scripts themselves, by sh, with other programs in another place."""

from __future__ import annotations

import os
import subprocess
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

BOOT = Path(__file__).resolve().parents[4] / "roles" / "encrypted_pools" / "files" / "boot"
UNLOCK = BOOT / "nasops-unlock"
INSTALL = BOOT / "install.sh"
RC_SCRIPT = BOOT / "nasops_zfs_unlock"

# list: what "answers/list" says. load-key: what the files in answers say of a dataset and a location, "ok" for none.
ZFS = r"""
printf '%s\n' "zfs $*" >>"$STATE/log"
[ -t 0 ] || [ -z "$(cat)" ] || echo "something is on the standard input" >>"$STATE/log"
for name; do :; done
encoded=$(printf '%s' "$name" | sed 's:/:%:g')
case $1 in
    list)
        [ -e "$STATE/list" ] || { echo 'cannot open /dev/zfs' >&2; exit 1; }
        cat "$STATE/list"
        ;;
    get) if [ -e "$STATE/open-$encoded" ]; then echo available; else echo unavailable; fi ;;
    load-key)
        if [ -e "$STATE/open-$encoded" ]; then
            echo "Key load error: Key already loaded for '$name'." >&2
            exit 255
        fi
        answer=$STATE/answer-$encoded
        [ "$2" != -L ] || answer=$answer-new
        if [ -e "$answer" ]; then
            . "$answer"
        fi
        : >"$STATE/open-$encoded"
        ;;
esac
"""
# The first second is that in which a unit of systemd's zfs-mount-generator may load a key.
SLEEP = r"""
echo "sleep $*" >>"$STATE/log"
[ ! -e "$STATE/generator" ] || : >"$STATE/open-$(cat "$STATE/generator")"
"""
TIMEOUT = r"""
echo "timeout $1 $2 $3" >>"$STATE/limits"
shift 3
"$@"
"""
SYSTEMCTL = 'echo "systemctl $*" >>"$STATE/log"\n'


def refuse(text: str, status: int = 255) -> str:
    return f"printf '%s\\n' \"{text}\" >&2\nexit {status}\n"


@dataclass
class Host:
    """A folder in the part of a host: its /etc and /run, and the programs the scripts start."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state"

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)

    def answer(self, dataset: str, text: str, new: bool = False) -> None:
        """What load-key does for a dataset, with the key in its file or in the one beside."""
        encoded = dataset.replace("/", "%")
        (self.state / f"answer-{encoded}{'-new' if new else ''}").write_text(text)

    def datasets(self, *rows: tuple[str, str, str, str]) -> None:
        (self.state / "list").write_text("".join("\t".join(row) + "\n" for row in rows))

    def key(self, name: str) -> str:
        return f"{self.root}/etc/zfs/keys/{name}"

    def moved(self, script: Path) -> str:
        """A script that finds everything below the folder, and nothing else changed."""
        text = script.read_text()
        for folder in ("/etc/", "/run/"):
            text = text.replace(f" {folder}", f" {self.root}{folder}").replace(f"={folder}", f"={self.root}{folder}")
        assert str(self.root) in text
        own = "\nPATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin\n"
        assert script is not UNLOCK or own in text
        return text.replace(own, f"\nPATH={self.root}/bin:/usr/bin:/bin\n")

    def sh(self, script: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", self.moved(script), script.name, *words],
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin", "STATE": str(self.state)},
            # what would be read by a program that asks for a key
            input="typed in\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def unlock(self) -> tuple[int, list[str]]:
        """Exit status and words of the program that runs at boot."""
        done = self.sh(UNLOCK)
        assert done.stderr in ("", "cannot open /dev/zfs\n")
        lines = done.stdout.splitlines()
        assert all(line.startswith("nasops-zfs-unlock: ") for line in lines)
        return done.returncode, [line.split(": ", 1)[1].replace(str(self.root), "") for line in lines]

    def install(self, state: str = "present", mode: str = "apply") -> list[str]:
        """What the installer says that it does."""
        contents = [path.read_text().rstrip("\n") for path in (UNLOCK, BOOT / "nasops-zfs-unlock.service", RC_SCRIPT)]
        done = self.sh(INSTALL, state, mode, *contents)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.replace(str(self.root), "").splitlines()

    def log(self, name: str = "log") -> list[str]:
        path = self.state / name
        return path.read_text().splitlines() if path.exists() else []

    def tree(self) -> dict[str, tuple[int, str]]:
        """Mode and content of all files, and where links lead."""
        found = {}
        for path in sorted((self.root / "etc").rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = (0, os.readlink(path).replace(str(self.root), ""))
            elif path.is_file():
                found[name] = (path.stat().st_mode & 0o777, path.read_text())
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A Debian that is up, whose datasets are all opened by the key that is asked for."""
    made = Host(tmp_path)
    for folder in ("bin", "state", "etc/zfs/keys", "etc/systemd/system", "etc/rc.d", "run/systemd/system"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in (("zfs", ZFS), ("sleep", SLEEP), ("timeout", TIMEOUT), ("systemctl", SYSTEMCTL)):
        made.program(name, text)
    made.program("uname", "echo Linux\n")
    return made


def root(name: str, location: str, status: str = "unavailable") -> tuple[str, str, str, str]:
    """A dataset with a key of its own."""
    return name, name, status, location if "://" in location or location == "prompt" else f"file://{location}"


class TestUnlock:
    def test_what_has_its_key_in_a_file_is_unlocked_parents_first(self, host: Host) -> None:
        host.datasets(
            root("tank", "/k/tank"),
            ("tank/inherits", "tank", "unavailable", "none"),
            root("tank/own key", "/k/own key"),
            root("open", "/k/open", "available"),
            ("plain", "-", "-", "none"),
        )
        assert host.unlock() == (
            0,
            ["'tank' is unlocked with /k/tank", "'tank/own key' is unlocked with /k/own key"],
        )
        assert host.log() == [
            "zfs list -H -t filesystem,volume -o name,encryptionroot,keystatus,keylocation",
            "zfs load-key tank",
            "zfs load-key tank/own key",
        ]

    def test_each_program_has_its_time_and_nothing_to_read(self, host: Host) -> None:
        host.datasets(root("tank", "/k/tank"))
        host.unlock()
        assert host.log("limits") == ["timeout -k 5 60"] * 2

    def test_without_the_program_timeout_it_goes_too(self, host: Host) -> None:
        for name in ("cat", "cut", "grep", "sed", "tr", "printf"):
            host.program(name, f'exec /usr/bin/env PATH=/usr/bin:/bin {name} "$@"\n')
        (host.root / "bin" / "timeout").unlink()
        host.datasets(root("tank", "/k/tank"))
        text = host.moved(UNLOCK).replace(f"PATH={host.root}/bin:/usr/bin:/bin", f"PATH={host.root}/bin")
        env = {"PATH": "/usr/bin:/bin", "STATE": str(host.state)}
        done = subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "'tank' is unlocked with /k/tank" in done.stdout

    def test_a_second_run_is_silent(self, host: Host) -> None:
        host.datasets(root("tank", "/k/tank", "available"))
        assert host.unlock() == (0, [])

    def test_a_host_without_datasets(self, host: Host) -> None:
        host.datasets()
        assert host.unlock() == (0, [])

    def test_a_passphrase_is_never_asked_for(self, host: Host) -> None:
        host.datasets(
            root("tank", "/k/tank"),
            root("tank/typed", "prompt"),
            root("tank/typed/below", "/k/below"),
            root("tank/typed/below/deeper", "/k/deeper"),
            root("tank/typed2", "/k/typed2"),
            root("tank/web", "https://example.org/key"),
        )
        assert host.unlock() == (
            0,
            [
                "'tank' is unlocked with /k/tank",
                "'tank/typed' stays locked: its key is not in a file on this host",
                "'tank/typed/below' stays locked, since 'tank/typed' does",
                "'tank/typed/below/deeper' stays locked, since 'tank/typed/below' does",
                "'tank/typed2' is unlocked with /k/typed2",
                "'tank/web' stays locked: its key is not in a file on this host",
            ],
        )

    @pytest.mark.parametrize(
        "answer,words",
        [
            (refuse("Key load error: Incorrect key provided for 'tank/a'."), "Incorrect key provided for 'tank/a'."),
            (refuse("Key load error: Failed to open key material file: No such file"), "Failed to open key material"),
            (refuse("", 124), "no answer within 60 seconds"),
            (refuse("", 137), "no answer within 60 seconds"),
        ],
    )
    def test_a_key_that_does_not_open_its_dataset_holds_up_what_is_below_it_alone(
        self, host: Host, answer: str, words: str
    ) -> None:
        host.datasets(*(root(name, f"/k/{name}") for name in ("tank", "tank/a", "tank/a/b", "tank/ab", "tank/c")))
        host.answer("tank/a", answer)
        status, lines = host.unlock()
        assert status == 1
        assert [line for line in lines if "is unlocked" in line] == [
            f"'{name}' is unlocked with /k/{name}" for name in ("tank", "tank/ab", "tank/c")
        ]
        assert lines[1].startswith("'tank/a' STAYS LOCKED: ")
        assert words in lines[1]
        assert lines[2] == "'tank/a/b' stays locked, since 'tank/a' does"

    def test_the_key_that_an_interrupted_change_left_beside_is_tried(self, host: Host) -> None:
        path = host.key("tank.key")
        Path(f"{path}.new").touch()
        host.datasets(root("tank", path))
        host.answer("tank", refuse("Incorrect key provided for 'tank'."))
        words = "since a change of its key was interrupted; run rotate_keys"
        assert host.unlock() == (0, [f"'tank' is unlocked with /etc/zfs/keys/tank.key.new, {words}"])
        assert host.log()[-1] == f"zfs load-key -L file://{path}.new tank"

    def test_the_file_that_a_change_named_before_zfs_was_told_is_tried(self, host: Host) -> None:
        path = host.key("tank.key")
        Path(path).touch()
        host.datasets(root("tank", f"{path}.new"))
        host.answer("tank", refuse("There is no such file."))
        words = "since a change of its key was interrupted; run rotate_keys"
        assert host.unlock() == (0, [f"'tank' is unlocked with /etc/zfs/keys/tank.key, {words}"])
        assert host.log()[-1] == f"zfs load-key -L file://{path} tank"

    def test_a_file_that_is_beside_no_other_is_tried_once(self, host: Host) -> None:
        path = host.key("tank.key")
        Path(path).touch()
        host.datasets(root("tank", path))
        host.answer("tank", refuse("Incorrect key."))
        assert host.unlock() == (1, ["'tank' STAYS LOCKED: Incorrect key."])
        assert sum("load-key" in line for line in host.log()) == 1

    def test_when_neither_of_the_two_opens_it_both_are_told(self, host: Host) -> None:
        path = host.key("tank.key")
        Path(f"{path}.new").touch()
        host.datasets(root("tank", path))
        host.answer("tank", refuse("There is no such file.\nReally."))
        host.answer("tank", refuse("Incorrect key."), new=True)
        assert host.unlock() == (
            1,
            ["'tank' STAYS LOCKED: There is no such file. Really.; /etc/zfs/keys/tank.key.new: Incorrect key."],
        )

    def test_when_zfs_does_not_answer_nothing_is_unlocked(self, host: Host) -> None:
        assert host.unlock() == (1, ["the datasets can't be listed, so nothing was unlocked"])

    def test_what_zfs_mount_generator_unlocks_is_left_to_it(self, host: Host) -> None:
        self.cached(host, "tank", "tank\t/tank\ton\n")
        (host.state / "generator").write_text("tank")
        host.datasets(root("tank", "/k/tank"), root("other", "/k/other"))
        assert host.unlock() == (0, ["'tank' is unlocked with /k/tank", "'other' is unlocked with /k/other"])
        assert host.log().count("sleep 1") == 1

    def test_what_it_does_not_know_of_is_not_waited_for(self, host: Host) -> None:
        self.cached(host, "tank", "tank/other\t/tank\ton\ntankx\t/x\ton\n")
        self.cached(host, "empty", "")
        host.datasets(root("tank", "/k/tank"), root("empty", "/k/empty"))
        assert host.unlock() == (0, ["'tank' is unlocked with /k/tank", "'empty' is unlocked with /k/empty"])
        assert "sleep 1" not in host.log()

    def test_ten_seconds_are_waited_for_it_all_in_all(self, host: Host) -> None:
        self.cached(host, "tank", "tank\t/tank\ton\ntank/a\t/tank/a\ton\n")
        host.datasets(root("tank", "/k/tank"), root("tank/a", "/k/a"))
        assert host.unlock() == (0, ["'tank' is unlocked with /k/tank", "'tank/a' is unlocked with /k/a"])
        assert host.log().count("sleep 1") == 10

    @staticmethod
    def cached(host: Host, pool: str, text: str) -> None:
        folder = host.root / "etc" / "zfs" / "zfs-list.cache"
        folder.mkdir(exist_ok=True)
        (folder / pool).write_text(text)


PROGRAM = "etc/zfs/nasops-unlock"
UNIT = "etc/systemd/system/nasops-zfs-unlock.service"
SCRIPT = "etc/rc.d/nasops_zfs_unlock"
WANTED = "etc/systemd/system/zfs.target.wants/nasops-zfs-unlock.service"
ALL = [f"Write /{PROGRAM}", f"Write /{UNIT}", "Enable nasops-zfs-unlock.service"]


class TestInstall:
    def test_check_mode_says_what_then_is_done_and_a_second_run_is_silent(self, host: Host) -> None:
        assert host.install(mode="check") == ALL
        assert host.tree() == {}
        assert host.install() == ALL
        assert host.tree() == {
            PROGRAM: (0o755, UNLOCK.read_text()),
            UNIT: (0o644, (BOOT / "nasops-zfs-unlock.service").read_text()),
            WANTED: (0, f"/{UNIT}"),
        }
        assert host.log() == ["systemctl daemon-reload"]
        assert host.install(mode="check") == []
        assert host.install() == []
        assert host.log() == ["systemctl daemon-reload"]

    def test_where_systemd_does_not_run_it_is_not_told(self, host: Host) -> None:
        (host.root / "run" / "systemd" / "system").rmdir()
        assert host.install() == ALL
        assert host.log() == []

    @pytest.mark.parametrize(
        "drift,lines",
        [
            (lambda folder: (folder / PROGRAM).write_text("exit 0\n"), [f"Write /{PROGRAM}"]),
            (lambda folder: (folder / PROGRAM).chmod(0o644), [f"Write /{PROGRAM}"]),
            (lambda folder: (folder / PROGRAM).unlink(), [f"Write /{PROGRAM}"]),
            (lambda folder: (folder / UNIT).write_text(""), [f"Write /{UNIT}"]),
            (lambda folder: (folder / WANTED).unlink(), ["Enable nasops-zfs-unlock.service"]),
        ],
    )
    def test_what_was_changed_by_hand_is_as_before(
        self, host: Host, drift: t.Callable[[Path], object], lines: list[str]
    ) -> None:
        host.install()
        before = host.tree()
        drift(host.root)
        assert host.install(mode="check") == lines
        assert host.install() == lines
        assert host.tree() == before
        assert host.install() == []

    def test_a_link_that_leads_elsewhere_is_set_right(self, host: Host) -> None:
        host.install()
        (host.root / WANTED).unlink()
        (host.root / WANTED).symlink_to("/dev/null")
        assert host.install() == ["Enable nasops-zfs-unlock.service"]
        assert host.tree()[WANTED] == (0, f"/{UNIT}")

    def test_what_a_run_that_was_cut_off_left_is_in_nobodys_way(self, host: Host) -> None:
        (host.root / f"{PROGRAM}.part").write_text("half a pro")
        assert host.install() == ALL
        assert sorted(host.tree()) == sorted([PROGRAM, UNIT, WANTED])

    def test_all_of_it_is_removed(self, host: Host) -> None:
        host.install()
        lines = [f"Remove /{PROGRAM}", f"Remove /{UNIT}", "Disable nasops-zfs-unlock.service"]
        assert host.install("absent", "check") == lines
        assert host.install("absent") == lines
        assert host.tree() == {}
        assert host.install("absent") == []
        assert host.log() == ["systemctl daemon-reload"] * 2

    def test_on_freebsd_a_script_for_rc(self, host: Host) -> None:
        host.program("uname", "echo FreeBSD\n")
        assert host.install() == [f"Write /{PROGRAM}", f"Write /{SCRIPT}"]
        assert host.tree() == {PROGRAM: (0o755, UNLOCK.read_text()), SCRIPT: (0o755, RC_SCRIPT.read_text())}
        assert host.install() == []
        assert host.install("absent") == [f"Remove /{PROGRAM}", f"Remove /{SCRIPT}"]
        assert host.log() == []

    def test_elsewhere_it_says_what_to_do(self, host: Host) -> None:
        (host.root / "etc" / "systemd" / "system").rmdir()
        done = host.sh(INSTALL, "present", "apply", "", "", "")
        assert (done.returncode, done.stdout) == (1, "")
        assert "Set nas_unlock_at_boot to false for this host" in done.stderr
        assert host.install("absent") == []

    def test_a_folder_that_can_not_be_written_to_is_a_failure(self, host: Host) -> None:
        folder = host.root / "etc" / "zfs"
        (folder / "keys").rmdir()
        folder.rmdir()
        folder.write_text("no folder")
        done = host.sh(INSTALL, "present", "apply", "program", "unit", "script")
        assert done.returncode
        assert not (host.root / WANTED).is_symlink()


# As much of FreeBSD's as the script uses.
RC_SUBR = r"""
load_rc_config() { [ ! -e "$STATE/rc.conf" ] || . "$STATE/rc.conf"; }
run_rc_command() {
    eval "enabled=\$$rcvar command=\$$1_cmd"
    echo "$name: $desc" >>"$STATE/log"
    [ "$enabled" != YES ] || $command
}
"""


class TestRcScript:
    @pytest.fixture
    def freebsd(self, host: Host) -> Host:
        (host.root / "etc" / "rc.subr").write_text(RC_SUBR)
        program = host.root / PROGRAM
        program.write_text("#!/bin/sh\necho started\nexit 1\n")
        program.chmod(0o755)
        return host

    def test_it_starts_the_program_unless_it_is_switched_off(self, freebsd: Host) -> None:
        done = freebsd.sh(RC_SCRIPT, "start")
        assert (done.stdout, done.stderr) == ("started\n", "")
        assert freebsd.log() == ["nasops_zfs_unlock: Unlock ZFS datasets whose keys are in files"]
        (freebsd.state / "rc.conf").write_text("nasops_zfs_unlock_enable=NO\n")
        assert freebsd.sh(RC_SCRIPT, "start").stdout == ""

    def test_it_has_nothing_to_stop(self, freebsd: Host) -> None:
        done = freebsd.sh(RC_SCRIPT, "stop")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_it_comes_after_the_pools_and_before_what_mounts(self) -> None:
        lines = RC_SCRIPT.read_text().splitlines()
        assert "# REQUIRE: zpool" in lines
        assert "# BEFORE: zfs zvol" in lines


class TestUnit:
    def test_the_boot_goes_on_whatever_becomes_of_it(self) -> None:
        """It comes before what mounts, and nothing requires that it succeeds; after five minutes nobody waits."""
        lines = (BOOT / "nasops-zfs-unlock.service").read_text().splitlines()
        assert "TimeoutStartSec=5min" in lines
        assert "WantedBy=zfs.target" in lines
        assert not [line for line in lines if line.startswith(("RequiredBy", "OnFailure"))]
        before = " ".join(line for line in lines if line.startswith("Before=")).replace("Before=", "").split()
        assert {"zfs-mount.service", "zfs-volume-wait.service", "local-fs.target"} <= set(before)
