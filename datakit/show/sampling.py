"""What the report draws over time: sampled tracks and a point cloud, all through `Scene.track`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind
from datakit.scene import MotionRecord, Scene, View

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Sample = TypeVar("Sample", bound=np.generic)


@dataclass(frozen=True)
class ViewTracks:
    """N tracks of a view over its F shown frames.

    Attributes:
        source_slot: (N,) which shown frame the query pixel is in.
        instance: (N,) instance id under the query pixel.
        uv_px: (N, F, 2) colour-grid pixels, NaN unknown or behind the camera.
        points_world: (N, F, 3), NaN unknown.
        state: (N, F) `Visibility`.
    """

    source_slot: Index
    instance: NDArray[np.uint32]
    uv_px: Float
    points_world: Float
    state: NDArray[np.uint8]


@dataclass(frozen=True)
class Cloud:
    """Coloured world points of one view.

    Attributes:
        fixed: (A, 3) points of things that never move.
        fixed_rgb: (A, 3).
        moving: (B, F, 3) points of moving things at each shown frame, NaN unknown.
        moving_rgb: (B, 3).
        momentary: (C, 3) points whose motion is unknown: they hold at one shown frame only.
        momentary_rgb: (C, 3).
        momentary_slot: (C,) that frame.
    """

    fixed: Float
    fixed_rgb: NDArray[np.uint8]
    moving: Float
    moving_rgb: NDArray[np.uint8]
    momentary: Float
    momentary_rgb: NDArray[np.uint8]
    momentary_slot: Index


@dataclass(frozen=True)
class _Pixels:
    uv_px: Float
    z_depth: Float
    instance: NDArray[np.uint32]

    def take(self, at: NDArray[np.intp]) -> _Pixels:
        return _Pixels(self.uv_px[at], self.z_depth[at], self.instance[at])


def still_ids(motion: MotionRecord) -> NDArray[np.uint32]:
    """List the instances that provably never move: static ones, and rigid ones whose pose is constant."""
    pose = motion.world_from_instance
    is_constant = np.isfinite(pose).all(axis=(0, 2, 3)) & (pose == pose[:1]).all(axis=(0, 2, 3))
    is_still = (motion.instance_motion == MotionKind.STATIC) | (
        (motion.instance_motion == MotionKind.RIGID) & is_constant
    )
    return motion.instance_ids[is_still]


def sample_tracks(scene: Scene, view: View, slots: Index, count: int, rng: np.random.Generator) -> ViewTracks:
    """Sample query pixels over background and instances, and follow each to every shown frame.

    Args:
        scene: Open scene.
        view: One of its views.
        slots: (F,) frames that the report shows.
        count: About how many tracks.
        rng: Source of randomness.

    Returns:
        ViewTracks; empty where the view has no depth.
    """
    picks: list[tuple[int, _Pixels]] = []
    # Most queries start in the first frame; later ones catch what enters or is uncovered.
    sources = _source_slots(view, slots, 3)
    shares = np.array([2, 1, 1])[: len(sources)]
    for slot, number in zip(sources, np.ceil(count * shares / shares.sum()).astype(int), strict=True):
        pixels = _candidate_pixels(view, int(slots[slot]))
        if pixels is not None:
            at = _spread_over_instances(pixels.instance, int(number), rng)
            picks.append((int(slot), pixels.take(at)))
    if not picks:
        return ViewTracks(*_empty_tracks(len(slots)))
    source = np.concatenate([np.full(len(p.instance), slot, np.int64) for slot, p in picks])
    uv = np.concatenate([p.uv_px for _, p in picks])
    instance = np.concatenate([p.instance for _, p in picks])
    points, state, uv_at = _follow(scene, view, uv, slots[source], slots)
    return ViewTracks(source, instance, uv_at, points, state)


def sample_cloud(
    scene: Scene, view: View, slots: Index, num_fixed: int, num_moving: int, rng: np.random.Generator
) -> Cloud:
    """Sample a coloured cloud from up to six shown frames of a view.

    Moving points are carried to every shown frame by the scene's own motion, so the cloud shows the tracks.

    Args:
        scene: Open scene.
        view: One of its views.
        slots: (F,) frames that the report shows.
        num_fixed: At most this many points of still things.
        num_moving: At most this many points of moving things.
        rng: Source of randomness.
    """
    sources = _source_slots(view, slots, 6)
    still = still_ids(scene.motion)
    parts: list[tuple[Float, Float, NDArray[np.uint8], NDArray[np.bool_], Index]] = []
    for slot in sources:
        frame = int(slots[slot])
        pixels = _candidate_pixels(view, frame)
        if pixels is None:
            continue
        is_still = np.isin(pixels.instance, still)
        at = np.concatenate(
            [
                _some(np.flatnonzero(is_still), num_fixed // len(sources), rng),
                _some(np.flatnonzero(~is_still), num_moving // len(sources), rng),
            ]
        )
        taken = pixels.take(at)
        rgb = _colour_at(view, frame, taken.uv_px)
        parts.append((taken.uv_px, _lift(view, frame, taken), rgb, is_still[at], np.full(len(at), slot)))
    if not parts:
        none, grey = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
        return Cloud(none, grey, np.zeros((0, len(slots), 3)), grey, none, grey, np.zeros(0, np.int64))
    uv, own, rgb, is_still, slot_of = (np.concatenate(part) for part in zip(*parts, strict=True))
    move = np.flatnonzero(~is_still)
    points, _, _ = _follow(scene, view, uv[move], slots[slot_of[move]], slots)
    # One known frame (its own) is no motion: such a point may only be shown there.
    is_carried = np.isfinite(points.sum(axis=-1)).sum(axis=1) > 1
    moving, momentary = move[is_carried], move[~is_carried]
    return Cloud(
        own[is_still],
        rgb[is_still],
        points[is_carried],
        rgb[moving],
        own[momentary],
        rgb[momentary],
        slot_of[momentary],
    )


def _lift(view: View, frame: int, pixels: _Pixels) -> Float:
    """World points of pixels from their own depth samples; needs no motion, so it holds for unknown motion too."""
    model, distortion = view.record["camera_model"], view.record["distortion"]
    points_cam = g.unproject_distorted(
        pixels.uv_px, pixels.z_depth, view.intrinsics[frame], model, distortion
    )
    return g.transform_points(view.world_from_cam[frame], points_cam)


def _source_slots(view: View, slots: Index, count: int) -> Index:
    """Pick at most `count` shown frames, evenly, among those whose pose is known: nothing starts elsewhere."""
    known = np.flatnonzero(view.pose_is_known[slots])
    if not len(known):
        return known
    return known[np.unique(np.linspace(0, len(known) - 1, count).round().astype(np.int64))]


def _follow(
    scene: Scene, view: View, uv: Float, t_src: Index, slots: Index
) -> tuple[Float, NDArray[np.uint8], Float]:
    """Track every pixel to every shown frame: points (N, F, 3), state (N, F), uv (N, F, 2)."""
    count, shown = len(uv), len(slots)
    tracks = scene.track(
        view.name, np.repeat(uv, shown, axis=0), np.repeat(t_src, shown), np.tile(slots, count)
    )
    return (
        tracks.points_world.reshape(count, shown, 3),
        tracks.state.reshape(count, shown),
        tracks.uv_px.reshape(count, shown, 2),
    )


def _candidate_pixels(view: View, frame: int) -> _Pixels | None:
    """Pixel centres of the depth grid with known depth, on the colour grid, with their instance ids."""
    z = view.z_depth(frame)
    if z is None:
        return None
    row, col = np.nonzero(np.isfinite(z))
    centres = np.stack([col + 0.5, row + 0.5], axis=-1)
    uv = _between_grids(centres, view.depth_intrinsics[frame], view.intrinsics[frame])
    is_inside = np.flatnonzero(((uv >= 0) & (uv <= view.size)).all(axis=-1))
    uv, known_z = uv[is_inside], z[row, col][is_inside].astype(np.float64)
    instances = view.instances(frame)
    if instances is None:
        return _Pixels(uv, known_z, np.zeros(len(uv), np.uint32))
    on_layer = _between_grids(uv, view.intrinsics[frame], view.layer_intrinsics("instances")[frame])
    return _Pixels(uv, known_z, _at(instances, on_layer))


def _between_grids(uv: Float, intrinsics_from: Float, intrinsics_to: Float) -> Float:
    if np.array_equal(intrinsics_from, intrinsics_to):
        return uv
    return g.homography_points(intrinsics_to @ np.linalg.inv(intrinsics_from), uv)


def _at(raster: NDArray[Sample], uv: Float) -> NDArray[Sample]:
    col = np.clip(uv[:, 0].astype(np.intp), 0, raster.shape[1] - 1)
    row = np.clip(uv[:, 1].astype(np.intp), 0, raster.shape[0] - 1)
    return raster[row, col]


def _colour_at(view: View, frame: int, uv: Float) -> NDArray[np.uint8]:
    if "rgb" not in view.layers:
        return np.full((len(uv), 3), 160, np.uint8)
    on_layer = _between_grids(uv, view.intrinsics[frame], view.layer_intrinsics("rgb")[frame])
    return np.asarray(_at(view.rgb(frame), on_layer), np.uint8)


def _some(index: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    if len(index) <= count:
        return index
    return np.sort(rng.choice(index, count, replace=False))


def _spread_over_instances(ids: NDArray[np.uint32], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Pick about `count` pixels: a third on the background, the rest shared evenly by the instances in sight."""
    present = np.unique(ids)
    objects = present[present != 0]
    on_background = count if not len(objects) else -(-count // 3)
    each = (count - on_background) // max(len(objects), 1)
    picks = [_some(np.flatnonzero(ids == 0), on_background, rng)]
    picks += [_some(np.flatnonzero(ids == i), max(each, 1), rng) for i in objects]
    return np.concatenate(picks)


def _empty_tracks(shown: int) -> tuple[Index, NDArray[np.uint32], Float, Float, NDArray[np.uint8]]:
    return (
        np.zeros(0, np.int64),
        np.zeros(0, np.uint32),
        np.zeros((0, shown, 2)),
        np.zeros((0, shown, 3)),
        np.zeros((0, shown), np.uint8),
    )
