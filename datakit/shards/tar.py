"""Bytes of a tar, exactly as `webdataset.TarWriter(mtime=0, user="", group="")` writes them member by member.

Writing them here keeps offsets known, lets fragments of clips made by different processes be joined by plain
copying, and lets `verify` say what every byte of a header must be.
"""

from __future__ import annotations

import tarfile

BLOCK = tarfile.BLOCKSIZE
_MODE = 0o444


def member_header(name: str, size: int) -> bytes:
    """Make the header blocks of a member; more than one block where the name has over 100 characters."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, _MODE
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """Zeros that fill a member's last block."""
    return bytes(-size % BLOCK)


def end_of_archive(size: int) -> bytes:
    """Zeros that end a tar of `size` bytes: two blocks, then up to a whole record.

    >>> len(end_of_archive(512))
    9728
    """
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % tarfile.RECORDSIZE)
