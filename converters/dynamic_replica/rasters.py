"""Depth and flow stored as bit patterns of half floats in 16-bit PNGs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.halves import NO_NUMBER
from datakit.errors import FormatError
from datakit.scene import decode_image

Size = tuple[int, int]
#: dynamic_stereo's own rule: nearer is no depth (datasets/dynamic_stereo_datasets.py:63,200).
NEAREST = 1e-5
#: Bits of a half float's exponent.
_EXPONENT = np.uint16(0x7C00)


def depth_codes(data: bytes, size: Size, where: str) -> NDArray[np.uint16]:
    """Decode a depth PNG.

    Args:
        data: The file's bytes.
        size: (W, H) it must have.
        where: For errors.

    Returns:
        (H, W) uint16 as stored; `converters.native.halves.z_of_code` tells their depth, from `NEAREST` on.
    """
    return _codes(data, size, where)


def flow_codes(data: bytes, mask: bytes | None, size: Size, where: str) -> NDArray[np.uint16]:
    """Decode a flow PNG of width 2 W: dx in its left half, dy in its right one.

    Args:
        data: The file's bytes.
        mask: Bytes of its mask PNG; 0 is unknown. None where there is none.
        size: (W, H) of the view.
        where: For errors.

    Returns:
        (H, W, 2) uint16 half floats, px; NaN unknown.
    """
    both = _codes(data, (2 * size[0], size[1]), where)
    codes = np.stack([both[:, : size[0]], both[:, size[0] :]], axis=-1)
    # All bits of the exponent set: infinite or no number (IEEE 754); one such component voids the other.
    odd = codes & _EXPONENT == _EXPONENT
    if odd.any():
        codes[odd.any(axis=-1)] = NO_NUMBER
    if mask is not None:
        valid = decode_image(mask, f"{where} (mask)")
        if valid.shape[:2] != codes.shape[:2]:
            raise _wrong_size(f"{where} (mask)", size, valid.shape)
        codes[(valid if valid.ndim == 2 else valid[..., 0]) == 0] = NO_NUMBER
    return codes


def instances(data: bytes, size: Size, where: str) -> NDArray[np.unsignedinteger[Any]]:
    """Decode an instance map of any bit depth, (H, W) uint8 or uint16."""
    ids = decode_image(data, where)
    if ids.ndim != 2 or ids.shape[::-1] != size:
        raise _wrong_size(where, size, ids.shape)
    return ids


def _codes(data: bytes, size: Size, where: str) -> NDArray[np.uint16]:
    bits = decode_image(data, where)
    if bits.dtype != np.uint16 or bits.ndim != 2:
        raise FormatError(
            "Not a 16-bit grey PNG.",
            where=where,
            expected="uint16 (H, W)",
            found=f"{bits.dtype} {bits.shape}",
        )
    if bits.shape[::-1] != size:
        raise _wrong_size(where, size, bits.shape)
    return bits


def _wrong_size(where: str, size: Size, shape: tuple[int, ...]) -> FormatError:
    return FormatError("An image has the wrong size.", where=where, expected=size, found=shape)
