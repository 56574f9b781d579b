"""The table of faults: each mistake of a Waymo reader, made on purpose, must show.

Against the world: poses, boxes and points of the scene must be those of the synthetic street, and shipped pixels must
fit them. By the certificate: the scene's own data must contradict each other. `caught` says which of the two shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import assemble, lidar, motion, v1
from converters.waymo import write_capture as capture
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.motion import MotionKind
from datakit.worlds import DrivingWorld, driving_world

from .conftest import convert
from .test_round_trip import _SWEEP_START, _body, _scene_from_world

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def street() -> DrivingWorld:
    return driving_world(3, num_frames=5, size=(128, 86))


@pytest.fixture(scope="module")
def native(street: DrivingWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("street")
    waymo.write_native(iter([street]), root, "v1")
    return root


def _head(edit: Callable[[Any], Any]) -> Patch:
    """Read frames' heads, and edit them."""

    def patch(mp: pytest.MonkeyPatch) -> None:
        read = v1.head
        mp.setattr(v1, "head", lambda frame, where: edit(read(frame, where)))

    return patch


def _speed_in_vehicle_frame(head: Any) -> Any:
    turn = head.global_from_vehicle[:3, :3]
    return replace(
        head,
        objects=tuple(replace(x, speed_global=turn @ x.speed_global, synced_box=None) for x in head.objects),
    )


def _width_for_length(head: Any) -> Any:
    def swap(box: Any) -> Any:
        return replace(box, size=box.size[[1, 0, 2]])

    return replace(head, objects=tuple(replace(x, box=swap(x.box)) for x in head.objects))


def _frame_pose_for_pictures(head: Any) -> Any:
    pose = head.global_from_vehicle
    return replace(head, images={c: replace(x, global_from_vehicle=pose) for c, x in head.images.items()})


def _synced_box_at_the_pictures_time(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(
        assemble,
        "_capture_times",
        lambda segment, camera, images, points: np.array([segment.time(image) for image in images]),
    )


def _no_axis_flip(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(assemble, "OPENCV_FROM_WAYMO", np.eye(4))


def _inverted_extrinsic(mp: pytest.MonkeyPatch) -> None:
    mount = assemble._vehicle_from_cam
    mp.setattr(assemble, "_vehicle_from_cam", lambda calibration: g.invert_rigid(mount(calibration)))


def _no_pixel_poses(mp: pytest.MonkeyPatch) -> None:
    place = lidar._points
    mp.setattr(
        lidar, "_points", lambda image, calibration, pose, *rest: place(image, calibration, None, *rest)
    )


def _beams_upside_down(mp: pytest.MonkeyPatch) -> None:
    beams = lidar.beam_inclinations
    mp.setattr(lidar, "beam_inclinations", lambda *args: beams(*args)[::-1])


def _half_a_pixel_less(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(
        v1,
        "intrinsics",
        lambda *values: np.array(
            [[values[0], 0, values[2] - 0.5], [0, values[1], values[3] - 0.5], [0, 0, 1]]
        ),
    )


def _labels_half_a_sweep_early(mp: pytest.MonkeyPatch) -> None:
    times = motion.label_times
    mp.setattr(assemble, "label_times", lambda heads: (times(heads)[0] - motion.HALF_SWEEP, 0.0))


def _ray_length_as_z(mp: pytest.MonkeyPatch) -> None:
    nearest, project = assemble._nearest, assemble._splat

    def splat(segment: Any, t: int, camera: int, *rest: Any) -> Any:
        calibration = segment.calibration.cameras[camera]

        def far(uv: Any, z: Any, ids: Any, size: Any) -> Any:
            rays = g.unproject_distorted(
                uv,
                np.ones(len(uv)),
                calibration.intrinsics,
                "full_opencv",
                (*calibration.distortion, 0, 0, 0),
            )
            return nearest(uv, z * np.linalg.norm(rays, axis=1), ids, size)

        assemble._nearest = far
        try:
            return project(segment, t, camera, *rest)
        finally:
            assemble._nearest = nearest

    mp.setattr(assemble, "_splat", splat)


def _first_return_only(mp: pytest.MonkeyPatch) -> None:
    read = v1.range_images
    mp.setattr(v1, "range_images", lambda *args: {k: (a, None) for k, (a, _) in read(*args).items()})


def _first_slot_only(mp: pytest.MonkeyPatch) -> None:
    read = assemble.points_of_frame

    def points_of_frame(*args: Any, **options: Any) -> Any:
        points = read(*args, **options)
        points.projection[:, 3:] = 0
        return points

    mp.setattr(assemble, "points_of_frame", points_of_frame)


def _farthest_point_wins(mp: pytest.MonkeyPatch) -> None:
    nearest = assemble._nearest
    mp.setattr(
        assemble,
        "_nearest",
        lambda uv, z, ids, size: tuple(
            x if x.dtype != np.float32 else -x for x in nearest(uv, np.where(z > 0, 1e4 - z, z), ids, size)
        ),
    )


#: Fault -> how it is made, and what shows it: "world", "certificate" or both.
FAULTS: dict[str, tuple[Patch, tuple[str, ...]]] = {
    "speeds in the vehicle's frame": (_head(_speed_in_vehicle_frame), ("world",)),
    "box width for length": (_head(_width_for_length), ("world",)),
    "Frame.pose for image.pose": (_head(_frame_pose_for_pictures), ("world",)),
    "synced box at the picture's time": (_synced_box_at_the_pictures_time, ("world",)),
    "labels half a sweep early": (_labels_half_a_sweep_early, ("world",)),
    "cameras without the axis flip": (_no_axis_flip, ("world", "certificate")),
    "extrinsics inverted": (_inverted_extrinsic, ("world", "certificate")),
    "K half a pixel less": (_half_a_pixel_less, ("world",)),
    "no per-pixel poses": (_no_pixel_poses, ("world",)),
    "beams upside down": (_beams_upside_down, ("world",)),
    "ray length as z": (_ray_length_as_z, ("world", "certificate")),
    "first return only": (_first_return_only, ("world",)),
    "first slot only": (_first_slot_only, ("world",)),
    "farthest point of a pixel": (_farthest_point_wins, ("world", "certificate")),
}


def _truths(path: Path, world: DrivingWorld, street_points: dict[str, int]) -> Iterator[tuple[str, bool]]:
    """Compare a scene with its world: (what, whether it agrees)."""
    with datakit.open_scene(path) as scene:
        scene_from_world = _scene_from_world(scene, world)
        recorder = capture.Recorder(world)
        for name, view in scene.views.items():
            truth = world.views[name]
            poses = scene_from_world @ truth.path.world_from_cam(view.times + _SWEEP_START)
            yield f"{name}: poses", bool(np.abs(view.world_from_cam - poses).max() < 1e-4)
            yield f"{name}: K", bool(np.abs(view.intrinsics - truth.intrinsics).max() < 1e-4)
            z = view.z_depth(2)
            row, col = np.nonzero(np.isfinite(z) & (view.instances(2) == 0))
            yield f"{name}: number of points", len(row) >= 0.98 * street_points.get(name, 0)
            uv = np.stack([col + 0.5, row + 0.5], axis=-1)
            middle = view.times[2] + _SWEEP_START
            number = capture.CAMERAS[name]
            at_column = truth.path.world_from_cam(recorder._column_time(number, uv[:, 0], middle))
            rays = g.unproject_distorted(
                uv,
                np.ones(len(uv)),
                truth.intrinsics[2],
                "full_opencv",
                capture._colmap(capture._LENS[number]),
            )
            met = world.cast(
                at_column[:, :3, 3], np.einsum("nij,nj->ni", at_column[:, :3, :3], rays), middle
            ).scale
            gap = np.abs(np.log(np.abs(z[row, col]) / met))
            # A pixel of 128 is 0.4 degrees, over which ground changes by some per cent.
            yield f"{name}: depth", bool(np.median(gap) < 0.02 and np.quantile(gap, 0.9) < 0.08)
        moving = scene.motion
        for k in np.flatnonzero(moving.instance_motion == MotionKind.RIGID):
            body = _body(world, moving.instance_names[k])
            poses = scene_from_world @ body.path.world_from_instance(moving.times + _SWEEP_START)
            yield body.name, bool(np.abs(moving.world_from_instance[:, k] - poses).max() < 5e-3)
        for item in scene.metadata["objects"]:
            body = _body(world, f"x {item['id']}")
            yield f"size of {body.name}", bool(np.allclose(item["size_lwh"], body.box_hi - body.box_lo))


@pytest.fixture(scope="module")
def num_points(street: DrivingWorld) -> int:
    """Count the returns of the first frame as they were recorded."""
    recorder = capture.Recorder(street)
    sweeps = [recorder._sweep(laser, 0.0)[0] for laser in recorder.lidars]
    return sum(int((values[..., 0] > 0).sum()) for returns in sweeps for values, _, _ in returns)


@pytest.fixture(scope="module")
def clean(
    native: Path, street: DrivingWorld, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int]]:
    path = convert(native, tmp_path_factory.mktemp("clean") / "s.h5")
    with datakit.open_scene(path) as scene:
        counts = {
            name: int((np.isfinite(view.z_depth(2)) & (view.instances(2) == 0)).sum())
            for name, view in scene.views.items()
        }
    return path, counts


def test_the_clean_scene_agrees_with_its_world(
    clean: tuple[Path, dict[str, int]], street: DrivingWorld
) -> None:
    assert [what for what, agrees in _truths(clean[0], street, clean[1]) if not agrees] == []


def _lidars_agree(native: Path, world: DrivingWorld, num_points: int) -> bool:
    """Whether a frame has the points of all returns, and TOP's lie on the street's walls."""
    frame, where, _ = next(v1.frames(next(native.rglob("*.tfrecord")), check_crc=True))
    head, constant = v1.head(frame, where), v1.calibration(frame, where)
    images = v1.range_images(frame, where)
    points = lidar.points_of_frame(images, constant.lasers, head.global_from_vehicle, where).points_vehicle
    if len(points) != num_points:
        return False
    points = lidar.points_of_frame(
        {1: images[1]}, constant.lasers, head.global_from_vehicle, where
    ).points_vehicle
    local = g.transform_points(world.ego.world_from_instance([0.0])[0], points)
    walls = local[(local[:, 2] > 0.5) & (np.abs(local[:, :2]).max(axis=1) > 60)]
    off = np.abs(70 - np.abs(walls[:, :2]).max(axis=1))
    return len(walls) > 100 and bool(np.median(off) < 0.01)


@pytest.mark.slow
def test_the_clean_scene_has_no_failing_check(clean: tuple[Path, dict[str, int]]) -> None:
    assert [c.name for c in certify_scene(clean[0]).checks if c.verdict == "fail"] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_against_the_world(
    fault: str,
    native: Path,
    clean: tuple[Path, dict[str, int]],
    street: DrivingWorld,
    num_points: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FAULTS[fault][0](monkeypatch)
    path, points_agree = convert(native, tmp_path / "s.h5"), _lidars_agree(native, street, num_points)
    monkeypatch.undo()
    wrong = [what for what, agrees in _truths(path, street, clean[1]) if not agrees]
    assert wrong or not points_agree


@pytest.mark.slow
@pytest.mark.parametrize("fault", [name for name, (_, caught) in FAULTS.items() if "certificate" in caught])
def test_a_fault_fails_the_certificate(
    fault: str, native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault][0](monkeypatch)
    path = convert(native, tmp_path / "s.h5")
    monkeypatch.undo()
    certificate = certify_scene(path)
    assert certificate.verdict == "fail", [(c.name, c.verdict) for c in certificate.checks]
