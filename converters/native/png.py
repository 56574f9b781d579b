"""What a converter must know about a PNG before passing its bytes through."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from datakit.errors import FormatError
from datakit.scene import check_png

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"
#: PNG colour types (PNG specification, 11.2.2).
GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6


@dataclass(frozen=True)
class PngKind:
    """What a layer's PNGs must be: bit depth and the colour types allowed."""

    bits: int
    colour_types: tuple[int, ...]


def check_png_kind(data: bytes, kind: PngKind, size: tuple[int, int], where: str) -> None:
    """Check that a PNG is whole (all chunk checksums) and of the kind its layer promises.

    Args:
        data: The file.
        kind: Bit depth and colour types of its layer.
        size: (W, H).
        where: File, for errors.

    Raises:
        FormatError: Truncated, corrupt, or of another size, depth or colour type.
    """
    check_png(data, where)
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if (width, height) != size:
        raise FormatError(
            "An image has the wrong size.", where=where, expected=f"{size} (W, H)", found=(width, height)
        )
    if bits != kind.bits or colour not in kind.colour_types:
        raise FormatError(
            "An image has the wrong pixel format.",
            where=where,
            expected=f"{kind.bits} bits, PNG colour type {' or '.join(map(str, kind.colour_types))}",
            found=f"{bits} bits, colour type {colour}",
        )


def ends_like_png(head: bytes, tail: bytes) -> bool:
    """Tell from its first 8 and last 12 bytes whether a file can be a complete PNG."""
    return head.startswith(_SIGNATURE) and tail.endswith(_IEND)
