"""How hard a clip is to follow, measured on a fixed set of its own tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind, Visibility
from datakit.scene import Scene, View

from .layout import DIFFICULTY

Float = NDArray[np.float64]

#: Frames of a clip from which tracks start, evenly spread.
_SOURCES = 4
_GOLDEN = 0.6180339887498949
#: Kinds of motion that give tracks with displacement.
MOVING = (MotionKind.RIGID, MotionKind.POINTS)


def measure_difficulty(scene: Scene, view: View, frames: Sequence[int], num_tracks: int) -> dict[str, Any]:
    """Follow a few fixed points through all frames of a clip.

    Args:
        scene: Open scene.
        view: The view.
        frames: Frames of the clip, ascending.
        num_tracks: How many points, spread over four source frames and over the pixels of known depth.

    Returns:
        Arrays over the K <= num_tracks points, NaN where nothing is known:

        * "difficulty_uv" (K, 3) float64: frame of the clip, u, v on the source's colour grid;
        * "difficulty_motion": farthest way from the start in the world, in depths of the source pixel;
        * "difficulty_occlusion": longest run of frames in which it is known to be occluded;
        * "difficulty_reappearance": how often it comes back into sight after being occluded or outside;
        * "difficulty_parallax": largest angle in degrees between the rays from two cameras to where it started.
    """
    clip = np.asarray(frames, np.int64)
    num_frames = len(clip)
    uv, at_src = _points(scene, view, clip, num_tracks)
    count = len(uv)
    tracks = scene.track(
        view.name,
        np.repeat(uv, num_frames, axis=0),
        np.repeat(clip[at_src], num_frames),
        np.tile(clip, count),
    )
    points = tracks.points_world.reshape(count, num_frames, 3)
    state = tracks.state.reshape(count, num_frames)
    z = tracks.z_depth.reshape(count, num_frames)
    own = (np.arange(count), at_src)
    out = {
        "difficulty_uv": np.concatenate([at_src[:, None], uv], axis=1),
        "difficulty_motion": _largest(np.linalg.norm(points - points[own][:, None], axis=-1)) / z[own],
        "difficulty_occlusion": _longest_run(state == Visibility.OCCLUDED),
        "difficulty_reappearance": _comebacks(state),
        "difficulty_parallax": _parallax(view.world_from_cam[clip], points[own]),
    }
    for name in ("occlusion", "reappearance"):
        out[f"difficulty_{name}"][~np.isfinite(points[own]).all(axis=-1)] = np.nan
    return out


def summarise_difficulty(arrays: dict[str, Any]) -> dict[str, float | None]:
    """Give the mean of each measure over the points where it is known; None where it nowhere is."""
    out: dict[str, float | None] = {}
    for name in DIFFICULTY:
        values = arrays[f"difficulty_{name}"]
        known = values[np.isfinite(values)]
        out[name] = float(f"{known.mean():.6g}") if len(known) else None
    return out


def _points(
    scene: Scene, view: View, clip: NDArray[np.int64], num_tracks: int
) -> tuple[Float, NDArray[np.int64]]:
    """Choose pixels (uv on the colour grid) and their places in the clip: half on what can move, if anything can."""
    first = int(clip[0])
    sources = np.unique(np.linspace(first, first + len(clip) - 1, _SOURCES).round().astype(np.int64)) - first
    ends = np.linspace(0, num_tracks, len(sources) + 1).round().astype(np.int64)
    moving = np.array([i for i, kind in _kinds(scene) if kind in MOVING], np.uint32)
    uv, at_src = [np.zeros((0, 2))], [np.zeros(0, np.int64)]
    for source, begin, end in zip(sources.tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        t = int(clip[source])
        z_depth, labels = view.z_depth(t), view.instances(t)
        numbers = np.arange(begin, end)
        on_moving = np.zeros(0, np.int64)
        if len(moving) and labels is not None:
            on_moving = np.flatnonzero(np.isin(labels, moving))
        half = len(numbers) // 2 if len(on_moving) else 0
        known = np.flatnonzero(np.isfinite(z_depth)) if z_depth is not None else on_moving
        for layer, pixels, chosen in (
            ("instances", on_moving, numbers[:half]),
            ("z_depth", known, numbers[half:]),
        ):
            if len(pixels) and len(chosen):
                at = pixels[((chosen + 0.5) * _GOLDEN % 1.0 * len(pixels)).astype(np.int64)]
                uv.append(_on_colour_grid(view, layer, at, t))
                at_src.append(np.full(len(at), source))
    return np.concatenate(uv), np.concatenate(at_src)


def _kinds(scene: Scene) -> list[tuple[int, int]]:
    motion = scene.motion
    return list(zip(motion.instance_ids.tolist(), motion.instance_motion.tolist(), strict=True))


def _on_colour_grid(view: View, layer: str, pixels: NDArray[np.int64], t: int) -> Float:
    """Centres of a layer's pixels, given by raster number, on the colour grid."""
    row, col = np.divmod(pixels, view.layer_size(layer)[0])
    colour_from_layer = view.intrinsics[t] @ np.linalg.inv(view.layer_intrinsics(layer)[t])
    return g.homography_points(colour_from_layer, np.stack([col, row], axis=-1) + 0.5)


def _largest(values: Float) -> Float:
    """Largest known value of each row, NaN where none is."""
    known = np.isfinite(values)
    return np.where(known.any(axis=1), np.where(known, values, -np.inf).max(axis=1, initial=-np.inf), np.nan)


def _longest_run(flags: NDArray[np.bool_]) -> Float:
    run = longest = np.zeros(len(flags))
    for column in flags.T:
        run = (run + 1) * column
        longest = np.maximum(longest, run)
    return longest


def _comebacks(state: NDArray[np.uint8]) -> Float:
    """Count visible -> occluded or outside -> visible; unknown frames in between change nothing."""
    count, was_seen, is_lost = (np.zeros(len(state)) for _ in range(3))
    for column in state.T:
        is_seen = column == Visibility.VISIBLE
        count += is_seen & (is_lost > 0)
        is_lost = np.where(is_seen, 0, is_lost)
        was_seen = np.maximum(was_seen, is_seen)
        is_lost = np.where(
            np.isin(column, (Visibility.OCCLUDED, Visibility.OUTSIDE)) & (was_seen > 0), 1, is_lost
        )
    return count


def _parallax(world_from_cam: Float, points_world: Float) -> Float:
    rays = world_from_cam[None, :, :3, 3] - points_world[:, None]
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    cosine = np.einsum("kid,kjd->kij", rays, rays).reshape(len(points_world), len(world_from_cam) ** 2)
    return np.degrees(np.arccos(np.clip(-_largest(-cosine), -1, 1)))
