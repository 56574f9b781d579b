"""Streams that hold too much, too little, or not what their checksum says."""

from __future__ import annotations

import zlib

import pytest

from datakit.errors import FormatError
from datakit.scene.deflate import MAX_EXPANSION, inflate


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zlib.compress(bytes(99)), "wrong size"),
        (zlib.compress(bytes(101)), "wrong size"),
        (zlib.compress(bytes(100))[:-1], "truncated"),
        (zlib.compress(bytes(range(100)))[:50], "truncated"),
        (b"\1" + zlib.compress(bytes(100)), "corrupt"),
        (zlib.compress(bytes(100))[:-1] + b"\2", "corrupt"),
        (b"", "too short"),
    ],
    ids=["short", "long", "no checksum", "cut", "other bytes", "wrong checksum", "empty"],
)
def test_streams_that_do_not_hold_what_they_must(data: bytes, message: str) -> None:
    assert inflate(zlib.compress(bytes(100)), 100, "An image", "x", least=100) == bytes(100)
    with pytest.raises(FormatError, match=message):
        inflate(data, 100, "An image", "x", least=100)


def test_nothing_is_inflated_that_cannot_hold_what_it_must() -> None:
    data = zlib.compress(bytes(10), 0)
    with pytest.raises(FormatError, match="wrong size"):
        inflate(data, MAX_EXPANSION * len(data), "An image", "x", least=MAX_EXPANSION * len(data))
    with pytest.raises(FormatError, match="too short"):
        inflate(data, 1 << 30, "An image", "x", least=MAX_EXPANSION * len(data) + 1)
    assert inflate(data, 1 << 30, "An image", "x") == bytes(10)
