"""What all targets share: what one is, seeds of edits, and how damage is brought past checksums and syntax."""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """Inputs to start from, and what is done with each."""

    seeds: list[bytes]
    parse: Parse


def right_png(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def right_records(data: bytes) -> bytes:
    """Frame bytes as one TFRecord with right checksums."""
    from converters.native.tfrecord import masked_crc

    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


def protobuf_field(number: int, data: bytes) -> bytes:
    """Make a length-delimited protobuf field."""
    length, out = len(data), b""
    while length > 127:
        out, length = out + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + out + bytes([length]) + data


#: What a value is replaced by.
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        2,
        255,
        1 << 31,
        (1 << 63) - 1,
        -(1 << 63),
        0.5,
        1e-320,
        1e5,
        -1e20,
        1e154,
        1.7e308,
    ),
    *(float("nan"), float("inf"), "", "x", "1", "NaN", "../x", "a\0b", "\ud800", "x" * 300, b"x"),
    *([], [1], [0.5, "x"], [[1.0]], [None], {}, {"path": "x"}, {"min": 0}),
)


#: Edits to start from.
EDITS = [b"", bytes(3), b"\5\0\x10\7\0\x0f\2\0\xff"]


def edited(value: Any, data: bytes) -> Any:
    """Copy nested lists and objects with a value replaced for every three bytes: which one, and by what.

    Of the syntax of JSON nothing is lost so, as most mutations of a text do.
    """
    out = copy.deepcopy(value)
    for at in range(0, len(data) - 2, 3):
        places: list[tuple[Any, Any]] = []
        _list_places(out, places)
        holder, key = places[int.from_bytes(data[at : at + 2], "little") % len(places)]
        if data[at + 2] == 255:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(ODD[data[at + 2] % len(ODD)])
        if not out:
            return out
    return out


def _list_places(value: Any, places: list[tuple[Any, Any]]) -> None:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        places.append((value, key))
        if isinstance(each, (dict, list)):
            _list_places(each, places)


ODD_FLOATS = (float("nan"), float("inf"), 0.0, -1.0, 1e-320, 1e5, 1e9, -1e20, 1e38, 1e154, 1.7e308, -1.7e308)


ODD_INTEGERS = (0, 1, -1, 2, 3, 5, 6, 100, 1 << 15, 1 << 28, (1 << 31) - 1, -(1 << 31))


def edited_message(message: Any, data: bytes) -> Any:
    """Copy a protobuf message with a number replaced for every three bytes: which one, and by what."""
    out = copy.deepcopy(message)
    places: list[tuple[Any, Any, bool]] = []
    _list_numbers(out, places)
    for at in range(0, len(data) - 2, 3):
        holder, key, is_float = places[int.from_bytes(data[at : at + 2], "little") % len(places)]
        odd = (ODD_FLOATS if is_float else ODD_INTEGERS)[data[at + 2] % 12]
        if isinstance(key, int):
            holder[key] = odd
        else:
            setattr(holder, key, odd)
    return out


def _list_numbers(message: Any, places: list[tuple[Any, Any, bool]]) -> None:
    for field, value in message.ListFields():
        # Of descriptor.h: 1 and 2 are integers, 5 and 6 floats.
        is_float, is_number = field.cpp_type in (5, 6), field.cpp_type in (1, 2, 5, 6)
        is_repeated = hasattr(value, "__len__")
        if field.message_type is not None:
            for each in value if is_repeated else [value]:
                _list_numbers(each, places)
        elif is_number and is_repeated:
            places += [(value, index, is_float) for index in range(len(value))]
        elif is_number:
            places.append((message, field.name, is_float))
