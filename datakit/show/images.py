"""Rasters to small browser images. Unknown pixels are hatched, so that they are never taken for a value."""

from __future__ import annotations

import base64
import io
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

U8 = NDArray[np.uint8]
Sample = TypeVar("Sample", bound=np.generic)

#: A palette image has 256 entries: two greys hatch the unknown, the rest are values.
NUM_LEVELS = 254
_HATCH_CODES = (254, 255)
_HATCH_GREYS = (112, 144)
_HATCH_PERIOD = 8
BACKGROUND_RGB = (38, 42, 51)


def fit_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Give the (W, H) with the given long side, never larger than the input.

    >>> fit_size((640, 480), 320), fit_size((64, 48), 320)
    ((320, 240), (64, 48))
    """
    width, height = size
    factor = min(1.0, long_side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def pick_nearest(raster: NDArray[Sample], size: tuple[int, int]) -> NDArray[Sample]:
    """Resize (H, W, ...) to (W, H) by taking samples, so that no value is invented between two surfaces."""
    height, width = raster.shape[:2]
    if (width, height) == size:
        return raster
    cols = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(np.intp)
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(np.intp)
    return raster[rows[:, None], cols]


def viridis() -> U8:
    """(NUM_LEVELS, 3) RGB of the perceptually uniform map that depth is shown in."""
    ramp = np.linspace(0, 255, NUM_LEVELS).round().astype(np.uint8)
    return np.asarray(cv2.applyColorMap(ramp[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1], np.uint8)


def instance_colours(count: int) -> U8:
    """(count, 3) RGB, distinct; row 0 is the background. Depends on nothing but the row.

    >>> len(np.unique(instance_colours(254), axis=0))
    254
    """
    rows = np.arange(count)
    # Steps of the golden ratio keep neighbouring rows far apart on the hue circle.
    hue = (rows * 0.618033988749895 + 0.04) % 1 * 360
    saturation = np.array([0.58, 0.74, 0.42])[rows % 3]
    value = np.array([1.0, 0.88, 0.94, 0.8])[rows // 3 % 4]
    hsv = np.stack([hue, saturation, value], axis=-1).astype(np.float32)
    rgb = np.round(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0] * 255).astype(np.uint8)
    rgb[:1] = BACKGROUND_RGB
    return rgb


def depth_levels(z: NDArray[np.floating], lo: float, hi: float, is_log: bool) -> NDArray[np.float64]:
    """Map z to [0, NUM_LEVELS - 1], clipped; NaN stays NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value, ends = np.asarray(z, np.float64), np.array([lo, hi])
        if is_log:
            value, ends = np.log(np.maximum(value, lo)), np.log(ends)
        return np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1) * (NUM_LEVELS - 1)


def depth_png(
    z_depth: NDArray[np.floating], size: tuple[int, int], lo: float, hi: float, is_log: bool
) -> bytes:
    """Palette PNG of a depth map, its code being the level; unknown depth is hatched.

    Args:
        z_depth: (H, W), scene units, NaN unknown.
        size: (W, H) to show.
        lo: Depth of the first colour.
        hi: Depth of the last colour.
        is_log: Whether colours are even in log z instead of z.
    """
    levels = depth_levels(pick_nearest(z_depth, size), lo, hi, is_log)
    return _palette_png(np.where(np.isfinite(levels), np.round(levels), -1).astype(np.int64), viridis())


def instances_png(ids: NDArray[np.integer], size: tuple[int, int], known_ids: NDArray[np.integer]) -> bytes:
    """Palette PNG of an instance map; ids that the motion record does not know are hatched.

    Args:
        ids: (H, W) instance ids.
        size: (W, H) to show.
        known_ids: (I,) sorted ids, id 0 first; the row of an id is its colour.
    """
    shown = pick_nearest(ids, size)
    rows = np.minimum(np.searchsorted(known_ids, shown), len(known_ids) - 1)
    codes = np.where(known_ids[rows] == shown, colour_rows(rows), -1)
    return _palette_png(codes, instance_colours(NUM_LEVELS))


def colour_rows(rows: NDArray[np.integer]) -> NDArray[np.integer]:
    """Row of the palette of each instance row; past the palette's end colours repeat, never the background's."""
    return np.where(rows > 0, 1 + (rows - 1) % (NUM_LEVELS - 1), 0)


def direction_rgb(vectors: NDArray[np.floating], size: tuple[int, int], lo: float) -> U8:
    """(H, W, 3) RGB of vectors whose components lie in [lo, 1]; unknown or zero vectors are hatched."""
    shown = pick_nearest(vectors, size).astype(np.float64)
    is_known = np.isfinite(shown).all(axis=-1) & (shown != 0).any(axis=-1)
    rgb = np.nan_to_num((shown - lo) / (1 - lo), nan=0.0)
    return _hatch(np.clip(np.round(rgb * 255), 0, 255).astype(np.uint8), is_known)


def flow_rgb(flow_px: NDArray[np.floating], size: tuple[int, int], longest: float) -> U8:
    """(H, W, 3) RGB on the colour wheel: hue is the direction, saturation the length up to `longest` px."""
    shown = pick_nearest(flow_px, size).astype(np.float64)
    is_known = np.isfinite(shown[..., 0] + shown[..., 1])
    flow = np.nan_to_num(shown)
    hue = np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    saturation = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / longest, 0, 1)
    hsv = np.stack([hue, saturation, np.ones_like(hue)], axis=-1).astype(np.float32)
    rgb = np.round(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)
    return _hatch(rgb, is_known)


def shrink_rgb(rgb: U8, size: tuple[int, int]) -> U8:
    """Resize colour by area."""
    if rgb.shape[1::-1] == size:
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def jpeg(rgb: U8, quality: int, full_chroma: bool) -> bytes:
    """Encode RGB; `full_chroma` keeps colour codes from bleeding."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if full_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), options)
    if not ok:
        raise ValueError(f"OpenCV cannot write a JPEG of shape {rgb.shape} {rgb.dtype}")
    return bytes(data)


def data_uri(data: bytes) -> str:
    """Wrap PNG or JPEG bytes as a data URI."""
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _hatch_pattern(height: int, width: int) -> NDArray[np.intp]:
    diagonal = np.add.outer(np.arange(height), np.arange(width))
    return (diagonal // (_HATCH_PERIOD // 2)) % 2


def _hatch(rgb: U8, is_known: NDArray[np.bool_]) -> U8:
    grey = np.asarray(_HATCH_GREYS, np.uint8)[_hatch_pattern(*is_known.shape)]
    return np.where(is_known[..., None], rgb, grey[..., None])


def _palette_png(codes: NDArray[np.integer], colours: U8) -> bytes:
    """Encode (H, W) codes; -1 is unknown."""
    hatch = np.asarray(_HATCH_CODES)[_hatch_pattern(*codes.shape)]
    image = Image.fromarray(np.where(codes < 0, hatch, codes).astype(np.uint8), mode="L")
    greys = np.repeat(np.array(_HATCH_GREYS, np.uint8)[:, None], 3, axis=1)
    palette = np.concatenate([colours[:NUM_LEVELS], greys])
    image.putpalette(palette.tobytes())
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=7)
    return out.getvalue()
