# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key material: parse, validate, generate, encode and mask.

Rules of the three formats are OpenZFS's (zfsprops(7), zfs-load-key(8)): ``raw`` is 32 bytes, ``hex`` is 64 digits in
either case, ``passphrase`` is 8 to 512 bytes. The wrapping key has 32 bytes whatever the cipher.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import secrets as random_source
import typing as t
from dataclasses import dataclass, field

from .errors import BadInput

KEY_BYTES = 32
HEX_DIGITS = 2 * KEY_BYTES
PASSPHRASE_MIN_BYTES = 8
PASSPHRASE_MAX_BYTES = 512
ITERATIONS_MIN = 100_000
FORMATS = ("hex", "raw", "passphrase")

_HEX = re.compile(rb"[0-9a-fA-F]{%d}" % HEX_DIGITS)
_HEX_TEXT = re.compile("[0-9a-fA-F]{%d}" % HEX_DIGITS)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Key:
    """A wrapping key or passphrase.

    ``material`` is what ZFS reads: 32 bytes (raw), 64 ASCII digits (hex), or the passphrase in UTF-8.
    """

    format: str
    material: bytes = field(repr=False)

    def stdin(self) -> bytes:
        """What to write to the stdin of zfs or zpool: one line, but exactly 32 bytes for a raw key."""
        return self.material if self.format == "raw" else self.material + b"\n"

    # A file is read by the same rules as stdin.
    file_content = stdin

    def same_as(self, other: Key) -> bool:
        """Whether both stand for the same wrapping key (hex digits in either case are the same)."""
        return self.format == other.format and random_source.compare_digest(self._canonical(), other._canonical())

    def _canonical(self) -> bytes:
        return self.material.lower() if self.format == "hex" else self.material


def parse_option(key_format: str, value: str) -> Key:
    """A key given as a task option; raw keys come as base64, since YAML and JSON can't carry bytes.

    :raises BadInput: wrong length, stray blanks or newlines, characters outside the format. The message never
        repeats the value.
    """
    if key_format != "raw":
        return _validate(key_format, _as_bytes(value, "key.value"), "key.value")
    return _validate(key_format, _from_base64(value, "key.value"), "key.value")


def parse_offered(key_format: str, text: str, where: str) -> Key:
    """A key that is to open an encryption root that exists, so ZFS has once taken it.

    TrueNAS writes raw keys as hex digits. A passphrase is taken as it is, whatever its length: ZFS checks that when a
    passphrase is set, and older or other programs have set shorter ones.

    :param where: how to name the key in a message
    :raises BadInput: no key of this format; the message never repeats the text
    """
    if key_format == "raw":
        if _HEX_TEXT.fullmatch(text):
            return Key("raw", bytes.fromhex(text))
        return _validate("raw", _from_base64(text, where), where)
    material = _as_bytes(text, where)
    if key_format != "passphrase":
        return _validate(key_format, material, where)
    if not material:
        raise BadInput(f"{where} is an empty passphrase.")
    if b"\0" in material or b"\n" in material:
        raise BadInput(
            f"{where} holds a line break or a null character, behind which ZFS would not read on.",
            hint=_blank_hint(material),
        )
    return Key("passphrase", material)


def _as_bytes(text: str, where: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{where} holds half a character, which can't be written in UTF-8.") from None


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise BadInput(
            f"{where} is not base64.",
            hint="A raw key is given as the base64 of its 32 bytes, for example: openssl rand -base64 32.",
        ) from None


def parse_file(key_format: str, content: bytes, where: str) -> Key:
    """A key as ZFS would read it from a file: one trailing newline is not part of a hex key or passphrase.

    :param where: how to name the file in a message
    :raises BadInput: the content is not one valid key
    """
    if key_format != "raw" and content.endswith(b"\n"):
        content = content[:-1]
    return _validate(key_format, content, where)


def is_hex(text: str) -> bool:
    """Whether the text is a key in hexadecimal digits."""
    return _HEX_TEXT.fullmatch(text) is not None


def generate(key_format: str) -> Key:
    """A new random key of 256 bits from the system's random source; a passphrase is its URL-safe base64."""
    material = random_source.token_bytes(KEY_BYTES)
    if key_format == "hex":
        material = material.hex().encode("ascii")
    elif key_format == "passphrase":
        material = base64.urlsafe_b64encode(material).rstrip(b"=")
    elif key_format != "raw":
        raise BadInput(f"'{key_format}' is no key format; it is one of {', '.join(FORMATS)}.")
    return Key(key_format, material)


def check_iterations(iterations: int | None, key_format: str) -> None:
    """PBKDF2 rounds: only passphrases have them, at least 100000 as OpenZFS demands.

    :raises BadInput: too few, or given for a format without PBKDF2
    """
    if iterations is None:
        return
    if key_format != "passphrase":
        raise BadInput(
            f"key.iterations is set, but key.format is '{key_format}': only a passphrase is stretched by PBKDF2.",
            hint="Leave key.iterations out, or choose key.format: passphrase.",
        )
    if iterations < ITERATIONS_MIN:
        raise BadInput(
            f"key.iterations is {iterations}; OpenZFS accepts {ITERATIONS_MIN} or more.",
            hint="Leave it out for the default of OpenZFS (350000).",
        )


def _validate(key_format: str, material: bytes, where: str) -> Key:
    if key_format == "raw":
        if len(material) != KEY_BYTES:
            raise BadInput(
                f"{where} holds {len(material)} bytes; a raw key has exactly {KEY_BYTES}.",
                hint="A trailing newline counts as a byte in a raw key file." if len(material) == KEY_BYTES + 1 else "",
            )
    elif key_format == "hex":
        if not _HEX.fullmatch(material):
            raise BadInput(f"{where} is not a hex key: {_hex_fault(material)}.", hint=_blank_hint(material))
    elif key_format == "passphrase":
        if not PASSPHRASE_MIN_BYTES <= len(material) <= PASSPHRASE_MAX_BYTES:
            raise BadInput(
                f"{where} holds {len(material)} bytes; a passphrase has {PASSPHRASE_MIN_BYTES} to "
                f"{PASSPHRASE_MAX_BYTES} bytes in UTF-8."
            )
        if _CONTROL.search(material):
            raise BadInput(
                f"{where} holds a line break or another control character, which could not be typed at a prompt again.",
                hint=_blank_hint(material),
            )
        if material != material.strip(b" "):
            raise BadInput(f"{where} begins or ends with a blank, which is nearly always a copying mistake.")
    else:
        raise BadInput(f"'{key_format}' is no key format; it is one of {', '.join(FORMATS)}.")
    return Key(key_format, material)


def _hex_fault(material: bytes) -> str:
    if material.strip() != material:
        return "it has blanks or line breaks around the digits"
    if len(material) != HEX_DIGITS:
        return f"it has {len(material)} characters, wanted are {HEX_DIGITS} hexadecimal digits"
    return "it has characters other than 0-9, a-f and A-F"


def _blank_hint(material: bytes) -> str:
    if material.endswith((b"\n", b"\r")):
        return "In YAML write '|-' instead of '|', and save key files with Unix line ends."
    return ""


# Up to so many secrets of one length are looked for one by one, which is faster for few.
_FEW = 12
# What keys in hexadecimal digits or base64 consist of, and most passphrases that a program made.
_WORD = "0-9A-Za-z+/=_-"
_ONE_WORD = re.compile(f"[{_WORD}]+".encode())


class Mask:
    """Hides the secrets of one task, in every encoding they may show up in.

    A task may have a thousand keys, each in ten encodings, and every argument and message is searched for all of them.
    Most have the same few lengths, so each window of such a length is looked up in a set. Most are one word, which can
    only lie in one that is long enough: few words of what programs print are.
    """

    def __init__(self) -> None:
        # By length, and whether they are one word.
        self._needles: dict[tuple[int, bool], set[bytes]] = {}

    def add(self, key: Key) -> tuple[str, ...]:
        """Hide this key from now on. Returns its encodings, for the masks of ansible-core."""
        found = encodings(key.material)
        for needle in (*(text.encode("utf-8") for text in found), key.material):
            self._needles.setdefault((len(needle), bool(_ONE_WORD.fullmatch(needle))), set()).add(needle)
        return found

    def hides(self, text: str) -> bool:
        """Whether the text holds a secret."""
        return next(self._spans(text.encode("utf-8", "surrogateescape")), None) is not None

    def text(self, data: bytes) -> str:
        """Output of a program as text without secrets. Where secrets overlap, nothing of either is left."""
        parts: list[bytes] = []
        done = 0
        for start, end in _merged(self._spans(data)):
            parts += [data[done:start], b"********"]
            done = end
        return b"".join((*parts, data[done:])).decode("utf-8", "replace")

    def _spans(self, data: bytes) -> t.Iterator[tuple[int, int]]:
        """Where secrets begin and end."""
        words: dict[int, set[bytes]] = {}
        for (length, one_word), needles in self._needles.items():
            if len(needles) <= _FEW:
                yield from ((at, at + length) for needle in needles for at in _places(needle, data))
            elif one_word:
                words[length] = needles
            else:
                yield from _windows(data, 0, len(data), length, needles)
        if words:
            for begin, end in _long_words(data, min(words)):
                for length, needles in words.items():
                    yield from _windows(data, begin, end, length, needles)


def _windows(
    data: bytes, begin: int, end: int, length: int, needles: t.Collection[bytes]
) -> t.Iterator[tuple[int, int]]:
    """Where one of the needles, which all have this length, lies between two places."""
    return ((at, at + length) for at in range(begin, end - length + 1) if data[at : at + length] in needles)


def _long_words(data: bytes, length: int) -> t.Iterator[tuple[int, int]]:
    """Where words begin and end that have so many characters or more."""
    return (found.span() for found in re.finditer(f"[{_WORD}]{{{length},}}".encode(), data))


def _places(needle: bytes, data: bytes) -> t.Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)


def _merged(spans: t.Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def encodings(material: bytes) -> tuple[str, ...]:
    """Every usual way to write a secret: as text, hex in both cases, base64 and URL-safe base64.

    For a hex key that holds of its digits and of the bytes they stand for.
    """
    sources = [material]
    if _HEX.fullmatch(material):
        sources.append(bytes.fromhex(material.decode("ascii")))
    found: dict[str, None] = {}
    for source in sources:
        with contextlib.suppress(UnicodeDecodeError):
            found[source.decode("utf-8")] = None
        found[source.hex()] = None
        found[source.hex().upper()] = None
        for text in (base64.b64encode(source), base64.urlsafe_b64encode(source)):
            found[text.decode("ascii")] = None
            found[text.decode("ascii").rstrip("=")] = None
    if _HEX.fullmatch(material):
        found[material.decode("ascii").lower()] = None
        found[material.decode("ascii").upper()] = None
    return tuple(found)
