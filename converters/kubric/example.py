"""Parser for tf.train.Example, the payload of a TFDS record, without TensorFlow.

    Example {1: Features}   Features {1: map entry {1: key, 2: Feature}}
    Feature {1: BytesList | 2: FloatList | 3: Int64List}, each with its values in field 1

(tensorflow/core/example/example.proto and feature.proto.) Values stay views into the payload until asked for,
and packed integers decode in slices: a 512 x 512 MOVi-F record holds 25 million of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10
#: Bytes of packed varints decoded at a time.
_SLICE = 1 << 20


@dataclass
class Feature:
    """One feature: the raw chunks of its list, in order.

    Attributes:
        kind: "bytes", "floats", "ints", or "" where the record leaves the kind out (an empty list).
        chunks: Byte strings, packed little-endian float32, or packed varints.
    """

    kind: str = ""
    chunks: list[memoryview] = field(default_factory=list)


def parse_example(payload: bytes, where: str) -> dict[str, Feature]:
    """Parse a record.

    Args:
        payload: A serialised tf.train.Example.
        where: File and byte of the record, for errors.

    Returns:
        Key -> feature, undecoded.

    Raises:
        FormatError: The bytes are no such message.
    """
    features: dict[str, Feature] = {}
    for number, block in _messages(memoryview(payload), where):
        if number == 1:
            for inner, entry in _messages(block, where):
                if inner == 1:
                    key, feature = _map_entry(entry, where)
                    features[key] = feature
    return features


def _map_entry(entry: memoryview, where: str) -> tuple[str, Feature]:
    key, feature = "", Feature()
    for number, value in _messages(entry, where):
        if number == 1:
            key = bytes(value).decode("utf-8", errors="replace")
        elif number == 2:
            feature = _feature(value, where)
    return key, feature


def _feature(data: memoryview, where: str) -> Feature:
    kinds = {1: "bytes", 2: "floats", 3: "ints"}
    for number, block in _messages(data, where):
        if number in kinds:
            return Feature(kinds[number], [chunk for inner, chunk in _messages(block, where) if inner == 1])
    return Feature()


def _messages(data: memoryview, where: str) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, raw value) of a message; unpacked scalars come as their own bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at, where)
        wire = tag & 7
        if wire == _BYTES:
            length, at = _varint(data, at, where)
        elif wire == _VARINT:
            _, stop = _varint(data, at, where)
            length = stop - at
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise FormatError(
                "Not a tf.train.Example.", where=where, expected="a known wire type", found=wire
            )
        if at + length > end:
            raise FormatError(
                "A tf.train.Example is cut off.",
                where=where,
                expected=f"{length} bytes",
                found=f"{end - at} bytes",
            )
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT):
        if at + i >= len(data):
            break
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise FormatError("Not a tf.train.Example: an integer does not end.", where=where)


def decode_floats(feature: Feature, where: str) -> NDArray[np.float32]:
    """Decode a float list, (N,) float32.

    Raises:
        FormatError: Its last number is cut off.
    """
    data = b"".join(feature.chunks)
    if len(data) % 4:
        raise FormatError(
            "A float list is cut off.", where=where, expected="whole floats", found=f"{len(data)} bytes"
        )
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def decode_ints(feature: Feature, dtype: type[np.integer], where: str) -> NDArray[np.integer]:
    """Decode an int64 list.

    Args:
        feature: Packed or unpacked varints.
        dtype: Result type; values that do not fit are an error.
        where: File and key, for errors.

    Returns:
        (N,) of that type.

    Raises:
        FormatError: A varint does not end, or a value does not fit.
    """
    parts = [part for chunk in feature.chunks for part in _decode_varints(chunk, dtype, where)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _decode_varints(chunk: memoryview, dtype: type[np.integer], where: str) -> Iterator[NDArray[np.integer]]:
    data = np.frombuffer(chunk, dtype=np.uint8)
    limits = np.iinfo(dtype)
    at = 0
    while at < len(data):
        window = data[at : at + _SLICE]
        ends = np.flatnonzero(window < 0x80)
        starts = np.concatenate([[0], ends[:-1] + 1])
        lengths = ends - starts + 1
        if not ends.size or lengths.max() > _MAX_VARINT:
            raise FormatError(
                "A packed integer does not end.", where=where, found=f"byte {at} of {len(data)}"
            )
        values = np.zeros(len(ends), dtype=np.uint64)
        for i in range(int(lengths.max())):
            longer = lengths > i
            shifted = (window[starts[longer] + i] & 0x7F).astype(np.uint64) << np.uint64(7 * i)
            values[longer] |= shifted
        signed = values.view(np.int64)
        if signed.min() < limits.min or signed.max() > limits.max:
            raise FormatError(
                "An integer does not fit its type.",
                where=where,
                expected=f"{limits.min}..{limits.max}",
                found=f"{signed.min()}..{signed.max()}",
            )
        yield signed.astype(dtype)
        at += int(ends[-1]) + 1
