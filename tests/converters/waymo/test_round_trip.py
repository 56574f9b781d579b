"""World -> native files -> scene: the same world comes out of both forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import write_capture
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.motion import MotionKind
from datakit.scene import Scene
from datakit.worlds import DrivingWorld, WorldInstance

from .conftest import convert


def _scene_from_world(scene: Scene, world: DrivingWorld) -> np.ndarray:
    """The map from the world's frame: the writer's tilted map frame, less the first pose's place."""
    first = write_capture._GLOBAL_FROM_WORLD @ world.ego.world_from_instance([0.0])[0]
    out = write_capture._GLOBAL_FROM_WORLD.copy()
    out[:3, 3] -= first[:3, 3]
    np.testing.assert_allclose(scene.metadata["origin_global"], first[:3, 3], atol=1e-9)
    return out


#: The scene's clock starts with the first sweep, half a sweep before the world's.
_SWEEP_START = -0.05


def _body(world: DrivingWorld, name: str) -> WorldInstance:
    return next(body for body in world.instances if body.name[:22].ljust(22, "-") == name.split()[1])


@pytest.mark.parametrize("form", waymo.NATIVE_FORMS)
def test_cameras(form: str, scene_files: dict[str, Path], world: DrivingWorld) -> None:
    with datakit.open_scene(scene_files[form]) as scene:
        scene_from_world = _scene_from_world(scene, world)
        assert list(scene.views) == ["front", "front_left", "front_right", "side_left", "side_right"]
        for name, view in scene.views.items():
            truth = world.views[name]
            assert view.size == truth.size
            np.testing.assert_allclose(view.intrinsics, truth.intrinsics, atol=1e-6)
            # timestamp_micros is in whole microseconds, of which a vehicle at 10 m/s makes 1e-5 m.
            want = scene_from_world @ truth.path.world_from_cam(view.times + _SWEEP_START)
            np.testing.assert_allclose(view.world_from_cam, want, atol=2e-5)
            number = write_capture.CAMERAS[name]
            np.testing.assert_allclose(
                view.times - np.arange(5) / 10, write_capture._CAPTURE[number], atol=1e-6
            )
            assert view.record["camera_model"] == "full_opencv"
            assert tuple(view.record["distortion"]) == (*write_capture._LENS[number], 0, 0, 0)


def test_both_forms_give_the_same_scene(scene_files: dict[str, Path]) -> None:
    with datakit.open_scene(scene_files["v1"]) as one, datakit.open_scene(scene_files["v2"]) as two:
        assert one.id == two.id
        np.testing.assert_array_equal(one.motion.world_from_instance, two.motion.world_from_instance)
        assert one.motion.instance_names == two.motion.instance_names
        for name, view in one.views.items():
            other = two.views[name]
            np.testing.assert_array_equal(view.world_from_cam, other.world_from_cam)
            np.testing.assert_array_equal(view.times, other.times)
            for t in range(view.num_frames):
                np.testing.assert_array_equal(view.z_depth(t), other.z_depth(t))
                np.testing.assert_array_equal(view.instances(t), other.instances(t))
                np.testing.assert_array_equal(view.rgb(t), other.rgb(t))


@pytest.mark.parametrize("form", waymo.NATIVE_FORMS)
def test_vehicles_are_where_they_are(form: str, scene_files: dict[str, Path], world: DrivingWorld) -> None:
    with datakit.open_scene(scene_files[form]) as scene:
        motion, scene_from_world = scene.motion, _scene_from_world(scene, world)
        rigid = np.flatnonzero(motion.instance_motion == MotionKind.RIGID)
        assert {motion.instance_names[k].split("-")[1] for k in rigid} == {"lead", "parked", "turning"}
        for k in rigid:
            body = _body(world, motion.instance_names[k])
            truth = scene_from_world @ body.path.world_from_instance(motion.times + _SWEEP_START)
            corners = body.box_hi * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
            gap = [
                g.transform_points(pose[:, k][:, None], corners[None])
                - g.transform_points(truth[:, None], corners)
                for pose in [motion.world_from_instance]
            ]
            assert np.linalg.norm(gap[0], axis=-1).max() < 5e-3  # metres, at all pictures' times


def test_people_are_not_rigid_and_signs_stand_still(scene_files: dict[str, Path]) -> None:
    with datakit.open_scene(scene_files["v1"]) as scene:
        kinds = {
            name.split()[0]: MotionKind(kind)
            for name, kind in zip(scene.motion.instance_names, scene.motion.instance_motion, strict=True)
        }
    assert kinds["pedestrian"] == kinds["cyclist"] == kinds["no-label"] == MotionKind.UNKNOWN
    assert kinds["sign"] == kinds["background"] == MotionKind.STATIC
    assert kinds["vehicle"] == MotionKind.RIGID


@pytest.mark.parametrize("rectify", [False, True])
def test_lidar_depth(
    rectify: bool,
    natives: dict[str, Path],
    scene_files: dict[str, Path],
    world: DrivingWorld,
    tmp_path: Path,
) -> None:
    """Depth points lie on the street as seen at their column's time, up to the pixel they are stored in."""
    path = convert(natives["v1"], tmp_path / "flat.h5", rectify=True) if rectify else scene_files["v1"]
    recorder = write_capture.Recorder(world)
    with datakit.open_scene(path) as scene:
        for name, view in scene.views.items():
            number, t = write_capture.CAMERAS[name], 2
            z = view.z_depth(t)
            row, col = np.nonzero(np.isfinite(z) & (view.instances(t) == 0))
            assert len(row) > 100
            uv = np.stack([col + 0.5, row + 0.5], axis=-1)
            record = view.record
            assert record["is_rectified"] == rectify
            rays = g.unproject_distorted(
                uv, np.ones(len(uv)), view.intrinsics[t], record["camera_model"], record["distortion"]
            )
            middle = view.times[t] + _SWEEP_START
            times = np.full(len(uv), middle)
            if not rectify:
                times = recorder._column_time(number, uv[:, 0], middle)
            poses = world.views[name].path.world_from_cam(times)
            hits = world.cast(poses[:, :3, 3], np.einsum("nij,nj->ni", poses[:, :3, :3], rays), middle)
            gap = np.abs(np.log(z[row, col] / hits.scale))
            assert np.median(gap) < 0.02, name
            # Low beams on far ground change by more within a pixel; nothing else does.
            assert np.quantile(gap, 0.9) < 0.2, name


def test_a_vehicles_points_stay_on_it(scene_files: dict[str, Path], world: DrivingWorld) -> None:
    with datakit.open_scene(scene_files["v1"]) as scene:
        motion, seen = scene.motion, 0
        for view in scene.views.values():
            for t in range(view.num_frames):
                z, ids = view.z_depth(t), view.instances(t)
                for k in np.flatnonzero(motion.instance_motion == MotionKind.RIGID):
                    row, col = np.nonzero((ids == k) & np.isfinite(z))
                    uv = np.stack([col + 0.5, row + 0.5], axis=-1)
                    cam = g.unproject_distorted(
                        uv, z[row, col], view.intrinsics[t], "full_opencv", view.record["distortion"]
                    )
                    points = g.transform_points(view.world_from_cam[t], cam)
                    local = g.transform_points(
                        g.invert_rigid(motion.world_from_instance[view.motion_index[t], k]), points
                    )
                    half = _body(world, motion.instance_names[k]).box_hi
                    # Half a pixel of 96 is 15 cm at 30 m; the rolling shutter adds a pixel.
                    assert (np.abs(local) < half + 0.6).all()
                    seen += len(row)
        assert seen > 50


def test_shutter_times_are_of_columns_in_the_cameras_direction(scene_files: dict[str, Path]) -> None:
    with datakit.open_scene(scene_files["v1"]) as scene:
        for name, view in scene.views.items():
            assert view.record["shutter_axis"] == "column"
            times = np.asarray(view.record["shutter_times"])
            assert times.shape == (5, 96)
            steps = np.diff(times[0])
            assert (steps < 0).all() if name == "side_right" else (steps > 0).all()
            np.testing.assert_allclose(times.mean(axis=1), view.times, atol=1e-6)
            np.testing.assert_allclose(np.abs(times[:, -1] - times[:, 0]), 0.044 * 95 / 96, atol=1e-6)


@pytest.mark.slow
def test_the_certificate_passes(scene_files: dict[str, Path]) -> None:
    certificate = certify_scene(scene_files["v1"])
    assert certificate.verdict == "pass", [(c.name, c.reason) for c in certificate.checks]
    tested = {check.name for check in certificate.checks if check.verdict == "pass"}
    assert {"depth_reprojection", "photometric", "pose", "intrinsics"} <= tested
