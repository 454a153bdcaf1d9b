# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From key files and passphrase to the keys of the sectors, as FreeBSD's geom_eli derives them.

Sources: ``sys/geom/eli/g_eli_key.c``, ``g_eli_key_cache.c`` and ``lib/geom/eli/geom_eli.c``. Keys and sizes are bytes
unless the name says bits. Nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput, StorageError
from .cipher import Engine
from .metadata import AES_CBC, AES_XTS, KEY_BYTES, Algorithm, Metadata

# geli(8) reads that much of a line from a terminal or passfile.
PASSPHRASE_MAX_BYTES = 1023
# geli(8) chooses what takes two seconds, which is some millions on the fastest machines. What damaged metadata asks
# for would take hours.
MOST_ITERATIONS = 1 << 27
# A new key every 2^20 sectors.
ZONE_SHIFT = 20

_SLOT_CIPHER = Algorithm(AES_CBC, "AES-CBC", 16, (128, 192, 256))


@dataclass(frozen=True)
class Credential:
    """What a person has to open a disk: key files in the order of geli's arguments, a passphrase, or both."""

    key_files: tuple[bytes, ...] = field(default=(), repr=False)
    passphrase: bytes | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.key_files) or self.passphrase is not None


@dataclass(frozen=True)
class MasterKey:
    """The two keys in a slot, and what opened it."""

    slot: int
    # Whether the passphrase was needed; otherwise the key files alone did it.
    with_passphrase: bool
    iv_key: bytes = field(repr=False)
    data_key: bytes = field(repr=False)


class WrongKey(StorageError):
    """No slot opens with that credential. GELI can't tell a wrong key file from a wrong passphrase."""


def check_passphrase(text: bytes) -> bytes:
    """A passphrase as geli(8) takes it.

    :raises BadInput: empty, longer than 1023 bytes, or with a line break or null character, behind which geli would
        not have read on
    """
    if not text:
        raise BadInput("passphrase is empty.", hint="Leave it out for a disk that is opened by its key file alone.")
    if len(text) > PASSPHRASE_MAX_BYTES:
        raise BadInput(f"passphrase has {len(text)} bytes; geli(8) reads at most {PASSPHRASE_MAX_BYTES}.")
    if b"\n" in text or b"\0" in text:
        raise BadInput(
            "passphrase holds a line break or a null character, behind which geli(8) would not have read on.",
            hint="In YAML write '|-' instead of '|'.",
        )
    return text


def stretch(metadata: Metadata, passphrase: bytes) -> bytes:
    """What stands for a passphrase in the user key: 64 bytes of PBKDF2-HMAC-SHA512, which takes a second or two.

    With 0 iterations it is salt and passphrase as they are.

    :raises StorageError: more iterations than any FreeBSD has chosen
    """
    if metadata.iterations > MOST_ITERATIONS:
        raise StorageError(
            f"The metadata asks for {metadata.iterations} PBKDF2 iterations, which would take hours; at most "
            f"{MOST_ITERATIONS} are made.",
            hint="FreeBSD chooses some millions at most, so the metadata is damaged or forged.",
        )
    if metadata.iterations <= 0:
        return metadata.salt + passphrase
    return hashlib.pbkdf2_hmac("sha512", passphrase, metadata.salt, metadata.iterations, KEY_BYTES)


def user_key(key_files: t.Sequence[bytes], stretched: bytes = b"") -> bytes:
    """The 64 bytes that key files and a stretched passphrase make together.

    HMAC-SHA512 without a key over the whole files one after another, and then the passphrase.
    """
    found = hmac.new(b"", digestmod=hashlib.sha512)
    for content in (*key_files, stretched):
        found.update(content)
    return found.digest()


def open_slots(metadata: Metadata, credential: Credential, engine: Engine, slot: int | None = None) -> MasterKey:
    """The master key in the first slot that the credential opens. Errors are those of :func:`open_first`."""
    return open_first(metadata, (credential,), engine, slot)[1]


def open_first(
    metadata: Metadata, credentials: t.Sequence[Credential], engine: Engine, slot: int | None = None
) -> tuple[int, MasterKey]:
    """The first credential that opens a slot, by its index, and the master key in the slot.

    The number of iterations is one for both slots, so it does not tell whether one of them needs the passphrase: a
    recovery key never does. So all key files are tried alone first, and then together with their passphrase, which is
    stretched once.

    :param slot: try only this one
    :raises WrongKey: none opens
    :raises NoCipher: the engine does not know the cipher of the volume
    :raises StorageError: no slot is in use, there is nothing to try, or it would take hours
    """
    if not any(credentials):
        raise BadInput("Neither a key file nor a passphrase is given.")
    slots = [one for one in metadata.slots if slot in (None, one)]
    if not slots:
        which = "no key slot" if slot is None else f"key slot {slot} not"
        raise WrongKey(f"The metadata has {which} in use: nothing can open it any more.")
    stretched: dict[bytes, bytes] = {}
    for with_passphrase in (False, True):
        for index, credential in enumerate(credentials):
            if with_passphrase:
                # It is of no use if there never was one.
                if credential.passphrase is None or metadata.iterations < 0:
                    continue
                if credential.passphrase not in stretched:
                    stretched[credential.passphrase] = stretch(metadata, credential.passphrase)
                user = user_key(credential.key_files, stretched[credential.passphrase])
            elif credential.key_files:
                user = user_key(credential.key_files)
            else:
                continue
            for one in slots:
                keys = _open_slot(metadata, metadata.master_keys[one], user, engine)
                if keys is not None:
                    return index, MasterKey(one, with_passphrase, *keys)
    raise WrongKey(_complaint(metadata, credentials), hint=_advice(metadata, credentials))


def _open_slot(metadata: Metadata, slot: bytes, user: bytes, engine: Engine) -> tuple[bytes, bytes] | None:
    """IV-key and data-key of a slot, or None if the user key does not open it.

    A slot is encrypted in CBC mode with a vector of zeros; volumes of AES-XTS use AES-CBC for it.
    """
    encryption, proof = _hmac(user, b"\x01"), _hmac(user, b"\x00")
    algorithm = _SLOT_CIPHER if metadata.algorithm.number == AES_XTS else metadata.algorithm
    decryptor = engine.decryptor(algorithm, metadata.key_bits, encryption[: metadata.key_bits // 8])
    plain = decryptor.decrypt(slot, len(slot), (bytes(algorithm.block),))
    keys, found = plain[: 2 * KEY_BYTES], plain[2 * KEY_BYTES :]
    if not hmac.compare_digest(found, _hmac(proof, keys)):
        return None
    return keys[:KEY_BYTES], keys[KEY_BYTES:]


def zone_of(metadata: Metadata, sector: int) -> int:
    """The number of the key of a sector; always 0 where there is only one."""
    return 0 if single_key(metadata) else sector >> ZONE_SHIFT


def single_key(metadata: Metadata) -> bool:
    """Whether all sectors have the same key, as before version 5."""
    return metadata.version < 5


def zone_key(metadata: Metadata, master: MasterKey, zone: int) -> bytes:
    """The key of a zone, for AES-XTS both halves one after the other.

    Version 7 derives it from the data-key, versions 5 and 6 from the IV-key; before, it is the data-key itself.
    """
    if single_key(metadata):
        full = master.data_key
    else:
        base = master.data_key if metadata.version >= 7 else master.iv_key
        full = _hmac(base, b"ekey" + struct.pack("<Q", zone))
    return full[: metadata.algorithm.halves * metadata.key_bits // 8]


def vectors(metadata: Metadata, master: MasterKey, offset: int, count: int) -> t.Iterator[bytes]:
    """The initialization vectors of ``count`` sectors from a byte offset on.

    AES-XTS: the offset as 64 bits, then zeros. CBC: SHA-256 of the IV-key and the offset, as much as a block has.
    (Before version 4 the offset was in the byte order of the machine, which is taken to be little-endian.)
    """
    block = metadata.algorithm.block
    step = metadata.sector_size
    if metadata.algorithm.number == AES_XTS:
        for at in range(offset, offset + count * step, step):
            yield at.to_bytes(16, "little")
        return
    start = hashlib.sha256(master.iv_key)
    for at in range(offset, offset + count * step, step):
        digest = start.copy()
        digest.update(at.to_bytes(8, "little"))
        yield digest.digest()[:block]


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha512).digest()


def _complaint(metadata: Metadata, credentials: t.Sequence[Credential]) -> str:
    files = len([one for one in credentials if one.key_files])
    if not files:
        return "The passphrase does not open it by itself."
    subject = "The key file does not open it" if files == 1 else f"None of {files} keys opens it"
    if metadata.iterations < 0:
        return f"{subject}."
    if any(one.passphrase is not None for one in credentials):
        return f"{subject}, alone or together with the passphrase."
    return f"{subject} alone."


def _advice(metadata: Metadata, credentials: t.Sequence[Credential]) -> str:
    if not any(one.key_files for one in credentials):
        return "FreeNAS and TrueNAS always use a key file too, named geli/<uuid>.key in a backup of the configuration."
    if metadata.iterations >= 0 and all(one.passphrase is None for one in credentials):
        return "A passphrase was set once on this disk: give it too, or the recovery key as key file."
    passphrase = "Is the passphrase right? " if any(one.passphrase is not None for one in credentials) else ""
    return f"{passphrase}Is it the key file of this pool, and as it was before the passphrase was changed last?"
