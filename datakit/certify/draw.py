"""Draw the points of a frame pair: static ones, and ones on rigid instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit.motion import MotionKind

from .frames import FrameData
from .judge import Context
from .pairs import PairData, Points, kind_of
from .raster import Float, is_smooth, neighbourhood
from .sampling import FramePair, centres, draw_pixels

#: Depth of neighbouring frames at the same pixel may differ by this share and still be one surface.
_SAME_SURFACE = 0.03


@dataclass(frozen=True)
class PairSample:
    """A frame pair with the points drawn on it."""

    data: PairData
    static: Points
    rigid: Points
    number: int


def draw_pair(context: Context, pair: FramePair, number: int) -> PairSample:
    """Draw the points of a pair: a share for static ones and as many for rigid ones.

    Args:
        context: Frames, thresholds, seed.
        pair: Which frames.
        number: Running number of the pair, which also seeds the draw.

    Returns:
        The sample; empty where the frame has no such pixels or its clock has no sample.
    """
    source = context.frames.get(pair.view, pair.source)
    target = context.frames.get(pair.view_target, pair.target)
    motion = context.frames.scene.motion
    kinds = kind_of(motion, source.motion_rows(motion))
    has_clock = source.sample >= 0 and target.sample >= 0
    data = PairData(source, target, motion, pair.baseline)
    return PairSample(
        data,
        _points(context, source, number, kinds == MotionKind.STATIC),
        _points(context, source, number, (kinds == MotionKind.RIGID) & has_clock),
        number,
    )


def smooth_pixels(
    context: Context,
    frame: FrameData,
    count: int,
    number: int,
    among: NDArray[np.bool_] | None = None,
    bend: str = "max_bend",
) -> NDArray[np.int64]:
    """Draw pixels of a frame's depth grid that lie on one gently curved surface; (K, 2) in random order.

    Args:
        context: Thresholds and seed.
        frame: The frame.
        count: At most so many are looked at.
        number: Seeds the draw.
        among: (H, W) bool on the depth grid to draw from; None for all known pixels.
        bend: Name of the setting that says how gently.
    """
    rng = context.rng(2, number)
    known = np.isfinite(frame.inverse_depth)
    if among is not None:
        known &= among
    if min(known.shape) < 3:
        return np.empty((0, 2), np.int64)
    known[[0, -1]] = False
    known[:, [0, -1]] = False
    pixels = draw_pixels(known, count, rng)
    pixels = pixels[rng.permutation(len(pixels))]
    if not frame.is_sparse and len(pixels):
        patch = neighbourhood(frame.inverse_depth, pixels[:, 0], pixels[:, 1])
        pixels = pixels[is_smooth(patch, context.setting(bend), context.setting("max_step"))]
    return pixels


def pixels_by_motion(
    context: Context, frame: FrameData, kinds: Sequence[MotionKind], count: int, number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw smooth pixels of instances that move in given ways, evenly over instances.

    Returns:
        (K, 2) of (row, column) on the depth grid, and (K,) rows of the motion record.
    """
    motion = context.frames.scene.motion
    raster = frame.motion_rows(motion)
    among = np.isin(kind_of(motion, raster), kinds)
    pixels = smooth_pixels(context, frame, 6 * count, number, among)
    rows = raster[pixels[:, 0], pixels[:, 1]]
    chosen = spread(rows, np.arange(len(rows)), count)
    return pixels[chosen], rows[chosen]


def spread(rows: NDArray[np.int64], among: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Pick at most `count` of the indices `among`, as evenly over instances as they allow."""
    labels = np.unique(rows[among])
    if not len(labels):
        return among[:0]
    each = max(1, count // len(labels))
    return np.concatenate([among[rows[among] == label][:each] for label in labels])


def _points(context: Context, frame: FrameData, number: int, among: NDArray[np.bool_]) -> Points:
    count = int(context.setting("points_per_pair"))
    pixels = smooth_pixels(context, frame, 6 * count, number, among)
    rows = frame.motion_rows(context.frames.scene.motion)[pixels[:, 0], pixels[:, 1]]
    chosen = spread(rows, np.arange(len(rows)), count)
    at, mine = pixels[chosen], rows[chosen]
    inverse = frame.inverse_depth[at[:, 0], at[:, 1]]
    beside = [_neighbour_depth(context, frame, step, at, inverse) for step in (-1, 1)]
    is_rigid = kind_of(context.frames.scene.motion, mine) == MotionKind.RIGID
    return Points(centres(at), inverse, mine, is_rigid, *beside)


def _neighbour_depth(
    context: Context, frame: FrameData, step: int, pixels: NDArray[np.int64], inverse: Float
) -> Float:
    index = frame.neighbour_index(step)
    if index is None:
        return np.full(len(pixels), np.nan)
    other = context.frames.get(frame.view.name, index)
    value = other.inverse_depth[pixels[:, 0], pixels[:, 1]]
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(value / inverse - 1) <= _SAME_SURFACE, value, np.nan)


def join(parts: Sequence[Points]) -> Points:
    """Put points together."""
    return Points(*(np.concatenate([getattr(p, n) for p in parts]) for n in Points.__dataclass_fields__))
