"""Inflate zlib streams of which it is known how much they may hold."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from datakit.errors import FormatError

_zlib: Any
try:
    # ISA-L inflates about twice as fast as zlib.
    _zlib = import_module("isal.isal_zlib")
except ImportError:  # no wheel for this machine: the same functions, slower
    _zlib = import_module("zlib")


#: What deflate makes of a byte at most (zlib's technical details).
MAX_EXPANSION = 1032


def inflate(data: bytes, most: int, what: str, where: str, least: int = 0) -> bytes:
    """Inflate one whole zlib stream; its checksum is checked.

    Args:
        data: The stream.
        most: Bytes it may hold; a longer one takes no more memory than these.
        what: What it is, for errors: "A depth image".
        where: Its name in messages.
        least: Bytes it must hold; a stream too short for them is not inflated.

    Raises:
        FormatError: Corrupt, truncated, longer or shorter.
    """
    expected = f"{least} to {most} bytes" if least < most else f"{most} bytes"
    if least > MAX_EXPANSION * len(data):
        raise FormatError(
            f"{what} is too short for its size.", where=where, expected=expected, found=f"{len(data)} packed"
        )
    stream = _zlib.decompressobj()
    try:
        # One byte of room beyond: too much is seen, and the end of the stream is reached.
        out = stream.decompress(data, most + 1)
    except _zlib.error as error:
        raise FormatError(f"{what} is corrupt.", where=where, expected="zlib", found=error) from error
    if len(out) <= most and not stream.eof:
        raise FormatError(
            f"{what} is truncated.",
            where=where,
            expected="the end of a zlib stream",
            found=f"{len(out)} bytes",
        )
    if not least <= len(out) <= most:
        found = f"{len(out)} bytes" if len(out) < least else "more"
        raise FormatError(f"{what} has the wrong size.", where=where, expected=expected, found=found)
    return bytes(out)
