"""Crop, resize and colour frames; the geometry of each step is exact in corner-origin pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

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
    """Cut a box out of (H, W, 3) and bring it to a square (S, S, 3); a view where nothing has to be resized."""
    part = frame[box.top : box.top + box.height, box.left : box.left + box.width]
    return part if part.shape[:2] == (network_size, network_size) else resize(part, network_size)


def resize(part: Image, network_size: int, out: Image | None = None) -> Image:
    """Bring a picture to a square of another size.

    Areas are averaged as often as both sides halve, so that nothing aliases; what is left is linear. An exact area
    average costs several times as much and is used only where one side still shrinks to less than half.

    Args:
        part: (H, W, 3).
        network_size: S.
        out: (S, S, 3) memory for the result; None for new memory.

    Returns:
        (S, S, 3).
    """
    target = (network_size, network_size)

    def resized(size: tuple[int, int], how: int) -> Image:
        return _u8(cv2.resize(part, size, out if size == target else None, interpolation=how))

    for _ in range(_halvings((part.shape[1], part.shape[0]), network_size)):
        part = resized((part.shape[1] // 2, part.shape[0] // 2), cv2.INTER_AREA)
    height, width = part.shape[:2]
    if max(width, height) >= 2 * network_size:
        # INTER_AREA is exact only for a side that shrinks; the other side comes after.
        part = resized((min(width, network_size), min(height, network_size)), cv2.INTER_AREA)
    return part if part.shape[:2] == target else resized(target, cv2.INTER_LINEAR)


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


def is_shown_as_stored(size: tuple[int, int], box: Box, look: Look, network_size: int) -> bool:
    """Tell whether the network sees stored frames (W, H) as they are."""
    is_whole = size == (network_size, network_size) == (box.width, box.height)
    return is_whole and not changes_colour(look) and not look.blur_sigma


def paint(frames: Image, box: Box, look: Look, video: Image) -> NDArray[np.float32] | None:
    """Make the network's frames: crop, resize, recolour, blur.

    Contrast turns about the clip's mean grey, the same for all frames, so that nothing flickers.

    Args:
        frames: (T, H, W, 3) stored.
        box: From `crop_box`.
        look: What was drawn.
        video: (T, S, S, 3), written; each last step writes to it directly.

    Returns:
        The colour matrix, None where colours stay.
    """
    size, matrix, sigma = video.shape[1], None, look.blur_sigma
    steps: list[Callable[[Image, Image], Image]] = []
    cropped = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.width, box.height) != (size, size):
        steps.append(lambda image, out: resize(image, size, out))
    if changes_colour(look):
        grey = float(cropped[::6, ::8, ::8].reshape(-1, 3).mean(axis=0, dtype=np.float64) @ _LUMA)
        colours = matrix = colour_matrix(look, grey)
        steps.append(lambda image, out: recolour(image, colours, out))
    if sigma:
        steps.append(lambda image, out: blur(image, sigma, out))
    between = np.empty((max(len(steps) - 1, 0), size, size, 3), np.uint8)
    for image, shown in zip(cropped, video, strict=True):
        for step, out in zip(steps or [_copy], [*between, shown], strict=True):
            image = step(image, out)
    return matrix


def _copy(image: Image, out: Image) -> Image:
    out[...] = image
    return out


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


def recolour(image: Image, matrix: NDArray[np.float32], out: Image | None = None) -> Image:
    """Apply a colour matrix to (H, W, 3); values are rounded and kept in 0-255."""
    return _u8(cv2.transform(image, matrix, out))


def recolour_patches(patches: Image, matrix: NDArray[np.float32]) -> Image:
    """Apply a colour matrix to (N, 3, P, P); the result has its colours innermost in memory."""
    last = np.ascontiguousarray(np.moveaxis(patches, 1, -1))
    flat = recolour(last.reshape(len(last), -1, 3), matrix)
    return np.moveaxis(flat.reshape(last.shape), -1, 1)


def blur(image: Image, sigma: float, out: Image | None = None) -> Image:
    """Blur (H, W, 3) with a Gaussian cut at three sigma.

    Two passes with a kernel of floats take half as long as `cv2.GaussianBlur`, which is exact to the bit.
    """
    kernel = _gaussian(sigma)
    return _u8(cv2.sepFilter2D(image, -1, kernel, kernel, out))


@lru_cache(1)
def _gaussian(sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F))


def _u8(image: object) -> Image:
    return np.asarray(image, np.uint8)
