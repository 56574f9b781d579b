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
from datakit.geometry import homography_points

from .clip_view import ClipView, Draw

Sampler = Callable[[ClipView, np.random.Generator, int], Draw]
Float = NDArray[np.float64]
Index = NDArray[np.int64]

#: Paper, section 4: share of queries near depth or motion boundaries, and of those with t_tgt = t_cam forced.
BOUNDARY_SHARE, SAME_TIME_SHARE = 0.3, 0.4
ANYWHERE, DEPTH_BOUNDARY, MOTION_BOUNDARY = 0, 1, 2
#: Draws per query before a pixel without depth is accepted.
_TRIES = 3


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
    shown = [(which, rows) for which, rows in sets if _shows_any(clip, rows)]
    uv = np.empty((count, 2))
    for (which, rows), at in zip(shown, np.array_split(wanted, max(len(shown), 1)), strict=False):
        uv[at], t_src[at] = _near(clip, rng, rows, len(at))
        kind[at] = which
    at = np.flatnonzero(kind == ANYWHERE)
    uv[at] = _anywhere(clip, rng, t_src[at])
    return Draw(uv, t_src, t_tgt, t_cam, kind)


def _anywhere(clip: ClipView, rng: np.random.Generator, t_src: Index) -> Float:
    """Draw pixels uniformly among those whose depth is known: queries exist only where there is truth.

    Sparse depth (lidar) would answer almost none of the pixels drawn blindly; what is still unknown after a few
    draws is taken from the list of known pixels of its frame.
    """
    uv = rng.random((len(t_src), 2)) * clip.size
    missing = np.flatnonzero(~_has_depth(clip, uv, t_src))
    for _ in range(_TRIES - 1):
        uv[missing] = rng.random((len(missing), 2)) * clip.size
        missing = missing[~_has_depth(clip, uv[missing], t_src[missing])]
    for t in np.unique(t_src[missing]):
        at = missing[t_src[missing] == t]
        rows, cols = np.nonzero(np.isfinite(clip.z_depth[t]))
        known = _to_network(clip, np.full(len(rows), t), rows + 0.5, cols + 0.5)
        known = known[clip.is_inside(known)]
        if len(known):
            uv[at] = known[rng.integers(len(known), size=len(at))]
    return uv


def _has_depth(clip: ClipView, uv_px: Float, t: Index) -> NDArray[np.bool_]:
    pixel = np.floor(homography_points(clip.depth_from_network[t], uv_px)).astype(np.int64)
    width, height = clip.depth_size
    col, row = np.clip(pixel[:, 0], 0, width - 1), np.clip(pixel[:, 1], 0, height - 1)
    inside = (pixel[:, 0] == col) & (pixel[:, 1] == row)
    return np.asarray(inside & np.isfinite(clip.z_depth[t, row, col]), dtype=np.bool_)


def _to_network(clip: ClipView, t: NDArray[Any], v: NDArray[Any], u: NDArray[Any]) -> Float:
    """Continuous depth pixels, given as v (down) and u (right), on the network grid."""
    return homography_points(clip.network_from_depth[t], np.stack([u, v], axis=-1))


def _shows_any(clip: ClipView, rows: NDArray[np.integer[Any]]) -> bool:
    # A few hundred boundary pixels nearly always settle it; only a crop beside all of them needs the rest.
    for part in (rows[:: max(1, len(rows) // 256)], rows):
        uv = _to_network(clip, part[:, 0], part[:, 1] + 0.5, part[:, 2] + 0.5)
        if clip.is_inside(uv).any():
            return True
    return False


def _near(
    clip: ClipView, rng: np.random.Generator, rows: NDArray[np.integer[Any]], count: int
) -> tuple[Float, Index]:
    """Draw boundary pixels that the crop shows, frames uniformly, and a place in each."""
    chosen = _pick(rng, rows, count)
    for _ in range(_TRIES):
        outside = np.flatnonzero(~_is_shown(clip, chosen))
        if not outside.size:
            break
        chosen[outside] = _pick(rng, rows, len(outside))
    else:
        outside = np.flatnonzero(~_is_shown(clip, chosen))
        if outside.size:
            chosen[outside] = _pick(rng, rows[_is_shown(clip, rows)], len(outside))
    place = chosen[:, 1:] + rng.random((count, 2))
    uv = _to_network(clip, chosen[:, 0], place[:, 0], place[:, 1])
    return np.clip(uv, 0, clip.size), chosen[:, 0].astype(np.int64)


def _is_shown(clip: ClipView, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    return clip.is_inside(_to_network(clip, rows[:, 0], rows[:, 1] + 0.5, rows[:, 2] + 0.5))


def _pick(rng: np.random.Generator, rows: NDArray[np.integer[Any]], count: int) -> NDArray[np.integer[Any]]:
    """Draw frames uniformly among those that have rows, then a row of the frame; rows are sorted by frame."""
    start = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    length = np.diff(start, append=len(rows))
    frame = rng.integers(len(start), size=count)
    return rows[start[frame] + (rng.random(count) * length[frame]).astype(np.int64)]
