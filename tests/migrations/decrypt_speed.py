# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the NAS: how fast some processes decrypt a disk of GELI that is in memory, as the server of nbd does it.

    decrypt_speed.py FOLDER PROCESSES SECONDS

FOLDER is that of the suite's agent. Prints bytes per second of all of them together.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import time

# Bytes. More than the caches of a processor hold.
SIZE = 32 << 20
KEY_FILE = bytes(range(64))


def decrypt(folder: str, seconds: float) -> float:
    """Bytes per second of one process."""
    sys.path[:0] = [f"{folder}/lib", folder]
    utils = "ansible_collections.nasops.encryption.plugins.module_utils.geli"
    cipher, keys, metadata, sectors = (
        importlib.import_module(f"{utils}.{name}") for name in ("cipher", "keys", "metadata", "sectors")
    )
    writer = importlib.import_module("geli_writer")
    volume = writer.Volume(SIZE, writer.SHAPES["2017"], [writer.Secret((KEY_FILE,))])
    last = volume.last_sector()
    # Whatever it decrypts to, it takes as long.
    image = os.urandom(SIZE - len(last)) + last

    def read(offset: int, length: int) -> bytes:
        return bytes(image[offset : offset + length])

    located = metadata.locate(read, SIZE)
    engine = cipher.find_engine()
    master = keys.open_slots(located.metadata, keys.Credential((KEY_FILE,)), engine)
    content = sectors.Plaintext(read, located, master, engine)
    piece, done, at = sectors.CHUNK, 0, 0
    content.read(0, piece)
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        done += len(content.read(at, piece))
        at = (at + piece) % (SIZE // 2)
    return done / (time.monotonic() - begun)


def main() -> None:
    folder, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    reading, writing = os.pipe()
    for _number in range(count):
        if os.fork() == 0:
            os.write(writing, struct.pack("d", decrypt(folder, seconds)))
            os._exit(0)
    os.close(writing)
    for _number in range(count):
        os.wait()
    with os.fdopen(reading, "rb") as results:
        found = results.read()
    speeds = struct.unpack(f"{len(found) // 8}d", found)
    if len(speeds) != count:
        raise SystemExit(f"{count - len(speeds)} of {count} processes failed")
    print(sum(speeds))


if __name__ == "__main__":
    main()
