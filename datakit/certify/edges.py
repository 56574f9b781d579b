"""Do depth and colour change at the same place? Sees their grids against each other, even in a single frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .certificate import NOT_TESTABLE, PASS, CheckResult, Measure, make_check
from .frames import FrameData
from .judge import Context, upper_verdict
from .knobs import HALF_PIXEL_COLOUR
from .raster import Float, gather, interpolate, stencil_at

#: Where colour steps are looked for, in colour pixels from a depth step.
_OFFSETS = np.arange(-2.0, 2.01, 0.25)
#: Window of the centroid around its own centre.
_REACH = 1.0


class EdgeAlignment:
    """Where depth steps between two pixels, colour should step as well, on average neither left nor right of it."""

    name = "edge_alignment"

    def __init__(self) -> None:
        self._profiles: dict[str, list[Float]] = {"u": [], "v": []}
        self._counts = {"u": 0, "v": 0}

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Gather colour steps around the depth steps of one frame."""
        if "rgb" not in frame.view.layers or frame.is_sparse:
            return
        grey = frame.grey
        inverse = frame.inverse_depth
        for axis, name in ((1, "u"), (0, "v")):
            at = depth_steps(inverse, axis, context.setting("edge_step"))
            most = int(context.setting("edges_per_frame"))
            if len(at) > most:
                at = at[np.sort(context.rng(6, number, axis).choice(len(at), most, replace=False))]
            if not len(at):
                continue
            profile = colour_steps(grey, frame.from_depth_grid("rgb", at), axis)
            profile = profile[np.isfinite(profile).all(axis=1)]
            if len(profile):
                self._profiles[name].append(profile.sum(axis=0))
                self._counts[name] += len(profile)

    def finish(self, context: Context) -> CheckResult:
        """Judge all frames."""
        if not any(self._counts.values()):
            return make_check(self.name, (), "no depth steps in colour images")
        return make_check(self.name, [self._judge(context, name) for name in self._profiles])

    def _judge(self, context: Context, name: str) -> Measure:
        limit = context.limit(self.name, f"offset_{name}")
        profiles, count = self._profiles[name], self._counts[name]
        value, error, reason = 0.0, np.inf, "too few depth steps"
        if count >= context.setting("min_samples") and len(profiles) > 1:
            total = np.sum(profiles, axis=0)
            value = profile_offset(total)
            left_out = np.array([profile_offset(total - p) for p in profiles])
            spread = ((left_out - left_out.mean()) ** 2).sum()
            jackknife = np.sqrt((len(profiles) - 1) / len(profiles) * spread)
            # Frames of one clip show the same things, so their shading errs alike and the spread is too small.
            error = float(np.hypot(jackknife, context.setting("edge_floor")))
            reason = f"depth and colour edges agree only to {error:.2g} px"
            if total.max() < context.setting("least_edge_contrast") * np.median(total):
                error, reason = np.inf, "colours do not step where depth does"
        assert limit.fail is not None
        if not 3 * error <= limit.fail:
            return Measure(
                f"offset_{name}", limit.unit, None, NOT_TESTABLE, limit.warn, limit.fail, count,
                error if np.isfinite(error) else None, {}, reason, (HALF_PIXEL_COLOUR,),
            )
        verdict = upper_verdict(abs(value), limit)
        reason = "" if verdict == PASS else f"colour lies {value:+.2g} px from depth"
        return Measure(
            f"offset_{name}", limit.unit, value, verdict, limit.warn, limit.fail, count, error, {}, reason,
            (HALF_PIXEL_COLOUR,),
        )


def depth_steps(inverse_depth: Float, axis: int, step: float) -> Float:
    """Find borders between neighbouring pixels where depth steps, and where it does not step just beside.

    Args:
        inverse_depth: (H, W), NaN unknown.
        axis: 1 for neighbours in a row, 0 for neighbours in a column.
        step: Least step as a share of depth.

    Returns:
        (N, 2) positions of the borders' midpoints, corner-origin pixels of the depth grid.
    """
    w = inverse_depth if axis == 1 else inverse_depth.T
    with np.errstate(invalid="ignore", divide="ignore"):
        jump = np.abs(np.diff(w, axis=1)) / np.minimum(w[:, 1:], w[:, :-1])
        here = jump > step
        # A lone step: a thin object has its other side nearby, whose colour step would be mistaken for this one's.
        calm = jump < step / 3
    alone = here.copy()
    for shift in (1, 2, 3):
        alone[:, shift:] &= calm[:, :-shift]
        alone[:, :-shift] &= calm[:, shift:]
        alone[:, :shift] = alone[:, -shift:] = False
    row, col = np.nonzero(alone)
    along, across = col + 1.0, row + 0.5
    return np.stack([along, across] if axis == 1 else [across, along], axis=1)


def colour_steps(grey: Float, uv_px: Float, axis: int) -> Float:
    """Return squared differences of grey values one pixel apart, at `_OFFSETS` from positions, (N, K)."""
    direction: NDArray[np.float64] = np.array([1.0, 0.0]) if axis == 1 else np.array([0.0, 1.0])
    out = []
    for offset in _OFFSETS:
        high, low = (_at(grey, uv_px + (offset + half) * direction) for half in (0.5, -0.5))
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


def _at(image: Float, uv_px: Float) -> Float:
    stencil = stencil_at(uv_px, image.shape[::-1])
    return interpolate(stencil, gather(stencil, image))
