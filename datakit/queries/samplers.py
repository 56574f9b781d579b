"""Which questions to ask.

A sampler turns (clip, rng, N) into a `Draw`; third parties register their own under the entry-point group
`datakit.samplers`.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError
from datakit.motion.sampling import quad_at

from .clip_view import ClipView, Draw

Sampler = Callable[[ClipView, np.random.Generator, int], Draw]
Float = NDArray[np.float64]
Index = NDArray[np.int64]
Pixels = NDArray[np.integer[Any]]

#: Paper, section 4: share of queries near depth or motion boundaries, and of those with t_tgt = t_cam forced.
BOUNDARY_SHARE, SAME_TIME_SHARE = 0.3, 0.4
ANYWHERE, DEPTH_BOUNDARY, MOTION_BOUNDARY = 0, 1, 2
#: Pixels are drawn again as long as more than this share of the last draws hit known depth.
_WORTHWHILE = 0.1


def paper(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Draw as the D4RT paper does: exactly 30 % near boundaries, times uniform, t_tgt = t_cam for exactly 40 %.

    Boundary queries are shared evenly between depth and motion boundaries where the crop shows both. Where it
    shows none, they are drawn anywhere.
    """
    return _draw(clip, rng, count, BOUNDARY_SHARE)


def uniform(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Draw as `paper` does but without boundaries."""
    return _draw(clip, rng, count, 0.0)


def depth(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Ask for depth: all three times equal."""
    draw = _draw(clip, rng, count, BOUNDARY_SHARE)
    return Draw(draw.uv_px, draw.t_src, draw.t_src, draw.t_src, draw.kind)


def track(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Ask for point tracks: t_cam = t_tgt."""
    draw = _draw(clip, rng, count, BOUNDARY_SHARE)
    return Draw(draw.uv_px, draw.t_src, draw.t_tgt, draw.t_tgt, draw.kind)


def cloud(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Ask for a point cloud: t_tgt = t_src, one camera for the whole clip."""
    draw = _draw(clip, rng, count, BOUNDARY_SHARE)
    camera = np.full(count, rng.integers(clip.num_frames), np.int64)
    return Draw(draw.uv_px, draw.t_src, draw.t_src, camera, draw.kind)


def camera(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Ask for extrinsics: t_tgt = t_src on a jittered grid of pixels, any camera."""
    side = max(1, int(np.sqrt(count / clip.num_frames)))
    cell = rng.integers(side, size=(count, 2))
    uv = (cell + rng.random((count, 2))) / side * clip.size
    t_src, t_cam = rng.integers(clip.num_frames, size=(2, count))
    return Draw(uv, t_src, t_src, t_cam, np.zeros(count, np.uint8))


def difficult(clip: ClipView, rng: np.random.Generator, count: int) -> Draw:
    """Draw twice as many as `paper` and keep those that move more or get hidden more often.

    A query's weight is 1, plus its motion in the image relative to the clip's median (up to 4), plus 2 if it is
    occluded at t_tgt.
    """
    from .targets import answer

    many = _draw(clip, rng, 2 * count, BOUNDARY_SHARE)
    targets = answer(clip, many)
    moved = np.linalg.norm(targets["target_uv"] - many.uv_px / clip.size, axis=-1)
    moved = np.nan_to_num(moved / max(float(np.nanmedian(moved)) if np.isfinite(moved).any() else 1.0, 1e-6))
    hidden = targets["has_visible"] & ~targets["visible"] & targets["has_uv"]
    weight = 1 + np.minimum(moved, 4) + 2 * hidden
    keep = rng.choice(2 * count, count, replace=False, p=weight / weight.sum())
    return Draw(many.uv_px[keep], many.t_src[keep], many.t_tgt[keep], many.t_cam[keep], many.kind[keep])


SAMPLERS: dict[str, Sampler] = {
    "paper": paper,
    "uniform": uniform,
    "difficult": difficult,
    "depth": depth,
    "track": track,
    "cloud": cloud,
    "camera": camera,
}


def find_sampler(name: str) -> Sampler:
    """Look a sampler up by name, ours first, then installed ones.

    Raises:
        UsageError: No such sampler; near matches are named.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    installed = {entry.name: entry for entry in entry_points(group="datakit.samplers")}
    if name in installed:
        sampler: Sampler = installed[name].load()
        return sampler
    known = [*SAMPLERS, *installed]
    near = get_close_matches(name, known)
    raise UsageError(
        "Unknown query sampler",
        expected=", ".join(known),
        found=name,
        mend=f"did you mean {near[0]}?" if near else None,
    )


def _draw(clip: ClipView, rng: np.random.Generator, count: int, boundary_share: float) -> Draw:
    t_src, t_tgt, t_cam = rng.integers(clip.num_frames, size=(3, count))
    forced = rng.permutation(count)[: round(SAME_TIME_SHARE * count)]
    t_tgt[forced] = t_cam[forced]
    kind = np.full(count, ANYWHERE, np.uint8)
    wanted = rng.permutation(count)[: round(boundary_share * count)]
    sets = [(DEPTH_BOUNDARY, clip.boundary_depth), (MOTION_BOUNDARY, clip.boundary_motion)]
    found = [(which, *_shown(clip, rows)) for which, rows in sets if len(wanted)]
    found = [(which, rows, shown) for which, rows, shown in found if len(shown)]
    uv = np.empty((count, 2))
    for (which, rows, shown), at in zip(found, np.array_split(wanted, max(len(found), 1)), strict=False):
        uv[at], t_src[at] = _near(clip, rng, rows, shown, len(at))
        kind[at] = which
    at = np.flatnonzero(kind == ANYWHERE)
    uv[at] = _anywhere(clip, rng, t_src[at])
    return Draw(uv, t_src, t_tgt, t_cam, kind)


def _anywhere(clip: ClipView, rng: np.random.Generator, t_src: Index) -> Float:
    """Draw pixels uniformly among those whose depth is known: queries exist only where there is truth.

    Pixels are drawn blindly as long as that finds some. What sparse depth (lidar) leaves unanswered is taken from
    the list of known pixels of its frame.
    """
    uv = rng.random((len(t_src), 2)) * clip.size
    missing = np.flatnonzero(~_has_depth(clip, uv, t_src))
    found = len(t_src) - len(missing)
    while len(missing) and found > _WORTHWHILE * len(missing):
        uv[missing] = rng.random((len(missing), 2)) * clip.size
        is_missing = ~_has_depth(clip, uv[missing], t_src[missing])
        found = len(missing) - int(is_missing.sum())
        missing = missing[is_missing]
    for t in np.unique(t_src[missing]):
        at = missing[t_src[missing] == t]
        pixels = np.argwhere(np.isfinite(np.asarray(clip.z_depth[t])))
        rows, shown = _shown(clip, np.insert(pixels, 0, t, axis=1))
        if len(shown):
            uv[at], _ = _near(clip, rng, rows, shown, len(at))
    return uv


def _has_depth(clip: ClipView, uv_px: Float, t: Index) -> NDArray[np.bool_]:
    from .kernels import map_pixels

    quad = quad_at(map_pixels(clip.depth_from_network, t, uv_px), clip.depth_size, t)
    return np.asarray(quad.is_inside & np.isfinite(clip.z_depth[t, quad.row, quad.col]), np.bool_)


def _shown(clip: ClipView, rows: Pixels) -> tuple[Pixels, Index]:
    """Give depth pixels (B, 3: frame, row, column) for kernels, and which of them the crop shows."""
    from .kernels import find_shown

    pixels = np.ascontiguousarray(rows, rows.dtype if rows.dtype == np.int32 else np.int64)
    width, height = clip.size
    return pixels, find_shown(pixels, clip.network_from_depth, width, height)


def _near(
    clip: ClipView, rng: np.random.Generator, rows: Pixels, shown: Index, count: int
) -> tuple[Float, Index]:
    """Draw frames uniformly among those that have such pixels, then one of them and a place in it."""
    from .kernels import draw_near

    width, height = clip.size
    uv, t = draw_near(rows, shown, clip.network_from_depth, rng.random((count, 4)), width, height)
    return uv, t
