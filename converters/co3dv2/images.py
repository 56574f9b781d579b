"""Depth maps, masks, and photos that were blanked."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.native.png import GREY, PngKind, check_png_kind
from datakit.errors import FormatError
from datakit.scene import decode_image

from .annotations import Size

_DEPTH = PngKind(16, (GREY,))
_MASKS = {bits: PngKind(bits, (GREY,)) for bits in (1, 8)}
#: A JPEG of one colour takes at most 0.25 bit a pixel and its tables; no photo is as small.
_HEAD_BYTES, _BLANK_BYTES_PER_PIXEL = 4096, 1 / 16
#: Encoders put black at 0 to 2.
_BLACK = 4


def depth_codes(data: bytes, size: Size, where: str) -> NDArray[np.uint16]:
    """Decode a depth map: 16-bit grey PNG whose codes are the bits of half floats (implicitron utils.py:275-304).

    Returns:
        (H, W) uint16 as stored; `converters.native.halves.z_of_code` tells their depth.

    Raises:
        FormatError: Not such a PNG, damaged, or of another size.
    """
    check_png_kind(data, _DEPTH, size, where)
    codes = decode_image(data, where)
    if codes.dtype != np.uint16 or codes.shape != size[::-1]:
        raise FormatError(
            "A depth map does not decode to 16-bit grey.",
            where=where,
            expected=(size[::-1], "uint16"),
            found=(codes.shape, str(codes.dtype)),
        )
    return codes


def mask_bits(head: bytes) -> int:
    """Return the bit depth in a PNG's first 25 bytes; 0 where they are not there."""
    return head[24] if len(head) > 24 else 0


def check_mask(data: bytes, bits: int, size: Size, where: str) -> None:
    """Check that a mask is a whole grey PNG of a bit depth and size.

    Raises:
        FormatError: It is not.
    """
    if bits not in _MASKS:
        raise FormatError(
            "Not a mask.", where=where, expected="a grey PNG of 1 or 8 bits", found=f"{bits} bits"
        )
    check_png_kind(data, _MASKS[bits], size, where)


def empty_mask(bits: int, size: Size) -> bytes:
    """Return a grey PNG of zeros."""
    buffer = io.BytesIO()
    Image.new("1" if bits == 1 else "L", size).save(buffer, "PNG")
    return buffer.getvalue()


def can_be_blank(num_bytes: int, size: Size) -> bool:
    """Tell from a JPEG's length whether it can show nothing but one colour."""
    return num_bytes <= _HEAD_BYTES + _BLANK_BYTES_PER_PIXEL * size[0] * size[1]


def is_black(data: bytes, where: str) -> bool:
    """Tell whether a photo is black all over."""
    return int(decode_image(data, where).max()) <= _BLACK
