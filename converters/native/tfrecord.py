"""TFRecord framing.

u64 length, masked CRC-32C of it, payload, masked CRC-32C of the payload; all little-endian. Layout and mask
are those of tensorflow/core/lib/io/record_writer.cc and crc32c.h.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from datakit.errors import FormatError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
#: Bytes around a payload.
OVERHEAD = _HEADER.size + _FOOTER.size
_MASK_DELTA = 0xA282EAD8


@dataclass(frozen=True)
class RecordSpan:
    """Where a record lies in its file: offset of its header, and length with header and footer."""

    offset: int
    length: int


def masked_crc(data: bytes) -> int:
    """Compute TensorFlow's masked CRC-32C: rotated right by 15 bits, plus a constant.

    >>> hex(masked_crc(b"123456789"))
    '0xc7892ad'
    """
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def walk_records(path: Path) -> Iterator[RecordSpan]:
    """List the records of a file by seeking from header to header; payloads are not read.

    Raises:
        FormatError: A header is cut off, fails its CRC, or claims more bytes than the file has.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            length = _read_length(file, path, offset, size)
            yield RecordSpan(offset, length + OVERHEAD)
            offset += length + OVERHEAD


def read_record(path: Path, span: RecordSpan, check_crc: bool) -> tuple[bytes, str]:
    """Read the payload of one record.

    Nothing is allocated before the length field has been checked against the file's size.

    Args:
        path: The shard.
        span: From `walk_records`; the file may have changed since.
        check_crc: Whether to check the payload's CRC (the length's is always checked).

    Returns:
        Payload, and the sha256 of the whole record with header and footer.

    Raises:
        FormatError: Truncated, or wrong CRC; the error names the byte.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = _read_length(file, path, span.offset, size)
        file.seek(span.offset)
        header, payload, footer = file.read(_HEADER.size), file.read(length), file.read(_FOOTER.size)
    if len(footer) < _FOOTER.size:
        raise _truncated(path, span.offset, length + OVERHEAD, len(header) + len(payload) + len(footer))
    if check_crc:
        found = masked_crc(payload)
        (want,) = _FOOTER.unpack(footer)
        if found != want:
            raise FormatError(
                "A TFRecord's payload fails its CRC.",
                where=f"{path}: byte {span.offset + _HEADER.size}, {length} bytes",
                expected=f"{want:#010x}",
                found=f"{found:#010x}",
                mend="Download the shard again.",
            )
    digest = hashlib.sha256(header)
    digest.update(payload)
    digest.update(footer)
    return payload, digest.hexdigest()


def _read_length(file: BinaryIO, path: Path, offset: int, size: int) -> int:
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise _truncated(path, offset, _HEADER.size, len(header))
    length, crc = _HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise FormatError(
            "A TFRecord's length field fails its CRC.",
            where=f"{path}: byte {offset}",
            expected=f"{crc:#010x}",
            found=f"{masked_crc(header[:8]):#010x} for length {length}",
            mend="Download the shard again.",
        )
    if length > size - offset - OVERHEAD:
        raise _truncated(path, offset, length + OVERHEAD, size - offset)
    return int(length)


def _truncated(path: Path, offset: int, need: int, have: int) -> FormatError:
    return FormatError(
        "A TFRecord is truncated.",
        where=f"{path}: byte {offset}",
        expected=f"{need} bytes",
        found=f"{have} bytes to the end of the file",
        mend="Download the shard again.",
    )
