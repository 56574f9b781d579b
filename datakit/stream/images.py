"""Crop, resize and colour frames; the geometry of each step is exact in corner-origin pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError
from datakit.geometry import crop_intrinsics, resize_intrinsics

from .order import Look

try:
    import simplejpeg
except ImportError:  # OpenCV decodes the same files, a little slower
    simplejpeg = None

Float = NDArray[np.float64]
Image = NDArray[np.uint8]

_JPEG_MAGIC = b"\xff\xd8"
#: Rec. 601 luma, and the axes of hue around it (YIQ).
_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_LUMA = _YIQ_FROM_RGB[0]


@dataclass(frozen=True)
class Box:
    """A crop in whole pixels of the stored frame."""

    left: int
    top: int
    width: int
    height: int


def crop_box(size: tuple[int, int], look: Look, network_size: int) -> Box:
    """Turn a look's numbers into pixels.

    The area is a share of the image's; the aspect ratio is then drawn evenly in log space among those that fit the
    image. Sides are cut down to a multiple of the factor by which they are halved later.

    Args:
        size: (W, H) of the stored frame.
        look: What was drawn.
        network_size: Side of the network's square.

    Returns:
        A box inside the image, at least one pixel wide and high.
    """
    width, height = size
    area = look.area * width * height
    low, high = math.log(area / height**2), math.log(width**2 / area)
    aspect = math.exp(low + (high - low) * look.aspect)
    box_width = min(max(round(math.sqrt(area * aspect)), 1), width)
    box_height = min(max(round(area / box_width), 1), height)
    factor = 1 << _halvings((box_width, box_height), network_size)
    box_width, box_height = box_width // factor * factor, box_height // factor * factor
    return Box(
        left=int(look.left * (width - box_width + 1)),
        top=int(look.top * (height - box_height + 1)),
        width=box_width,
        height=box_height,
    )


def network_intrinsics(intrinsics: Float, box: Box, network_size: int) -> Float:
    """Follow K (..., 3, 3) through crop and resize."""
    cropped = crop_intrinsics(intrinsics, box.left, box.top)
    return resize_intrinsics(cropped, (box.width, box.height), (network_size, network_size))


def _halvings(size: tuple[int, int], network_size: int) -> int:
    return max(0, (min(size) // network_size).bit_length() - 1)


def crop_and_resize(frame: Image, box: Box, network_size: int) -> Image:
    """Cut a box out and bring it to the network's square.

    Whole halvings average areas, which OpenCV does fast; what is left is linear, or an area average where one side
    still shrinks to less than half.

    Args:
        frame: (H, W, 3).
        box: From `crop_box`.
        network_size: S.

    Returns:
        (S, S, 3); a view of the frame where nothing had to be done.
    """
    part = frame[box.top : box.top + box.height, box.left : box.left + box.width]
    for _ in range(_halvings((box.width, box.height), network_size)):
        half = (part.shape[1] // 2, part.shape[0] // 2)
        part = _u8(cv2.resize(part, half, interpolation=cv2.INTER_AREA))
    height, width = part.shape[:2]
    if (width, height) == (network_size, network_size):
        return part
    target = (network_size, network_size)
    if max(width, height) < 2 * network_size:
        return _u8(cv2.resize(part, target, interpolation=cv2.INTER_LINEAR))
    # INTER_AREA is exact only for a side that shrinks; the other side comes after.
    shrunk = (min(width, network_size), min(height, network_size))
    part = _u8(cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA))
    return _u8(cv2.resize(part, target, interpolation=cv2.INTER_LINEAR) if shrunk != target else part)


def decode_frame(data: bytes | memoryview, out: Image, where: str) -> None:
    """Decode a JPEG or PNG into (H, W, 3) RGB memory.

    Raises:
        FormatError: The bytes are no image of that size.
    """
    if simplejpeg is not None and bytes(data[:2]) == _JPEG_MAGIC:
        try:
            decoded = simplejpeg.decode_jpeg(data, buffer=out)
        except ValueError as error:
            raise FormatError("JPEG cannot be decoded", where=where, found=error) from error
        if decoded.shape != out.shape:
            raise FormatError("Frame has another size", where=where, expected=out.shape, found=decoded.shape)
        return
    flags = (
        cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )  # a tag must not turn a frame away from its camera
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if bgr is None or bgr.shape != out.shape:
        found = None if bgr is None else bgr.shape
        raise FormatError("Frame cannot be decoded", where=where, expected=out.shape, found=found)
    cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=out)


def paint(frames: Image, box: Box, look: Look, planes: Image) -> NDArray[np.float32] | None:
    """Make the network's frames: crop, resize, recolour, blur.

    Contrast turns about the clip's mean grey, the same for all frames, so that nothing flickers.

    Args:
        frames: (T, H, W, 3) stored.
        box: From `crop_box`.
        look: What was drawn.
        planes: (T, 3, S, S), written.

    Returns:
        The colour matrix, None where colours stay.
    """
    matrix = None
    if changes_colour(look):
        some = frames[::6, box.top : box.top + box.height : 8, box.left : box.left + box.width : 8]
        matrix = colour_matrix(look, float(some.reshape(-1, 3).mean(axis=0, dtype=np.float64) @ _LUMA))
    for frame, out in zip(frames, planes, strict=True):
        square = crop_and_resize(frame, box, planes.shape[-1])
        square = square if matrix is None else recolour(square, matrix)
        square = blur(square, look.blur_sigma) if look.blur_sigma else square
        cv2.split(square, list(out))
    return matrix


def colour_matrix(look: Look, grey: float) -> NDArray[np.float32]:
    """Join brightness, contrast, saturation and hue, in this order, to one affine map of 0-255 colours.

    Args:
        look: What was drawn.
        grey: The clip's mean luma before, about which contrast turns.

    Returns:
        (3, 4) float32.
    """
    turn = 2 * math.pi * look.hue
    rotation = np.eye(3)
    rotation[1:, 1:] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    hue = np.linalg.inv(_YIQ_FROM_RGB) @ rotation @ _YIQ_FROM_RGB
    saturation = look.saturation * np.eye(3) + (1 - look.saturation) * np.ones((3, 1)) * _LUMA
    linear = saturation @ hue
    gain = look.contrast * look.brightness
    offset = (1 - look.contrast) * look.brightness * grey
    return np.concatenate([linear * gain, (linear @ np.full(3, offset))[:, None]], axis=1).astype(np.float32)


def changes_colour(look: Look) -> bool:
    """Tell whether `colour_matrix` is not the identity."""
    return (look.brightness, look.contrast, look.saturation, look.hue) != (1.0, 1.0, 1.0, 0.0)


def recolour(image: Image, matrix: NDArray[np.float32]) -> Image:
    """Apply a colour matrix to (H, W, 3); values are rounded and kept in 0-255."""
    return _u8(cv2.transform(image, matrix))


def recolour_patches(patches: Image, matrix: NDArray[np.float32]) -> Image:
    """Apply a colour matrix to (N, 3, P, P)."""
    last = np.ascontiguousarray(np.moveaxis(patches, 1, -1))
    flat = recolour(last.reshape(len(last), -1, 3), matrix)
    return np.ascontiguousarray(np.moveaxis(flat.reshape(last.shape), -1, 1))


def blur(image: Image, sigma: float) -> Image:
    """Blur (H, W, 3) with a Gaussian cut at three sigma."""
    side = 2 * math.ceil(3 * sigma) + 1
    return _u8(cv2.GaussianBlur(image, (side, side), sigma))


def _u8(image: object) -> Image:
    return np.asarray(image, np.uint8)
