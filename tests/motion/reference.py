"""What the kernels of `datakit.motion` compute, in plain numpy and scipy: an independent oracle for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from datakit.geometry import invert_rigid, transform_points
from datakit.motion import DEPTH_TOLERANCE, MotionKind, Reason, Visibility
from datakit.motion.carry import instance_rows
from datakit.scene.records import MotionRecord

Float = NDArray[np.float64]

DEPTH_STEP, _LINEARITY, _STEEPEST = 0.05, 0.25, 0.3
_NEIGHBOURS, _MAX_SPACINGS = 8, 2.0


@dataclass(frozen=True)
class Quad:
    """The 2x2 pixel centres around N continuous pixels of a stack of rasters, and the pixel that contains each.

    Attributes:
        frame: (N,) int64, which raster of the stack.
        rows: (N, 4) int64, clamped to the raster.
        cols: (N, 4) int64, clamped.
        weights: (N, 4) float64 bilinear.
        row: (N,) int64 of the containing pixel.
        col: (N,) int64 of the containing pixel.
        offset: (N, 2) float64 (u, v) from the containing pixel's centre, in pixels.
        is_inside: (N,) bool, False where the pixel is off the raster (indices are clamped there).
    """

    frame: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    weights: Float
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    offset: Float
    is_inside: NDArray[np.bool_]


def quad_at(uv_px: Float, size: tuple[int, int], frame: NDArray[np.int64] | int = 0) -> Quad:
    """Find the pixels around continuous positions.

    Args:
        uv_px: (N, 2) corner origin; NaN counts as outside.
        size: (W, H).
        frame: (N,) or one index into the stack.

    >>> quad_at(np.array([[1.0, 0.5]]), (2, 1)).weights.tolist()
    [[0.5, 0.5, 0.0, 0.0]]
    """
    width, height = size
    u, v = uv_px[:, 0], uv_px[:, 1]
    is_inside: NDArray[np.bool_] = (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
    safe = np.where(is_inside[:, None], uv_px, 0.5)
    base = np.floor(safe - 0.5)
    frac = safe - 0.5 - base
    cols = np.stack([base[:, 0], base[:, 0] + 1] * 2, axis=1)
    rows = np.repeat(np.stack([base[:, 1], base[:, 1] + 1], axis=1), 2, axis=1)
    du, dv = frac[:, :1], frac[:, 1:]
    weights = np.concatenate([(1 - du) * (1 - dv), du * (1 - dv), (1 - du) * dv, du * dv], axis=1)
    row = np.clip(np.floor(safe[:, 1]), 0, height - 1).astype(np.int64)
    col = np.clip(np.floor(safe[:, 0]), 0, width - 1).astype(np.int64)
    return Quad(
        frame=np.broadcast_to(np.asarray(frame, np.int64), len(uv_px)),
        rows=np.clip(rows, 0, height - 1).astype(np.int64),
        cols=np.clip(cols, 0, width - 1).astype(np.int64),
        weights=weights,
        row=row,
        col=col,
        offset=safe - np.stack([col, row], axis=1) - 0.5,
        is_inside=is_inside,
    )


def is_one_surface(quad: Quad, z_depth: NDArray[Any], instances: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Tell which quads lie on one surface: all depths known, no depth step along any side, one instance.

    A large step is no edge where 1/z goes on changing at the same rate on one of its sides: planes are linear in
    1/z, and a floor seen at a grazing angle changes by more than `DEPTH_STEP` a pixel.

    Args:
        quad: N quads.
        z_depth: (T, H, W), NaN unknown.
        instances: (T, H, W), or None.

    Returns:
        (N,) bool.
    """
    frame = quad.frame[:, None]
    z = z_depth[frame, quad.rows, quad.cols]
    low = np.minimum(np.minimum(z[:, 0], z[:, 1]), np.minimum(z[:, 2], z[:, 3]))  # NaN if one is
    high = np.maximum(np.maximum(z[:, 0], z[:, 1]), np.maximum(z[:, 2], z[:, 3]))
    same: NDArray[np.bool_] = quad.is_inside & np.isfinite(low)
    if instances is not None:
        ids = instances[frame, quad.rows, quad.cols]
        first = ids[:, 0]
        same &= (ids[:, 1] == first) & (ids[:, 2] == first) & (ids[:, 3] == first)
    steep = np.flatnonzero(same & ~(high <= (1 + DEPTH_STEP) * low))
    same[steep] = _is_steep_surface(quad, z_depth, steep)
    return same


def _is_steep_surface(quad: Quad, z_depth: NDArray[Any], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    height, width = z_depth.shape[1:]
    reach = np.arange(-1, 3)
    rows = np.clip(quad.rows[at, :1] + reach, 0, height - 1)
    cols = np.clip(quad.cols[at, :1] + reach, 0, width - 1)
    rows[:, 1:3], cols[:, 1:3] = quad.rows[at][:, [0, 2]], quad.cols[at][:, [0, 1]]
    inverse = 1.0 / z_depth[quad.frame[at, None, None], rows[:, :, None], cols[:, None, :]].astype(np.float64)
    along_rows = _is_step_free(inverse[:, 1:3, :]).all(axis=1)
    down_columns = _is_step_free(np.swapaxes(inverse[:, :, 1:3], 1, 2)).all(axis=1)
    return np.asarray(along_rows & down_columns, dtype=np.bool_)


def _is_step_free(inverse_z: Float) -> NDArray[np.bool_]:
    """Judge the middle step of (..., 4) values of 1/z along a line."""
    before, step, after = np.moveaxis(np.diff(inverse_z, axis=-1), -1, 0)
    with np.errstate(invalid="ignore"):
        is_small = np.abs(step) <= DEPTH_STEP * np.minimum(inverse_z[..., 1], inverse_z[..., 2])
        deviation = np.fmin(np.abs(step - before), np.abs(step - after))
        goes_on = deviation <= _LINEARITY * np.abs(step)
    return np.asarray(is_small | goes_on, dtype=np.bool_)


def sample_z(quad: Quad, z_depth: NDArray[Any], smooth: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Read depth: 1/z bilinearly where `smooth`, else the containing pixel's surface extended; exact on planes.

    Args:
        quad: N quads.
        z_depth: (T, H, W), NaN unknown.
        smooth: (N,) from `is_one_surface`.

    Returns:
        z (N,) float64, NaN where unknown or off the raster; and how much depth changes over a pixel there, (N,).
    """
    z = np.full(len(smooth), np.nan)
    change = np.zeros(len(smooth))
    around = z_depth[quad.frame[smooth, None], quad.rows[smooth], quad.cols[smooth]].astype(np.float64)
    z[smooth] = 1.0 / (quad.weights[smooth] / around).sum(axis=1)
    change[smooth] = around.max(axis=1) - around.min(axis=1)
    rest = ~smooth & quad.is_inside
    z[rest], change[rest] = _extend_surface(quad, z_depth, rest)
    return z, change


def _extend_surface(quad: Quad, z_depth: NDArray[Any], at: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Extend the containing pixels' planes to the queries; slopes come from the flatter side, so not across edges."""
    height, width = z_depth.shape[1:]
    frame, row, col = quad.frame[at], quad.row[at], quad.col[at]

    def inverse(down: int, right: int) -> Float:
        rows, cols = np.clip(row + down, 0, height - 1), np.clip(col + right, 0, width - 1)
        value: Float = 1.0 / z_depth[frame, rows, cols].astype(np.float64)
        value[(rows != row + down) | (cols != col + right)] = np.nan
        return value

    here = inverse(0, 0)
    slopes = []
    for down, right in ((0, 1), (1, 0)):
        after, before = inverse(down, right) - here, here - inverse(-down, -right)
        flatter = np.where(np.abs(after) <= np.nan_to_num(np.abs(before), nan=np.inf), after, before)
        usable = np.abs(np.nan_to_num(flatter)) <= _STEEPEST * here
        slopes.append(np.where(usable, np.nan_to_num(flatter), 0.0))
    extended = here + slopes[0] * quad.offset[at, 0] + slopes[1] * quad.offset[at, 1]
    return 1.0 / extended, (np.abs(slopes[0]) + np.abs(slopes[1])) / here**2


def sample_vectors(quad: Quad, raster: NDArray[Any], smooth: NDArray[np.bool_]) -> Float:
    """Read (T, H, W, C) rasters: bilinearly where `smooth`, the containing pixel elsewhere.

    Returns:
        (N, C) float64, NaN off the raster.
    """
    value = raster[quad.frame, quad.row, quad.col].astype(np.float64)
    value[~quad.is_inside] = np.nan
    around = raster[quad.frame[smooth, None], quad.rows[smooth], quad.cols[smooth]].astype(np.float64)
    value[smooth] = (quad.weights[smooth][..., None] * around).sum(axis=1)
    return value


def depth_test(
    quad: Quad,
    z_point: Float,
    instance: NDArray[np.uint32],
    z_depth: NDArray[Any],
    instances: NDArray[Any] | None,
    depth_kind: str,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Compare points with the depth map around their projection.

    The tolerance is relative to z plus a quarter of the depth's local change, so that slanted surfaces do not
    occlude themselves. A point in front of everything observed contradicts the depth map: unknown, not visible.
    So is a point at a depth edge that is behind the pixel it falls in but fits the pixel beside it.

    Args:
        quad: Where N points project on the depth grid.
        z_point: (N,) their depth.
        instance: (N,) their instance id.
        z_depth: (T, H, W), NaN unknown.
        instances: (T, H, W) on the same grid, or None.
        depth_kind: Key of `DEPTH_TOLERANCE`.

    Returns:
        state (N,) `Visibility`, reason (N,) `Reason`.
    """
    around = z_depth[quad.frame[:, None], quad.rows, quad.cols].astype(np.float64)
    smooth = is_one_surface(quad, z_depth, instances)
    observed, change = sample_z(quad, z_depth, smooth)
    margin = DEPTH_TOLERANCE[depth_kind] * z_point + change / 4
    with np.errstate(invalid="ignore"):
        is_behind = z_point > observed + margin
        is_in_front = z_point < observed - margin
        # At a depth edge the containing pixel may show the far side while the point lies on the near one.
        agrees_nearby = (np.abs(around - z_point[:, None]) <= margin[:, None]).any(axis=1)
    contradicts = is_in_front & ~agrees_nearby
    is_at_edge = is_behind & agrees_nearby & ~smooth
    is_other = np.zeros(len(z_point), dtype=bool)
    if instances is not None:
        is_other = (instances[quad.frame[:, None], quad.rows, quad.cols] != instance[:, None]).all(axis=1)
    state = np.full(len(z_point), Visibility.VISIBLE, np.uint8)
    reason = np.full(len(z_point), Reason.SEEN, np.uint8)
    for mask, new_state, new_reason in (
        (is_behind, Visibility.OCCLUDED, Reason.BEHIND_SURFACE),
        (is_at_edge, Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE),
        (is_other, Visibility.OCCLUDED, Reason.BEHIND_OTHER_INSTANCE),
        (contradicts, Visibility.UNKNOWN, Reason.TARGET_CONTRADICTS),
        (np.isnan(observed), Visibility.UNKNOWN, Reason.TARGET_NO_DEPTH),
    ):
        state[mask], reason[mask] = new_state, new_reason
    for n in range(len(z_point) if depth_kind == "lidar" else 0):
        if not quad.is_inside[n] or not _has_gap(quad, n, z_depth):
            continue
        found = _look_around(quad, n, float(z_point[n]), int(instance[n]), z_depth, instances)
        if reason[n] != Reason.SEEN:
            state[n], reason[n] = found
        elif found[0] == Visibility.OCCLUDED:
            state[n], reason[n] = Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE
    return state, reason


def _corner(quad: Quad, n: int) -> tuple[float, float, int, int]:
    """Position (v, u) of a point, and the upper left one of the 2x2 pixel centres around it."""
    v, u = quad.row[n] + 0.5 + quad.offset[n, 1], quad.col[n] + 0.5 + quad.offset[n, 0]
    return v, u, int(np.floor(v - 0.5)), int(np.floor(u - 0.5))


def _has_gap(quad: Quad, n: int, z_depth: NDArray[Any]) -> bool:
    """Whether the 4x4 around a point are not all known and alike; beyond the border the edge repeats."""
    _, _, top, left = _corner(quad, n)
    height, width = z_depth.shape[1:]
    rows, cols = (
        np.clip(top + np.arange(-1, 3), 0, height - 1),
        np.clip(left + np.arange(-1, 3), 0, width - 1),
    )
    z = z_depth[quad.frame[n]][np.ix_(rows, cols)]
    return not z.max() <= (1 + DEPTH_TOLERANCE["lidar"]) * z.min()


def _look_around(
    quad: Quad,
    n: int,
    z_point: float,
    instance: int,
    z_depth: NDArray[Any],
    instances: NDArray[Any] | None,
) -> tuple[int, int]:
    """Judge one point by the known depths around it: the rule of `visibility.depth_test` for lidar."""
    nothing = (Visibility.UNKNOWN, Reason.TARGET_NO_DEPTH)
    v, u, top, left = _corner(quad, n)
    top, left = top - 15, left - 15
    window = np.s_[quad.frame[n], max(top, 0) : top + 32, max(left, 0) : left + 32]
    z = z_depth[window].astype(np.float64)
    label = np.zeros(z.shape, int) if instances is None else instances[window]
    own = 0 if instances is None else instance
    known = np.isfinite(z)
    if not known.any():
        return nothing
    down = np.arange(max(top, 0), max(top, 0) + z.shape[0])[:, None] + 0.5 - v
    right = np.arange(max(left, 0), max(left, 0) + z.shape[1])[None] + 0.5 - u
    way = down**2 + right**2
    near, least = [], []
    for below in (False, True):
        for aside in (False, True):
            at = np.nonzero(
                known
                & (way <= 1.5**2 * z.size / known.sum())
                & ((down > 0) == below)
                & ((right > 0) == aside)
            )
            if not len(at[0]):
                return nothing
            near.append((z[at][np.argmin(way[at])], label[at][np.argmin(way[at])]))
            least.append((z[at].min(), label[at][np.argmin(z[at])]))
    low, high = min(near)[0], max(near)[0]
    margin = DEPTH_TOLERANCE["lidar"] * z_point + high - low
    before = max(least)[0]
    if before <= 1.25 * min(least)[0] and z_point > 1.25 * before:
        is_own = any(which == own for _, which in least)
        return Visibility.OCCLUDED, Reason.BEHIND_SURFACE if is_own else Reason.BEHIND_OTHER_INSTANCE
    if high > 1.25 * low:
        return Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE
    if z_point < low - margin:
        return Visibility.UNKNOWN, Reason.TARGET_CONTRADICTS
    if z_point <= high + margin and all(which == own for _, which in near):
        return Visibility.VISIBLE, Reason.SEEN
    return Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE


def carry_points(
    motion: MotionRecord,
    points_world: Float,
    instance: NDArray[np.uint32],
    m_src: NDArray[np.int64],
    m_tgt: NDArray[np.int64],
) -> tuple[Float, NDArray[np.uint8]]:
    """Move points that belong to instances from one sample of the motion clock to another.

    Args:
        motion: The scene's motion.
        points_world: (N, 3) at m_src.
        instance: (N,) instance ids.
        m_src: (N,) sample of the motion clock, -1 for none.
        m_tgt: (N,) likewise.

    Returns:
        points_world (N, 3) at m_tgt, NaN unknown; and reason (N,) `Reason`, SEEN where the motion is known.
    """
    rows = instance_rows(motion, instance)
    kind = np.where(rows >= 0, motion.instance_motion[rows], MotionKind.UNKNOWN)
    on_clock = (m_src >= 0) & (m_tgt >= 0)
    out = np.full_like(points_world, np.nan)
    reason = np.full(len(points_world), Reason.SEEN, np.uint8)

    static = kind == MotionKind.STATIC
    out[static] = points_world[static]

    rigid = (kind == MotionKind.RIGID) & on_clock
    pose = motion.world_from_instance
    tgt_from_src = pose[m_tgt[rigid], rows[rigid]] @ invert_rigid(pose[m_src[rigid], rows[rigid]])
    out[rigid] = transform_points(tgt_from_src, points_world[rigid])

    known = np.isfinite(points_world).all(axis=-1)
    along = np.flatnonzero((kind == MotionKind.POINTS) & on_clock & known)
    if along.size and motion.points_world is not None:
        out[along] = _carry_along(motion, points_world[along], instance[along], m_src[along], m_tgt[along])
    known_source = np.isfinite(points_world).all(axis=-1)
    lost = known_source & ~np.isfinite(out).all(axis=-1)
    no_track = (kind == MotionKind.POINTS) & on_clock
    reason[lost] = np.where(no_track[lost], Reason.NO_TRAJECTORY_NEAR, Reason.MOTION_UNKNOWN)
    return out, reason


def _carry_along(
    motion: MotionRecord,
    points_world: Float,
    instance: NDArray[np.uint32],
    m_src: NDArray[np.int64],
    m_tgt: NDArray[np.int64],
) -> Float:
    out = np.full_like(points_world, np.nan)
    for ident, sample in sorted({(int(i), int(m)) for i, m in zip(instance, m_src, strict=True)}):
        mine = (instance == ident) & (m_src == sample)
        out[mine] = _follow_neighbours(motion, points_world[mine], ident, sample, m_tgt[mine])
    return out


def _follow_neighbours(
    motion: MotionRecord, points_world: Float, ident: int, sample: int, m_tgt: NDArray[np.int64]
) -> Float:
    """Move points by the affine motion that best fits the trajectories around each of them."""
    tracks = motion.points_world[motion.point_instance == ident].astype(np.float64)
    out = np.full_like(points_world, np.nan)
    tracks = tracks[np.isfinite(tracks[:, sample]).all(axis=-1)]
    if len(tracks) < 2:
        return out
    tree = cKDTree(tracks[:, sample])
    count = min(_NEIGHBOURS, len(tracks))
    distance, nearest = tree.query(points_world, k=count)
    around = tracks[nearest, sample]
    apart = np.linalg.norm(around[:, :, None] - around[:, None], axis=-1) + np.diag(np.full(count, np.inf))
    spacing = np.sort(apart.min(axis=-1), axis=-1)[:, count // 2]
    for m in np.unique(m_tgt):
        at = np.flatnonzero((m_tgt == m) & (distance[:, 0] <= _MAX_SPACINGS * spacing))
        unit = np.maximum(spacing[at], 1e-12)
        src = tracks[nearest[at], sample]
        moved = tracks[nearest[at], m] - src
        use = np.isfinite(moved).all(axis=-1) & (distance[at] <= 2 * _MAX_SPACINGS * spacing[at, None])
        weight = use * np.exp(-0.5 * (distance[at] / unit[:, None]) ** 2)
        out[at] = points_world[at] + _local_affine(src, np.nan_to_num(moved), weight, points_world[at], unit)
    return out


def _local_affine(src: Float, moved: Float, weight: Float, at: Float, unit: Float) -> Float:
    """Fit displacement = a + B (x - at) / unit by weighted least squares; return a, NaN without support.

    Trajectories lie on a surface, so B is open along its normal; a small ridge leaves it zero there.
    """
    local = (src - at[:, None]) / unit[:, None, None]
    design = np.concatenate([np.ones_like(local[..., :1]), local], axis=-1)
    weighted = design * weight[..., None]
    normal = np.einsum("nki,nkj->nij", weighted, design)
    normal += np.diag([1e-12, 1e-4, 1e-4, 1e-4]) * np.maximum(weight.sum(axis=1), 1e-12)[:, None, None]
    right = np.einsum("nki,nkj->nij", weighted, moved)
    solution: Float = np.linalg.solve(normal, right)[:, 0]
    solution[weight.sum(axis=1) <= 0] = np.nan
    return solution
