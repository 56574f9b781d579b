"""Our PNG decoder against OpenCV's, on files whose filters are chosen line by line here."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from datakit.errors import FormatError
from datakit.scene import decode_image
from datakit.scene.png import decode_plain

#: (bits, colour type) -> channels.
KINDS = {(8, 0): 1, (16, 0): 1, (8, 2): 3, (16, 2): 3, (8, 6): 4, (16, 6): 4}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def head(size: tuple[int, int], bits: int, colour: int, interlaced: int = 0) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced)
    )


def tail(lines: bytes, parts: int = 1) -> bytes:
    """Pixels in so many chunks, and the end."""
    stream = zlib.compress(lines)
    cuts = [len(stream) * n // parts for n in range(parts + 1)]
    chunks = [chunk(b"IDAT", stream[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    return b"".join(chunks) + chunk(b"IEND", b"")


def filtered(array: np.ndarray, filters: Sequence[int]) -> bytes:
    """Filter each line of (H, W, C) samples as PNG's specification, 9.2, defines it: byte by byte, in Python."""
    step = array.itemsize * array.shape[2]
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(len(array), -1).view(np.uint8).astype(int)
    out = b""
    for y, kind in enumerate(filters):
        line = []
        for x in range(rows.shape[1]):
            a = rows[y, x - step] if x >= step else 0
            b = rows[y - 1, x] if y else 0
            c = rows[y - 1, x - step] if y and x >= step else 0
            nearest = min((a, b, c), key=lambda v: abs(v - (a + b - c)))  # the first of equals, in this order
            line.append((rows[y, x] - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        out += bytes([kind, *line])
    return out


def samples(bits: int, channels: int, seed: int, smooth: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    top = 1 << bits
    if smooth:
        slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 5)[..., None] + np.arange(channels)
        values = (slope + rng.integers(0, 3, (height, width, channels))) % top
    else:
        # Few levels: neighbours are often equally near, which Paeth's order decides.
        values = rng.integers(0, 5, (height, width, channels)) * (top // 256 + 1)
    return values.astype(f"u{bits // 8}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_every_filter_of_every_kind_as_opencv_reads_it(kind: tuple[int, int], seed: int) -> None:
    bits, colour = kind
    array = samples(bits, KINDS[kind], seed, smooth=seed % 2 == 0)
    filters = np.random.default_rng(seed).permutation(np.arange(len(array)) % 5)
    data = head(array.shape[1::-1], bits, colour) + tail(filtered(array, filters), parts=1 + seed % 3)
    decoded = decode_plain(data, "x")
    assert decoded is not None and decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array if colour else array[..., 0])
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[KINDS[kind]]
    np.testing.assert_array_equal(np.atleast_3d(decoded), np.atleast_3d(theirs)[..., order])


def test_what_is_not_plain_is_left_to_libpng() -> None:
    lines = bytes([0, 0b10110000])
    for data in (
        head((4, 1), 1, 0) + tail(lines),  # packed bits
        head((1, 1), 8, 0, interlaced=1) + tail(bytes([0, 7])),
        head((1, 1), 8, 3) + chunk(b"PLTE", bytes(3 * 256)) + tail(bytes([0, 9])),
        head((1, 1), 16, 2) + chunk(b"tRNS", bytes(6)) + tail(bytes([0, *range(6)])),
    ):
        assert decode_plain(data, "x") is None
        assert decode_image(data, "x").size


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (bytes([5, 1, 2]), "filter"),
        (bytes([0, 1]), "wrong size"),
        (bytes([0, 1, 2, 3]), "wrong size"),
    ],
)
def test_wrong_pixels_behind_right_checksums_are_refused(lines: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        decode_image(head((1, 1), 16, 0) + tail(lines), "x")


def test_a_claimed_size_takes_no_memory() -> None:
    """16,000 x 16,000 pixels in a few bytes."""
    import tracemalloc

    data = head((16000, 16000), 16, 0) + tail(bytes(100))
    tracemalloc.start()
    with pytest.raises(FormatError, match="pixels"):
        decode_image(data, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_without_isal_zlib_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from datakit.scene import deflate

    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    try:
        plain = importlib.reload(deflate)
        assert plain._zlib is zlib
        assert plain.inflate(zlib.compress(b"abc"), 3, "It", "x") == b"abc"
        with pytest.raises(FormatError, match="corrupt"):
            plain.inflate(b"abc", 3, "It", "x")
    finally:
        monkeypatch.undo()
        importlib.reload(deflate)
