"""Where the samples of downscaled TFDS configs sit.

The builder averages colour but picks every other layer at offset floor((step - 1) / 2)
(challenges/movi/movi_e.py:529), so that pixel (c, r) of a half-size layer was sampled at raster (c + .25, r +
.25). The record holds the target size only; the step is therefore measured, by projecting object coordinates
through the boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError, UsageError

Float = NDArray[np.float64]
#: Instance ids and object coordinates of a frame, or None where the clip lacks the layer.
ObjectPixels = Callable[[int], "tuple[NDArray[np.uint8], Float] | None"]

#: Rendered widths of the published sets (shared by A..E and panning E; F is 512).
PUBLISHED_SIZE = {"movi_f": 512}
_DEFAULT_PUBLISHED_SIZE = 256
_STEPS = (1, 2, 4, 8)
#: Pixels. Half of the gap between the two closest candidates, 3/8 and 7/16.
TOLERANCE = 0.03
_FRAMES_MEASURED = 5
_MIN_PIXELS = 50


@dataclass(frozen=True)
class Sampling:
    """How a config was downscaled.

    Attributes:
        step: Rendered size / stored size.
        how: "measured", "given" or "published".
        measured_px: Median offset of aux samples in their pixel (u, v), or None.
        num_pixels: How many pixels that median is over.
    """

    step: int
    how: str
    measured_px: tuple[float, float] | None = None
    num_pixels: int = 0

    @property
    def offset_px(self) -> float:
        """Where in its pixel an aux sample sits: .5 at full size, .25 at half, .375 at quarter size."""
        return ((self.step - 1) // 2 + 0.5) / self.step

    @property
    def shift_px(self) -> float:
        """Offset from the pixel's centre; add it to an aux pixel's centre to get colour-grid pixels."""
        return float(self.offset_px - 0.5)

    def as_metadata(self) -> dict[str, Any]:
        """Describe it for scene.metadata."""
        return {
            "step": self.step,
            "offset_px": float(self.offset_px),
            "how": self.how,
            "measured_px": None if self.measured_px is None else list(self.measured_px),
            "num_pixels": self.num_pixels,
        }


def choose_sampling(
    render_size: Literal["auto"] | int,
    size: tuple[int, int],
    dataset: str,
    object_pixels: ObjectPixels,
    intrinsics: Float,
    world_from_cam: Float,
    world_from_box: Float,
    where: str,
) -> Sampling:
    """Decide the downscaling step of a clip.

    Args:
        render_size: The parameter: rendered width in pixels, or "auto" to measure.
        size: (W, H) stored.
        dataset: TFDS name, for the published render size where nothing can be measured.
        object_pixels: Loader of a frame's ids and object coordinates.
        intrinsics: (3, 3) of the colour grid.
        world_from_cam: (T, 4, 4).
        world_from_box: (T, I, 4, 4), row = id.
        where: Record, for errors.

    Raises:
        UsageError: The given size is no whole multiple of the stored one.
        ConventionError: The measured offset is none that the builder produces.
    """
    if render_size != "auto":
        if render_size % size[0]:
            raise UsageError(
                "render_size is no whole multiple of the stored width.",
                where=where,
                expected=size[0],
                found=render_size,
            )
        return Sampling(render_size // size[0], "given")
    uv_in_pixel = _measure(object_pixels, intrinsics, world_from_cam, world_from_box)
    if len(uv_in_pixel) < _MIN_PIXELS:
        published = PUBLISHED_SIZE.get(dataset, _DEFAULT_PUBLISHED_SIZE)
        return Sampling(max(1, published // size[0]), "published", None, len(uv_in_pixel))
    median = np.median(uv_in_pixel, axis=0)
    candidates = [
        Sampling(step, "measured", (float(median[0]), float(median[1])), len(uv_in_pixel)) for step in _STEPS
    ]
    best = min(candidates, key=lambda c: float(np.abs(median - c.offset_px).max()))
    if np.abs(median - best.offset_px).max() > TOLERANCE:
        raise ConventionError(
            "Object coordinates do not project to where their pixels are sampled.",
            where=where,
            expected=f"one of {[float(c.offset_px) for c in candidates]} within {TOLERANCE} px",
            found=median.round(4).tolist(),
            mend="The layer or the poses are broken; set render_size to convert regardless.",
        )
    return best


def _measure(
    object_pixels: ObjectPixels, intrinsics: Float, world_from_cam: Float, world_from_box: Float
) -> Float:
    """Project object pixels of a few frames; return (N, 2) positions minus (column, row)."""
    num_frames = len(world_from_cam)
    found = [np.zeros((0, 2))]
    for t in np.unique(np.linspace(0, num_frames - 1, _FRAMES_MEASURED).astype(int)):
        pair = object_pixels(int(t))
        if pair is None:
            break
        ids, coords = pair
        rows, cols = np.nonzero((ids > 0) & (ids < world_from_box.shape[1]))
        points_world = g.transform_points(world_from_box[t, ids[rows, cols]], coords[rows, cols])
        uv, _ = g.project_points(
            g.transform_points(g.invert_rigid(world_from_cam[t]), points_world), intrinsics
        )
        offset = uv - np.stack([cols, rows], axis=-1)
        found.append(offset[np.isfinite(offset).all(axis=-1)])
    return np.concatenate(found)
