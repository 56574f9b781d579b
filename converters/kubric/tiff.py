"""Reader for the one kind of TIFF that Kubric writes: uncompressed single-channel float32 strips.

Tags and types are those of the TIFF 6.0 specification, section 2. Doing it here, in place of an imaging
library, gives errors that name the byte, and lets the doctor check a file from its directory alone.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION = 256, 257, 258, 259
_OFFSETS, _SAMPLES, _COUNTS, _SAMPLE_FORMAT = 273, 277, 279, 339
_TYPES = {1: "B", 3: "H", 4: "I"}
_DEFAULTS = {_COMPRESSION: (1,), _SAMPLES: (1,), _SAMPLE_FORMAT: (1,)}


def read_tiff_float32(data: bytes, where: str) -> NDArray[np.float32]:
    """Read a (H, W) or (H, W, 1) float32 TIFF.

    Args:
        data: The file.
        where: Its path, for errors.

    Returns:
        (H, W) float32, native byte order.

    Raises:
        FormatError: Not such a TIFF, or truncated.
    """
    order, tags = read_tags(data, where)
    (width,), (height,) = tags[_WIDTH], tags[_HEIGHT]
    spans = list(zip(tags[_OFFSETS], tags[_COUNTS], strict=True))
    if sum(count for _, count in spans) != width * height * 4:
        raise FormatError(
            "TIFF strips do not fill the image.",
            where=where,
            expected=f"{width * height * 4} bytes",
            found=sum(count for _, count in spans),
        )
    for offset, count in spans:
        if offset + count > len(data):
            raise _truncated(where, offset, offset + count, len(data))
    raw = b"".join(data[offset : offset + count] for offset, count in spans)
    return np.frombuffer(raw, dtype=f"{order}f4").astype(np.float32).reshape(height, width)


def pixels_end(head: bytes, where: str) -> int:
    """Tell from a TIFF's beginning, which must hold its directory, how long the file must be at least.

    Raises:
        FormatError: As `read_tags`.
    """
    _, tags = read_tags(head, where)
    return max(offset + count for offset, count in zip(tags[_OFFSETS], tags[_COUNTS], strict=True))


def read_tags(data: bytes, where: str) -> tuple[str, dict[int, tuple[int, ...]]]:
    """Read the first directory and check that it describes float32 strips.

    Returns:
        Byte order ("<" or ">") and tag -> integer values.

    Raises:
        FormatError: Not a TIFF, truncated before the directory's end, or not uncompressed one-channel
            float32.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None:
        raise FormatError(
            "Not a TIFF.", where=f"{where}: byte 0", expected="II*\\0 or MM\\0*", found=data[:4]
        )
    start = _unpack(data, f"{order}I", 4, where)[0]
    (num_entries,) = _unpack(data, f"{order}H", start, where)
    tags: dict[int, tuple[int, ...]] = dict(_DEFAULTS)
    for i in range(num_entries):
        at = start + 2 + 12 * i
        tag, kind, count = _unpack(data, f"{order}HHI", at, where)
        if tag in (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _COUNTS, _SAMPLE_FORMAT):
            tags[tag] = _values(data, order, at, kind, count, where)
    for tag, want in ((_BITS, (32,)), (_COMPRESSION, (1,)), (_SAMPLES, (1,)), (_SAMPLE_FORMAT, (3,))):
        if tags.get(tag) != want:
            raise FormatError(
                "Not an uncompressed one-channel float32 TIFF.",
                where=where,
                expected=f"tag {tag} = {want[0]}",
                found=tags.get(tag),
            )
    for tag in (_WIDTH, _HEIGHT, _OFFSETS, _COUNTS):
        if not tags.get(tag):
            raise FormatError(
                "A TIFF tag is missing.", where=where, expected=f"tag {tag}", found=sorted(tags)
            )
    if len(tags[_OFFSETS]) != len(tags[_COUNTS]):
        raise FormatError(
            "A TIFF's strip offsets and counts differ in number.",
            where=where,
            expected=len(tags[_OFFSETS]),
            found=len(tags[_COUNTS]),
        )
    return order, tags


def _values(data: bytes, order: str, at: int, kind: int, count: int, where: str) -> tuple[int, ...]:
    if kind not in _TYPES or count * 4 > len(data):
        raise FormatError(
            "A TIFF tag is malformed.", where=f"{where}: byte {at}", found=f"type {kind}, {count} values"
        )
    form = f"{order}{count}{_TYPES[kind]}"
    inline = struct.calcsize(form) <= 4
    return _unpack(data, form, at + 8 if inline else _unpack(data, f"{order}I", at + 8, where)[0], where)


def _unpack(data: bytes, form: str, offset: int, where: str) -> tuple[int, ...]:
    end = offset + struct.calcsize(form)
    if end > len(data):
        raise _truncated(where, offset, end, len(data))
    return struct.unpack_from(form, data, offset)


def _truncated(where: str, offset: int, need: int, have: int) -> FormatError:
    return FormatError(
        "A TIFF is truncated.",
        where=f"{where}: byte {offset}",
        expected=f"{need} bytes",
        found=f"{have} bytes",
    )
