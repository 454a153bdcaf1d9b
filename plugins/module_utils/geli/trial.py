# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the keys at hand opens a provider, and which pool is inside; found out without attaching anything."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import typing as t
from dataclasses import dataclass, field

from ..blockdev.signatures import Signature, zfs_label
from ..errors import BadInput, StorageError
from ..secrets import Key
from .cipher import Engine
from .config_backup import MOST_KEY_FILE, ConfigBackup
from .keys import Credential, MasterKey, WrongKey, check_passphrase, open_first
from .provider import Provider, opened
from .sectors import Plaintext, Unsupported

# Shorter secrets would blank out unrelated words in results, and names of disks.
_SHORTEST = 8


@dataclass(frozen=True)
class Candidate:
    """A credential, and where it comes from in words."""

    origin: str
    credential: Credential
    # Where its key files lie on this host, if they do.
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """All that is at hand to open disks."""

    key_files: tuple[bytes, ...] = field(default=(), repr=False)
    passphrase: bytes | None = field(default=None, repr=False)
    # Where the key files come from, in words.
    origin: str = ""
    paths: tuple[str, ...] = ()
    backup: ConfigBackup = field(default_factory=ConfigBackup)

    def __bool__(self) -> bool:
        return bool(self.key_files) or self.passphrase is not None or bool(self.backup.keys)

    def candidates(self, provider: Provider) -> list[Candidate]:
        """What to try on a provider: what was given, the key the backup has for it, then its other keys.

        Disks are replaced, and pools imported into another NAS, without the database knowing better.
        """
        found: list[Candidate] = []
        if self.key_files or (self.passphrase is not None and not self.backup.keys):
            found.append(
                Candidate(self.origin or "passphrase", Credential(self.key_files, self.passphrase), self.paths)
            )
        known = self.backup.disk(provider.partuuid, provider.names)
        own = known.key if known is not None else ""
        for name in sorted(self.backup.keys, key=lambda name: (name != own, name)):
            origin, path = f"{name}.key in the backup", self.backup.path_of(name)
            credential = Credential((self.backup.keys[name],), self.passphrase)
            found.append(Candidate(origin, credential, (path,) if path else ()))
        return found

    def secrets(self) -> list[Key]:
        """What must not be shown."""
        passphrase = [] if self.passphrase is None else [Key("passphrase", self.passphrase)]
        files = [Key("raw", content) for content in (*self.key_files, *self.backup.keys.values())]
        return [key for key in (*passphrase, *files) if len(key.material) >= _SHORTEST]


@dataclass(frozen=True)
class Verdict:
    """What came of the attempts on one provider.

    ``opens`` is None where it could not be found out. ``content`` is what stands inside, if it could be read.
    """

    opens: bool | None
    origin: str = ""
    error: str = ""
    slot: int | None = None
    with_passphrase: bool = False
    content: Signature | None = None
    # Why the inside could not be read although a key fits, in words.
    content_error: str = ""
    master: MasterKey | None = field(default=None, repr=False)
    # What opened it, and where its key files lie on this host, if they do.
    credential: Credential = field(default_factory=Credential, repr=False)
    paths: tuple[str, ...] = ()


def try_offer(provider: Provider, offer: Offer, engine: Engine) -> Verdict:
    """Try all that is offered on a provider whose metadata was found."""
    if provider.located is None:
        return Verdict(None, error=provider.problem)
    candidates = offer.candidates(provider)
    if not candidates:
        return Verdict(False, error="No key is offered for it.")
    try:
        index, master = open_first(provider.located.metadata, [one.credential for one in candidates], engine)
    except WrongKey as error:
        return Verdict(False, origin=candidates[0].origin, error=str(error))
    except StorageError as error:
        return Verdict(None, origin=candidates[0].origin, error=str(error))
    content, problem = _inside(provider, master, engine)
    return Verdict(
        True,
        candidates[index].origin,
        slot=master.slot,
        with_passphrase=master.with_passphrase,
        content=content,
        content_error=problem,
        master=master,
        credential=candidates[index].credential,
        paths=candidates[index].paths,
    )


def _inside(provider: Provider, master: MasterKey, engine: Engine) -> tuple[Signature | None, str]:
    if provider.located is None or provider.located.problem:
        return None, provider.problem
    try:
        with opened(provider.path) as (read, _size):
            plain = Plaintext(read, provider.located, master, engine)
            return zfs_label(plain.read, plain.size), ""
    except Unsupported as error:
        return None, str(error)
    except OSError as error:
        return None, f"{provider.path} can't be read: {error.strerror}."
    except StorageError as error:
        return None, str(error)


def parse_offer(
    paths: t.Sequence[str], content: str | None, passphrase: str | None, backup: ConfigBackup | None = None
) -> Offer:
    """What a task offers.

    :param paths: key files on this host, in the order of geli's arguments
    :param content: a key file as base64, in place of paths
    :raises BadInput: what can't be a key file or passphrase
    :raises StorageError: a key file can't be read
    """
    if paths and content is not None:
        raise BadInput("keyfile and keyfile_content are both given; one of them is the key file.")
    files: tuple[bytes, ...] = tuple(read_key_file(path) for path in paths)
    origin = ", ".join(paths)
    if content is not None:
        files, origin = (_from_base64(content),), "keyfile_content"
    try:
        text = None if passphrase is None else check_passphrase(passphrase.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadInput("passphrase holds half a character, which can't be written in UTF-8.") from None
    return Offer(files, text, origin, tuple(paths), ConfigBackup() if backup is None else backup)


def read_key_file(path: str) -> bytes:
    """The whole content of a key file, every byte of which counts.

    :raises BadInput: no absolute path, no regular file, empty, or larger than 1 MiB
    :raises StorageError: it can't be read
    """
    if not path.startswith("/"):
        raise BadInput(f"The key file is '{path}'; wanted is an absolute path on the host.")
    try:
        # Opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StorageError(f"The key file {path} can't be read: {error.strerror}.") from None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadInput(f"The key file {path} is no regular file.")
        content = file.read(MOST_KEY_FILE + 1)
    if not content:
        raise BadInput(f"The key file {path} is empty.")
    if len(content) > MOST_KEY_FILE:
        raise BadInput(f"The key file {path} has more than {MOST_KEY_FILE} bytes; those of FreeNAS have 64.")
    return content


def _from_base64(text: str) -> bytes:
    try:
        content = base64.b64decode("".join(text.splitlines()).encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise BadInput(
            "keyfile_content is not base64.", hint="For example: openssl base64 -A -in <uuid>.key, or filter b64encode."
        ) from None
    if not content:
        raise BadInput("keyfile_content is empty.")
    return content
