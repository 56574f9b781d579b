"""Image bytes to arrays and back, refusing anything truncated or corrupt."""

from __future__ import annotations

import io
import zlib
from collections import deque
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datakit.errors import FormatError

from .deflate import MAX_EXPANSION
from .png import decode_plain

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
#: No source has images near this; it bounds what a forged header can make us allocate.
MAX_PIXELS = 1 << 28
#: Samples a pixel by colour type (PNG specification, 11.2.2).
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
#: JPEG markers without a length (TEM, RST0-7), and those of a frame header (SOF, but not DHT, JPG, DAC); ITU T.81,
#: table B.1.
_JPEG_BARE = (0x01, *range(0xD0, 0xD8))
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Pixels that a byte of a JPEG can be of: each block of 8 x 8 samples takes a bit or more (its DC code, F.1.2.1), and
#: of the components that share an image one has a quarter of its pixels or more (sampling factors 4 x 1 and 1 x 4).
_JPEG_PIXELS = 8 * 64 * 4
#: PNGs found sound last, with their sizes: a converter checks one, decodes it, and gives its bytes to the writer, each
#: of which checks. Bytes objects cannot change, so the same object need not be read again.
_sound: deque[tuple[bytes, tuple[int, int]]] = deque(maxlen=8)


def check_png(data: bytes, where: str) -> tuple[int, int]:
    """Check a PNG's structure and every chunk's CRC without decoding it.

    libpng through OpenCV returns half-decoded images for truncated files; this does not.

    Args:
        data: The file's bytes.
        where: Its name in messages.

    Returns:
        (W, H) from its header.

    Raises:
        FormatError: Not a PNG, truncated, without pixels, or a chunk's CRC is wrong.
    """
    for seen, size in tuple(_sound):
        if seen is data:
            return size
    size = _walk_png(data, where)
    if isinstance(data, bytes):
        _sound.append((data, size))
    return size


def _walk_png(data: bytes, where: str) -> tuple[int, int]:
    if data[:8] != _PNG_MAGIC:
        raise FormatError("Not a PNG", where=where, expected=_PNG_MAGIC, found=bytes(data[:8]))
    at, size, view, num_bytes = 8, (0, 0), memoryview(data), 0
    while True:
        length = int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        end = at + 12 + length
        if len(data) < at + 12 or end > len(data):
            raise FormatError(
                "PNG is truncated",
                where=f"{where}, byte {at}",
                expected="a whole chunk",
                found=f"{len(data)} bytes",
            )
        crc = int.from_bytes(data[end - 4 : end], "big")
        found = zlib.crc32(view[at + 4 : end - 4])
        if found != crc:
            raise FormatError(
                "PNG chunk has a wrong CRC",
                where=f"{where}, chunk {kind!r} at byte {at}",
                expected=f"{crc:#010x}",
                found=f"{found:#010x}",
            )
        if at == 8:
            if kind != b"IHDR" or length != 13:
                raise FormatError("PNG does not begin with IHDR", where=where, expected=b"IHDR", found=kind)
            size = (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
            if not 0 < size[0] * size[1] <= MAX_PIXELS:
                raise FormatError("PNG claims an absurd size", where=where, expected="a photo", found=size)
        elif kind == b"IHDR":  # Pillow believes the last one, which nothing has checked
            raise FormatError(
                "PNG has two headers", where=f"{where}, byte {at}", expected="one IHDR", found=kind
            )
        if kind == b"IEND":
            # OpenCV reads on behind the end of one without pixels, and believes the lengths that it finds there.
            if length or not num_bytes:
                raise FormatError(
                    "PNG ends wrongly",
                    where=f"{where}, byte {at}",
                    expected="pixels, then an empty IEND",
                    found=f"{length} bytes in it, {num_bytes} bytes of pixels",
                )
            bits = data[24] * _PNG_CHANNELS.get(data[25], 1)
            # Decoders make room for all that a header claims, which may be no more than its pixels can hold.
            if size[0] * size[1] * bits > 8 * MAX_EXPANSION * num_bytes:
                raise FormatError(
                    "PNG is too short for its size",
                    where=where,
                    expected=f"pixels of {size}",
                    found=f"{num_bytes} bytes of them",
                )
            return size
        num_bytes += length * (kind == b"IDAT")
        at = end


def check_jpeg(data: bytes, where: str) -> tuple[int, int]:
    """Check that a JPEG begins and ends as one, and read its size.

    Raises:
        FormatError: Not a JPEG, truncated, or of an absurd size.
    """
    return jpeg_head(data, where)[0]


def jpeg_head(data: bytes, where: str) -> tuple[tuple[int, int], int]:
    """Check that a JPEG begins and ends as one, and read its frame header (ITU T.81, B.2.2) without decoding.

    Returns:
        (W, H), and the number of components: 1 grey, 3 colour, 4 CMYK.

    Raises:
        FormatError: Not a JPEG, truncated, not of 8 bits and 1, 3 or 4 components, or of an absurd size.
    """
    if data[:3] != _JPEG_MAGIC:
        raise FormatError("Not a JPEG", where=where, expected=_JPEG_MAGIC, found=bytes(data[:3]))
    # Some encoders pad the end with zeros.
    if not bytes(data).rstrip(b"\0").endswith(_JPEG_END):
        raise FormatError("JPEG is truncated", where=where, expected="an end marker", found=bytes(data[-2:]))
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _JPEG_BARE:  # a fill byte, or nothing but a marker
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES:
            return _frame_header(data[at + 4 : at + 2 + length], len(data), where)
        if marker in (0xD9, 0xDA) or length < 2:
            break
        at += 2 + length
    raise FormatError(
        "JPEG header cannot be read", where=where, expected="a frame header", found=f"none up to byte {at}"
    )


def _frame_header(head: bytes, num_bytes: int, where: str) -> tuple[tuple[int, int], int]:
    components = head[5] if len(head) > 5 else 0
    if components not in (1, 3, 4) or head[0] != 8 or len(head) != 6 + 3 * components:
        raise FormatError(
            "JPEG header cannot be read",
            where=where,
            expected="8 bits, 1, 3 or 4 components",
            found=bytes(head[:6]),
        )
    size = int.from_bytes(head[3:5], "big"), int.from_bytes(head[1:3], "big")
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise FormatError("JPEG claims an absurd size", where=where, expected="a photo", found=size)
    if size[0] * size[1] > _JPEG_PIXELS * num_bytes:
        raise FormatError(
            "JPEG is too short for its size",
            where=where,
            expected=f"a photo of {size}",
            found=f"{num_bytes} bytes",
        )
    return size, components


def check_image(codec: str, data: bytes, where: str) -> tuple[int, int]:
    """Check the bytes of a "png" or "jpeg" and return (W, H)."""
    return check_png(data, where) if codec == "png" else check_jpeg(data, where)


def decode_image(data: bytes, where: str) -> NDArray[Any]:
    """Decode a PNG or JPEG.

    Args:
        data: The file's bytes.
        where: Its name in messages.

    Returns:
        (H, W) or (H, W, C) uint8 or uint16, RGB order; a palette PNG gives its indices.

    Raises:
        FormatError: The bytes are truncated or corrupt.
    """
    if data[:8] == _PNG_MAGIC:
        check_png(data, where)
        plain = decode_plain(data, where)
        if plain is not None:
            return plain
        if data[24] == 16 or data[25] in (2, 6):  # bit depth, colour type
            return _decode_opencv(data, where)
    else:
        check_jpeg(data, where)
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image if image.mode in ("P", "L", "RGB", "RGBA", "1") else image.convert("RGB")
            return np.array(pixels, dtype=np.uint8)
    except Exception as error:
        raise FormatError("Image cannot be decoded", where=where, found=error) from error


def _decode_opencv(data: bytes, where: str) -> NDArray[Any]:
    # Pillow cuts 16-bit RGB PNGs to 8 bit in silence, so these go through OpenCV, which gives BGR.
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise FormatError("PNG cannot be decoded", where=where, found=f"{len(data)} bytes")
    if array.ndim == 3:
        code = cv2.COLOR_BGRA2RGBA if array.shape[2] == 4 else cv2.COLOR_BGR2RGB
        array = cv2.cvtColor(array, code)
    return np.asarray(array)


def encode_png(array: NDArray[Any], level: int = 3) -> bytes:
    """Encode an (H, W), (H, W, 3) RGB or (H, W, 4) RGBA array of uint8 or uint16 losslessly.

    >>> decode_image(encode_png(np.array([[1, 60000]], np.uint16)), "x").tolist()
    [[1, 60000]]
    """
    if array.ndim == 3 and array.shape[2] >= 3:
        code = cv2.COLOR_RGBA2BGRA if array.shape[2] == 4 else cv2.COLOR_RGB2BGR
        array = cv2.cvtColor(array, code)
    ok, data = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, level])
    if not ok:
        raise ValueError(f"OpenCV cannot write a PNG of shape {array.shape} {array.dtype}")
    return bytes(data)
