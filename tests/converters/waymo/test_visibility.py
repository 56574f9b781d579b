"""Tracks through a lidar scene, and what is known of their visibility, against the world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import datakit
from converters.waymo import write_capture
from datakit import geometry as g
from datakit.certify.frames import FrameStore
from datakit.certify.pairs import PairData, Points, Tweak
from datakit.motion import MotionKind, Tracks, Visibility, sweeps, tracking
from datakit.scene import Scene
from datakit.worlds import DrivingWorld, driving_world

from .conftest import convert
from .test_round_trip import _SWEEP_START, _body, _scene_from_world

#: Points of a ray before which a surface stands clearly, and which are on it, as a share of the way to the point.
HIDDEN, ON_SURFACE = 0.93, 0.985


@pytest.fixture(scope="module")
def street() -> DrivingWorld:
    return driving_world(7, num_frames=4, size=(160, 106))


@pytest.fixture(scope="module")
def street_file(street: DrivingWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from converters import waymo

    folder = tmp_path_factory.mktemp("street")
    waymo.write_native(iter([street]), folder / "n", "v1")
    return convert(folder / "n", folder / "s.h5")


def _known_pixels(scene: Scene, name: str, t: int) -> np.ndarray:
    row, col = np.nonzero(np.isfinite(scene.views[name].z_depth(t)))
    return np.stack([col + 0.5, row + 0.5], axis=-1)


def _truth(scene: Scene, world: DrivingWorld, tracks: Tracks, view: str, t: int) -> np.ndarray:
    """How far along the way from the target camera to each point something is met: 1 is the point itself."""
    points = g.transform_points(np.linalg.inv(_scene_from_world(scene, world)), tracks.points_world)
    when = scene.views[view].times[t] + _SWEEP_START
    eye = world.views[view].path.world_from_cam(np.array([when]))[0, :3, 3]
    rays = np.nan_to_num(points - eye, nan=1.0)
    return world.cast(np.tile(eye, (len(rays), 1)), rays, when).scale


def _count(scene: Scene, world: DrivingWorld) -> dict[str, int]:
    count = dict.fromkeys(("inside", "known", "seen", "false_seen", "hidden", "false_hidden"), 0)
    for source, target in (("front", "front"), ("front_left", "front"), ("side_left", "side_left")):
        for a, b in ((0, 2), (3, 1), (1, 3)):
            tracks = scene.track(source, _known_pixels(scene, source, a), a, b, view_tgt=target)
            met = _truth(scene, world, tracks, target, b)
            inside = (tracks.state != Visibility.OUTSIDE) & np.isfinite(tracks.points_world).all(axis=1)
            seen, hidden = (
                inside & (tracks.state == state) for state in (Visibility.VISIBLE, Visibility.OCCLUDED)
            )
            for name, mask in (
                ("inside", inside),
                ("known", seen | hidden),
                ("seen", seen),
                ("false_seen", seen & (met < HIDDEN)),
                ("hidden", hidden),
                ("false_hidden", hidden & (met > ON_SURFACE)),
            ):
                count[name] += int(mask.sum())
    return count


def test_most_of_visibility_is_known_and_nothing_in_sight_is_called_hidden(
    street_file: Path, street: DrivingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with datakit.open_scene(street_file) as scene:
        many = _count(scene, street)
        monkeypatch.setattr(tracking, "Sweeps", lambda scene: None)
        one = _count(scene, street)
    assert many["known"] > 0.85 * many["inside"] > 1.15 * one["known"]
    assert many["false_hidden"] == one["false_hidden"] == 0
    assert many["hidden"] and one["hidden"]
    assert many["false_seen"] < 0.015 * many["seen"] and one["false_seen"] < 0.01 * one["seen"]


def test_points_are_where_the_rolling_shutter_saw_them(street_file: Path, street: DrivingWorld) -> None:
    """World points of pixels at the picture's sides, which are exposed 20 ms from its own time: 0.2 m at 10 m/s."""
    with datakit.open_scene(street_file) as scene:
        view = scene.views["side_left"]
        uv = _known_pixels(scene, "side_left", 1)
        uv = uv[(np.abs(uv[:, 0] - 80) > 60) & (view.instances(1)[tuple(uv.astype(int).T[::-1])] == 0)]
        assert len(uv) > 100
        points = scene.track("side_left", uv, 1, 1).points_world
        plain, _ = _one_pose(view, uv)
        inverse = np.linalg.inv(_scene_from_world(scene, street))
        recorder, middle = write_capture.Recorder(street), view.times[1] + _SWEEP_START
        times = recorder._column_time(4, uv[:, 0], middle)
        gaps = []
        for found in (points, plain):
            # Where the world's own rolling shutter sees the point: the pixel that it came from.
            local = g.transform_points(inverse, found)
            poses = g.invert_rigid(street.views["side_left"].path.world_from_cam(times))
            cam = np.einsum("nij,nj->ni", poses[:, :3, :3], local) + poses[:, :3, 3]
            seen, _ = g.project_distorted(cam, view.intrinsics[1], "full_opencv", view.record["distortion"])
            gaps.append(np.abs(seen - uv).max(axis=1))
    assert gaps[0].max() < 0.02, gaps[0].max()
    assert np.median(gaps[1]) > 0.5


def test_certificates_carry_points_to_where_the_rolling_shutter_sees_them(
    street_file: Path, street: DrivingWorld
) -> None:
    """From each column's own time to that of the column where the world sees the point, to 0.1 px of 160."""
    gaps, plain = [], []
    with datakit.open_scene(street_file) as scene:
        inverse = np.linalg.inv(_scene_from_world(scene, street))
        recorder, frames = write_capture.Recorder(street), FrameStore(scene, 0.0)
        for name, a, b in (("front", 0, 1), ("side_left", 1, 2), ("side_right", 2, 1)):
            source, target = frames.get(name, a), frames.get(name, b)
            uv = _known_pixels(scene, name, a)
            row, col = uv[:, 1].astype(int), uv[:, 0].astype(int)
            uv = uv[source.instances[row, col] == 0]
            row, col = uv[:, 1].astype(int), uv[:, 0].astype(int)
            pair = PairData(source, target, scene.motion, 1)
            none, rows = np.full(len(uv), np.nan), np.zeros(len(uv), int)
            points = Points(uv, source.inverse_depth[row, col], rows, rows > 0, none, none)
            number, middle = write_capture.CAMERAS[name], scene.views[name].times + _SWEEP_START
            # What the world sees in the source's pixel, and where that is in the target.
            then = street.views[name].path.world_from_cam(recorder._column_time(number, uv[:, 0], middle[a]))
            rays = g.unproject_distorted(
                uv,
                np.ones(len(uv)),
                source.colour_intrinsics,
                "full_opencv",
                scene.views[name].record["distortion"],
            )
            local = g.transform_points(inverse, pair.world_points(points, Tweak()))
            along = np.einsum("nij,nj->ni", then[:, :3, :3], rays)
            depth = np.einsum("ni,ni->n", local - then[:, :3, 3], along) / (along**2).sum(axis=1)
            at, seen = recorder._project(number, then[:, :3, 3] + depth[:, None] * along, middle[b])
            seen &= (at > 2).all(axis=1) & (at < np.array(street.views[name].size) - 2).all(axis=1)
            gaps.append(np.linalg.norm(pair.predict(points).uv_colour - at, axis=1)[seen])
            source.shutter = target.shutter = None  # as if every line were exposed at once
            plain.append(np.linalg.norm(pair.predict(points).uv_colour - at, axis=1)[seen])
    assert min(map(len, gaps)) > 200
    assert np.quantile(np.concatenate(gaps), 0.95) < 0.1, np.quantile(np.concatenate(gaps), [0.5, 0.95, 1])
    assert np.quantile(np.concatenate(plain), 0.95) > 0.5


def test_tracks_end_where_the_rolling_shutter_sees_them(street_file: Path, street: DrivingWorld) -> None:
    """Static points, from each pixel's own time to the column where the world sees them, to 0.1 px of 160."""
    gaps, plain = [], []
    with datakit.open_scene(street_file) as scene:
        inverse = np.linalg.inv(_scene_from_world(scene, street))
        recorder = write_capture.Recorder(street)
        for name, a, b in (("front", 0, 1), ("side_left", 1, 2), ("side_right", 2, 1)):
            view = scene.views[name]
            uv = _known_pixels(scene, name, a)
            uv = uv[view.instances(a)[tuple(uv.astype(int).T[::-1])] == 0]
            tracks = scene.track(name, uv, a, b)
            local = g.transform_points(inverse, tracks.points_world)
            at, seen = recorder._project(write_capture.CAMERAS[name], local, view.times[b] + _SWEEP_START)
            seen &= (at > 2).all(axis=1) & (at < np.array(view.size) - 2).all(axis=1)
            cam = g.transform_points(g.invert_rigid(view.world_from_cam[b]), tracks.points_world)
            flat, z = g.project_distorted(cam, view.intrinsics[b], "full_opencv", view.record["distortion"])
            np.testing.assert_array_equal(tracks.z_depth, z)  # z is of the frame's own pose, as depth is
            gaps.append(np.linalg.norm(tracks.uv_px - at, axis=1)[seen])
            plain.append(np.linalg.norm(flat - at, axis=1)[seen])
    assert min(map(len, gaps)) > 200
    assert np.quantile(np.concatenate(gaps), 0.95) < 0.1, np.quantile(np.concatenate(gaps), [0.5, 0.95, 1])
    assert np.quantile(np.concatenate(plain), 0.95) > 0.5


def test_a_pixel_followed_to_its_own_frame_is_itself(street_file: Path) -> None:
    """Also on what moves: no time passes, and the pixel's line is exposed once."""
    with datakit.open_scene(street_file) as scene:
        for name in ("front", "side_left"):
            uv = _known_pixels(scene, name, 1)
            tracks = scene.track(name, uv, 1, 1)
            gaps = np.linalg.norm(tracks.uv_px - uv, axis=1)
            assert len(gaps) > 200
            assert np.quantile(gaps, 0.99) < 0.01 and gaps.max() < 0.1, np.quantile(gaps, [0.5, 0.99, 1])


def _one_pose(view: datakit.scene.View, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = view.z_depth(1)[tuple(uv.astype(int).T[::-1])]
    cam = g.unproject_distorted(uv, z, view.intrinsics[1], "full_opencv", view.record["distortion"])
    return g.transform_points(view.world_from_cam[1], cam), z


def test_points_far_outside_the_lens_do_not_come_back_into_the_picture(street_file: Path) -> None:
    with datakit.open_scene(street_file) as scene:
        view = scene.views["front"]
        aside = np.array([[5.4, 0.0, 4.0], [0.5, 0.1, 4.0]])
        wrong, _ = g.project_distorted(aside, view.intrinsics[0], "full_opencv", view.record["distortion"])
        assert ((wrong >= 0) & (wrong <= view.size)).all()  # the polynomial has turned round
        uv, z = sweeps.project_into(view, 0, aside)
        assert np.isinf(uv[0]).all() and z[0] == 4.0
        assert 0 < np.abs(uv[1] - wrong[1]).max() < 2  # the rolling shutter's own way


def test_sweeps_around_add_to_a_frames_own(street_file: Path) -> None:
    with datakit.open_scene(street_file) as scene:
        view = scene.views["front"]
        z, ids = sweeps.Sweeps(scene).onto(view, 1)
        own = np.isfinite(view.z_depth(1)).sum()
        assert np.isfinite(z).sum() > 2 * own
        # People move in unknown ways: their points of other frames are not carried here.
        unknown = scene.motion.instance_ids[scene.motion.instance_motion == MotionKind.UNKNOWN]
        assert np.isin(ids, unknown).sum() <= np.isin(view.instances(1), unknown).sum() * 1.2


def test_tracked_points_move_as_their_bodies_do(street_file: Path, street: DrivingWorld) -> None:
    """Points on vehicles to 5 mm and static ones to 1 mm, from every frame to every other."""
    with datakit.open_scene(street_file) as scene:
        motion, scene_from_world = scene.motion, _scene_from_world(scene, street)
        followed = {kind: 0 for kind in (MotionKind.RIGID, MotionKind.STATIC)}
        for name in ("front", "front_left"):
            view = scene.views[name]
            for a in range(view.num_frames):
                uv = _known_pixels(scene, name, a)
                ids = view.instances(a)[tuple(uv.astype(int).T[::-1])]
                start = scene.track(name, uv, a, a).points_world
                for b in range(view.num_frames):
                    end = scene.track(name, uv, a, b).points_world
                    for row, kind in enumerate(motion.instance_motion):
                        mine = ids == motion.instance_ids[row]
                        if kind == MotionKind.UNKNOWN or not mine.any():
                            continue
                        if kind == MotionKind.STATIC:
                            want, limit = start[mine], 1e-3
                        else:
                            path = _body(street, motion.instance_names[row]).path
                            then, now = scene_from_world @ path.world_from_instance(
                                view.times[[a, b]] + _SWEEP_START
                            )
                            want, limit = g.transform_points(now @ g.invert_rigid(then), start[mine]), 5e-3
                        assert np.linalg.norm(end[mine] - want, axis=1).max() < limit
                        followed[MotionKind(kind)] += int(mine.sum())
        assert min(followed.values()) > 300, followed
