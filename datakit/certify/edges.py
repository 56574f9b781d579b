"""Do depth and colour change at the same place? Sees their grids and clocks against each other.

A depth step between two pixels is the border of a thing, and colour mostly steps there too. Where colour lies off
by the same distance everywhere, grids are shifted; where it lies off in proportion to how fast the border moves,
the image is of another time. The first shows even in a single frame of a still scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit.motion import MotionKind

from .bias import Bias
from .certificate import NOT_TESTABLE, CheckResult, Measure, make_check
from .frames import FrameData
from .judge import Context, bias_measure, rival_measure
from .knobs import HALF_PIXEL_COLOUR, HALF_PIXEL_DEPTH, IMAGE_TIME, Knob
from .pairs import PairData, Points, Tweak, kind_of
from .raster import Float, gather, interpolate, stencil_at

#: Where colour steps are looked for, in colour pixels from a depth step.
_OFFSETS = np.arange(-3.0, 3.01, 0.25)
#: Half width of the window of the centroid around its own centre, px.
_REACH = 1.0
#: Lags that are tried, in frames, and the least speed of a border that tells them apart, px per frame.
_LAGS = np.array([-1.0, 0.0, 1.0])
_LEAST_SPEED = 0.7


@dataclass(frozen=True)
class Gathered:
    """One frame's colour steps along one axis: the summed profile and how many borders it has."""

    profile: Float
    count: int


class EdgeAlignment:
    """Where depth steps between two pixels, colour should step as well, neither left nor right, early nor late."""

    name = "edge_alignment"

    def __init__(self) -> None:
        self._by_axis: dict[str, list[Gathered]] = {"u": [], "v": []}
        self._shares: list[Float] = []
        self._num_moving = 0

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Gather colour steps around the depth steps of one frame."""
        if "rgb" not in frame.view.layers or frame.is_sparse:
            return
        shares, moving = np.zeros(len(_LAGS)), 0
        for axis, name in ((1, "u"), (0, "v")):
            at, near = depth_steps(frame.inverse_depth, axis, context.setting("edge_step"))
            most = int(context.setting("edges_per_frame"))
            if len(at) > most:
                chosen = np.sort(context.rng(6, number, axis).choice(len(at), most, replace=False))
                at, near = at[chosen], near[chosen]
            if not len(at):
                continue
            uv = frame.from_depth_grid("rgb", at)
            profile = colour_steps(frame.grey, uv, axis, _OFFSETS[None])
            profile = profile[np.isfinite(profile).all(axis=1)]
            self._by_axis[name].append(Gathered(profile.sum(axis=0), len(profile)))
            speed = _speeds(context, frame, near)[:, 1 - axis]
            moves = np.abs(np.nan_to_num(speed)) >= _LEAST_SPEED
            # An image that is a frame late shows a border where the border will be one frame later.
            steps = colour_steps(frame.grey, uv[moves], axis, speed[moves, None] * _LAGS)
            steps = steps[np.isfinite(steps).all(axis=1)]
            # As shares, so that strong colour steps do not outvote the others; noise of 5 grey levels has no say.
            shares += (steps / (steps.sum(axis=1, keepdims=True) + 25.0)).sum(axis=0)
            moving += len(steps)
        if moving:
            self._shares.append(shares)
            self._num_moving += moving

    def finish(self, context: Context) -> CheckResult:
        """Judge all frames."""
        if not any(self._by_axis.values()):
            return make_check(self.name, (), "no depth steps in colour images")
        measures = [self._offset(context, axis) for axis in self._by_axis]
        return make_check(self.name, [*measures, self._lag(context)])

    def _offset(self, context: Context, axis: str) -> Measure:
        knob = Knob(f"offset_{axis}", "px", lambda _: Tweak(), 0.0, (HALF_PIXEL_COLOUR, HALF_PIXEL_DEPTH))
        frames = self._by_axis[axis]
        count = sum(frame.count for frame in frames)
        total = np.sum([frame.profile for frame in frames], axis=0) if frames else np.zeros_like(_OFFSETS)
        if count < context.setting("min_edges") or len(frames) < 2:
            return _untested(context, self.name, knob, count, "too few depth steps")
        if total.max() < context.setting("least_edge_contrast") * np.median(total):
            return _untested(context, self.name, knob, count, "colours do not step where depth does")
        left_out = np.array([profile_offset(total - frame.profile) for frame in frames])
        # Frames of one clip show the same things, so their shading errs alike and the spread is too small.
        error = np.hypot(_jackknife(left_out), context.setting("edge_floor"))
        return bias_measure(context, self.name, knob, Bias(profile_offset(total), float(error), count))

    def _lag(self, context: Context) -> Measure:
        # What a lag leaves unexplained of a frame's colour steps.
        shares = np.array(self._shares)
        costs = shares.sum(axis=1, keepdims=True) - shares if len(shares) else shares
        return rival_measure(context, self.name, "lag", costs, (-1, 0, 1), self._num_moving, (IMAGE_TIME,))


def _untested(context: Context, check: str, knob: Knob, count: int, reason: str) -> Measure:
    limit = context.limit(check, knob.name)
    return Measure(
        knob.name, knob.unit, None, NOT_TESTABLE, limit.warn, limit.fail, count, reason=reason, sees=knob.sees
    )


def _jackknife(left_out: Float) -> float:
    return float(np.sqrt((len(left_out) - 1) / len(left_out) * ((left_out - left_out.mean()) ** 2).sum()))


def depth_steps(inverse_depth: Float, axis: int, step: float) -> tuple[Float, Float]:
    """Find borders between neighbouring pixels where depth steps, and where it does not step just beside.

    Args:
        inverse_depth: (H, W), NaN unknown.
        axis: 1 for neighbours in a row, 0 for neighbours in a column.
        step: Least step as a share of depth.

    Returns:
        (N, 2) midpoints of the borders and (N, 2) centres of the nearer of the two pixels, corner-origin pixels of
        the depth grid.
    """
    w = inverse_depth if axis == 1 else inverse_depth.T
    with np.errstate(invalid="ignore", divide="ignore"):
        jump = np.abs(np.diff(w, axis=1)) / np.minimum(w[:, 1:], w[:, :-1])
        here = jump > step
        # A lone step: a thin object has its other side nearby, whose colour step would be mistaken for this one's.
        calm = jump < step / 3
    for shift in (1, 2, 3):
        here[:, shift:] &= calm[:, :-shift]
        here[:, :-shift] &= calm[:, shift:]
        here[:, :shift] = here[:, -shift:] = False
    row, col = np.nonzero(here)
    right_is_near = w[row, col + 1] > w[row, col] if len(row) else np.zeros(0, dtype=bool)
    border = np.stack([col + 1.0, row + 0.5], axis=1)
    near = np.stack([col + 0.5 + right_is_near, row + 0.5], axis=1)
    return (border, near) if axis == 1 else (border[:, ::-1], near[:, ::-1])


def colour_steps(grey: NDArray[np.float32], uv_px: Float, axis: int, offsets: Float) -> Float:
    """Return squared differences of grey values one pixel apart, at offsets (N or 1, K) from positions, (N, K)."""
    direction = np.array([1.0, 0.0]) if axis == 1 else np.array([0.0, 1.0])
    out = []
    for k in range(offsets.shape[1]):
        high, low = (_at(grey, uv_px + (offsets[:, k, None] + half) * direction) for half in (0.5, -0.5))
        out.append((high - low) ** 2)
    return np.stack(out, axis=1)


def profile_offset(profile: Float) -> float:
    """Locate the peak of a profile over `_OFFSETS`: the centroid, above the profile's floor, about itself."""
    height = np.maximum(profile - np.median(profile), 0.0)
    centre = float(_OFFSETS[np.argmax(height)])
    for _ in range(20):
        weight = height * np.clip(1.25 - np.abs(_OFFSETS - centre) / _REACH, 0.0, 1.0)
        if not weight.sum() > 0:
            return centre
        centre = float((weight * _OFFSETS).sum() / weight.sum())
    return centre


def _speeds(context: Context, frame: FrameData, near_px: Float) -> Float:
    """Return how surfaces at pixel centres of the depth grid move on the colour grid, (N, 2) px per frame.

    NaN where their motion is not known or the frame has no neighbour in time.
    """
    out = np.full((len(near_px), 2), np.nan)
    scene = context.frames.scene
    for step in (1, -1):
        index = frame.neighbour_index(step)
        if index is None or not frame.view.pose_is_known[index]:
            continue
        other = context.frames.get(frame.view.name, index)
        pixels = np.floor(near_px).astype(np.int64)
        rows = frame.motion_rows(scene.motion)[pixels[:, 1], pixels[:, 0]]
        kinds = kind_of(scene.motion, rows)
        has_clock = frame.sample >= 0 and other.sample >= 0
        moves = (kinds == MotionKind.STATIC) | ((kinds == MotionKind.RIGID) & has_clock)
        inverse = frame.inverse_depth[pixels[:, 1], pixels[:, 0]]
        none = np.full(len(near_px), np.nan)
        points = Points(near_px, inverse, rows, kinds == MotionKind.RIGID, none, none).take(moves)
        prediction = PairData(frame, other, scene.motion, 1).predict(points)
        out[moves] = step * (prediction.uv_colour - prediction.uv_colour_source)
        return out
    return out


def _at(image: NDArray[np.float32], uv_px: Float) -> Float:
    stencil = stencil_at(uv_px, image.shape[::-1])
    return interpolate(stencil, gather(stencil, image))
