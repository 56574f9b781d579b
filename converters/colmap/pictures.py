"""The images of a model: which of them can pass through, and what becomes of the others."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.native.files import check_size, inside
from datakit.errors import FormatError, LayoutError
from datakit.scene import check_image, decode_image

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_RGB, _PNG_RGBA = 2, 6
#: No photo has fewer bytes a pixel than this, which bounds what a forged header can make us decode.
_PIXELS_PER_BYTE = 4096


@dataclass(frozen=True)
class Picture:
    """What an image file is, from its head.

    Attributes:
        size: (W, H).
        codec: "jpeg" or "png": how it is stored in the scene.
        num_channels: Stored channels, 3 or 4.
        passes: Whether its bytes pass through; else it is decoded and stored as an RGB PNG.
    """

    size: tuple[int, int]
    codec: str
    num_channels: int
    passes: bool


def look_at(root: Path, relative: Path) -> Picture:
    """Read the head of an image.

    Raises:
        LayoutError: It is missing or leaves the root.
        FormatError: Neither PNG nor JPEG, of 16 bits, or damaged.
    """
    path = inside(root, relative)
    try:
        with open(path, "rb") as file:
            head = file.read(33)
            if head.startswith(_PNG_MAGIC) and len(head) == 33:
                return _look_at_png(head, str(path))
            if head.startswith(b"\xff\xd8\xff"):
                file.seek(0)
                return _look_at_jpeg(file, str(path))
    except OSError as error:
        raise LayoutError(
            "An image of the model is missing.",
            where=path,
            found=error.strerror,
            mend="--param images=FOLDER names another image folder below the root",
        ) from error
    raise FormatError(
        "An image that is neither PNG nor JPEG.", where=path, found=head[:8], mend="Encode the images as PNG."
    )


def _look_at_png(head: bytes, where: str) -> Picture:
    width, height, bits, colour = struct.unpack_from(">IIBB", head, 16)
    if bits > 8:
        raise FormatError("A PNG of 16 bits.", where=where, expected="8 bits a channel", found=bits)
    size = check_size(width, height, "An image", where)
    if colour in (_PNG_RGB, _PNG_RGBA):
        return Picture(size, "png", 3 if colour == _PNG_RGB else 4, True)
    return Picture(size, "png", 3, False)


def _look_at_jpeg(file: io.BufferedReader, where: str) -> Picture:
    try:
        with Image.open(file, formats=["JPEG"]) as image:
            size, mode = image.size, image.mode
    except Exception as error:
        raise FormatError("A JPEG's head cannot be read.", where=where, found=error) from error
    if mode not in ("RGB", "L"):
        raise FormatError("A JPEG with unusual colours.", where=where, expected="RGB or grey", found=mode)
    passes = mode == "RGB"
    return Picture(check_size(*size, "An image", where), "jpeg" if passes else "png", 3, passes)


def decode_rgb(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a whole image file to (H, W, 3).

    Raises:
        FormatError: Damaged, or too short for its size.
    """
    size = check_image("png" if data.startswith(_PNG_MAGIC) else "jpeg", data, where)
    if size[0] * size[1] > _PIXELS_PER_BYTE * len(data):
        raise FormatError("An image is too short for its size.", where=where, expected=size, found=len(data))
    if data.startswith(_PNG_MAGIC) and data[25] in (_PNG_RGB, _PNG_RGBA):
        return decode_image(data, where)[..., :3].astype(np.uint8)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
            return np.asarray(image.convert("RGB"), np.uint8)
    except Exception as error:
        raise FormatError("An image cannot be decoded.", where=where, found=error) from error
