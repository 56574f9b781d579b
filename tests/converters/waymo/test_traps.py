"""The traps of the format, one by one: each fails where its handling is taken away."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import assemble, kernels, lidar, motion, v1, v2
from converters.waymo.proto import message_class, parse
from converters.waymo.segment import Box, FrameHead, Image, Labelled, LaserCalibration, RangeImage
from converters.waymo.write_v1 import _record
from datakit.errors import ConventionError, DatakitError, FormatError, LayoutError, UsageError

from .conftest import convert, only_scene


def _segment_file(root: Path) -> Path:
    return next(root.rglob("*.tfrecord"))


def _edited(natives: dict[str, Path], out: Path, edit: Any) -> Path:
    """Copy the v1 tree with every Frame changed by `edit(frame, number)`."""
    source = _segment_file(natives["v1"])
    target = out / source.relative_to(natives["v1"])
    target.parent.mkdir(parents=True)
    with open(target, "wb") as file:
        for number, (frame, _, _) in enumerate(v1.frames(source, check_crc=True)):
            edit(frame, number)
            file.write(_record(frame.SerializeToString()))
    return out


def test_a_flipped_payload_byte_fails_its_crc(natives: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(_segment_file(natives["v1"]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "segment-1_with_camera_labels.tfrecord").write_bytes(data)
    with pytest.raises(FormatError, match="CRC"):
        convert(tmp_path, tmp_path / "out.h5")


def test_a_truncated_segment_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    data = _segment_file(natives["v1"]).read_bytes()
    (tmp_path / "segment-1.tfrecord").write_bytes(data[:-100])
    with pytest.raises(FormatError, match="truncated"):
        convert(tmp_path, tmp_path / "out.h5")
    assert any("truncated" in problem.what for problem in waymo.probe(tmp_path).problems)


def test_a_length_that_lies_is_not_believed(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 60)
    from converters.waymo.write_v1 import _masked

    (tmp_path / "segment-1.tfrecord").write_bytes(length + _masked(length) + b"x" * 64)
    with pytest.raises(FormatError, match="truncated"):
        convert(tmp_path, tmp_path / "out.h5")


def test_unknown_fields_are_skipped(
    natives: dict[str, Path], tmp_path: Path, scene_files: dict[str, Path]
) -> None:
    source = _segment_file(natives["v1"])
    target = tmp_path / source.relative_to(natives["v1"])
    target.parent.mkdir(parents=True)
    extra = b"\xfa\x07\x04abcd"  # field 127, length-delimited
    with open(target, "wb") as file:
        for frame, _, _ in v1.frames(source, check_crc=True):
            file.write(_record(frame.SerializeToString() + extra))
    with datakit.open_scene(convert(tmp_path, tmp_path / "out.h5")) as scene:
        assert scene.views["front"].num_frames == 5


def test_repeated_doubles_may_be_packed_or_not() -> None:
    values = np.arange(16.0)
    packed = b"\x0a\x80\x01" + values.tobytes()
    loose = b"".join(b"\x09" + struct.pack("<d", value) for value in values)
    for wire in (packed, loose):
        message = message_class("Transform")()
        message.ParseFromString(wire)
        np.testing.assert_array_equal(message.transform, values)


def test_frames_without_lidar_have_no_depth(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        if number == 2:
            del frame.lasers[:]

    with datakit.open_scene(convert(_edited(natives, tmp_path / "n", edit), tmp_path / "out.h5")) as scene:
        view = scene.views["front"]
        assert np.isnan(view.z_depth(2)).all() and np.isfinite(view.z_depth(1)).any()


def test_a_camera_may_miss_a_frame_or_all(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        kept = [i for i in frame.images if i.name != 5 and not (i.name == 2 and number == 1)]
        copies = [type(i).FromString(i.SerializeToString()) for i in kept]
        del frame.images[:]
        frame.images.extend(copies)

    with datakit.open_scene(convert(_edited(natives, tmp_path / "n", edit), tmp_path / "out.h5")) as scene:
        assert list(scene.views) == ["front", "front_left", "front_right", "side_left"]
        view = scene.views["front_left"]
        assert view.num_frames == 4 and view.frame_names[1] == scene.views["front"].frame_names[2]


def test_frames_without_pictures_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _edited(natives, tmp_path / "n", lambda frame, number: frame.ClearField("images"))
    with pytest.raises(ConventionError, match="No picture"):
        convert(root, tmp_path / "out.h5")


def test_labels_without_speed_or_synced_box(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        for label in frame.laser_labels:
            label.ClearField("metadata")
            label.ClearField("camera_synced_box")

    root = _edited(natives, tmp_path / "n", edit)
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        rigid = scene.motion.instance_motion == 2
        assert np.isfinite(scene.motion.world_from_instance[:, rigid]).all()
    assert any("synced" in problem.what for problem in waymo.probe(root).problems)


def test_an_object_is_unknown_while_it_is_not_labelled(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        if number >= 3:
            kept = [x for x in frame.laser_labels if "lead" not in x.id]
            copies = [type(x).FromString(x.SerializeToString()) for x in kept]
            del frame.laser_labels[:]
            frame.laser_labels.extend(copies)

    with datakit.open_scene(convert(_edited(natives, tmp_path / "n", edit), tmp_path / "out.h5")) as scene:
        motion_record = scene.motion
        (row,) = [k for k, name in enumerate(motion_record.instance_names) if "lead" in name]
        known = np.isfinite(motion_record.world_from_instance[:, row]).all(axis=(1, 2))
        # Last label at 0.25 s of the scene's clock; half a gap of 0.125 s is carried on.
        np.testing.assert_array_equal(known, motion_record.times <= 0.25 + motion.MAX_GAP / 2)


def test_headings_turn_through_pi() -> None:
    labels = [Labelled("a", 1, Box(np.zeros(3), np.ones(3), heading), np.zeros(3)) for heading in (3.1, -3.1)]
    heads = [FrameHead(k, np.eye(4), {}, (label,)) for k, label in enumerate(labels)]
    path, _ = motion.object_paths(heads, np.array([0.0, 0.1]), np.tile(np.eye(4), (2, 1, 1)))["a"]
    middle = path.at(np.array([0.05]))[0]
    np.testing.assert_allclose(middle[:2, 0], [-1.0, 0.0], atol=1e-12)


def test_speeds_are_in_the_global_frame() -> None:
    """A car that drives along global y, seen from a vehicle that looks along it: one label tells both ways."""
    world_from_vehicle = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    label = Labelled("a", 1, Box(np.array([10.0, 0, 0]), np.ones(3), 0.0), np.array([0.0, 8.0, 0.0]))
    head = FrameHead(0, world_from_vehicle, {}, (label,))
    path, _ = motion.object_paths([head], np.array([0.0]), world_from_vehicle[None])["a"]
    np.testing.assert_allclose(path.at(np.array([0.05]))[0, :3, 3], [0.0, 10.4, 0.0], atol=1e-12)


def test_length_lies_along_the_heading() -> None:
    box = message_class("Label")()
    box.box.length, box.box.width, box.box.height = 4.0, 2.0, 1.5
    np.testing.assert_array_equal(v1._labelled(box, "x").box.size, [4.0, 2.0, 1.5])
    # label.proto: width is field 4, length field 5.
    wire = message_class("Box")()
    wire.ParseFromString(b"\x21" + struct.pack("<d", 2.0) + b"\x29" + struct.pack("<d", 4.0))
    assert (wire.width, wire.length) == (2.0, 4.0)


_LIDAR = LaserCalibration(np.eye(4), None, (-0.4, 0.2))


def test_uniform_beams_are_bin_centres_highest_first() -> None:
    np.testing.assert_allclose(lidar.beam_inclinations(_LIDAR, 3), [0.1, -0.1, -0.3], atol=1e-12)


def test_listed_beams_are_lowest_first() -> None:
    listed = replace(_LIDAR, inclinations=np.array([-0.3, 0.0, 0.1]))
    np.testing.assert_array_equal(lidar.beam_inclinations(listed, 3), [0.1, 0.0, -0.3])
    with pytest.raises(ConventionError, match="beams"):
        lidar.beam_inclinations(listed, 4)


def _placed(values: np.ndarray, calibration: LaserCalibration, pose: np.ndarray | None = None) -> np.ndarray:
    """Points of a range image of TOP, for the vehicle's pose at the origin."""
    image = RangeImage(values, None, None if pose is None else pose.astype(np.float32))
    return lidar.points_of_frame({1: (image, None)}, {1: calibration}, np.eye(4), "x").points_vehicle


def test_columns_run_from_pi_down_less_the_lidars_yaw() -> None:
    values = np.ones((1, 4, 4), np.float32)
    level = LaserCalibration(np.eye(4), np.zeros(1), (0, 0))
    points = _placed(values, level)
    np.testing.assert_allclose(
        np.arctan2(points[:, 1], points[:, 0]), np.pi * np.array([0.75, 0.25, -0.25, -0.75])
    )
    turned = np.eye(4)
    turned[:2, :2] = [[0.0, -1], [1, 0]]
    # The lidar's own yaw is taken off in its frame and put back by its pose: columns mean the vehicle's azimuth.
    np.testing.assert_allclose(_placed(values, replace(level, vehicle_from_lidar=turned)), points, atol=1e-12)


def test_a_lidars_place_and_all_its_axes_count() -> None:
    """One pixel by hand: beam 0.2 rad up, looking along the lidar's x."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # x to y, y to z, z to x
    pose[:3, 3] = [1.0, 2.0, 3.0]
    values = np.full((1, 1, 4), 2.0, np.float32)
    yaw = np.arctan2(1.0, 0.0)
    point = 2 * np.array([np.cos(0.2) * np.cos(-yaw), np.cos(0.2) * np.sin(-yaw), np.sin(0.2)])
    found = _placed(values, LaserCalibration(pose, np.array([0.2]), (0, 0)))
    np.testing.assert_allclose(found[0], pose[:3, :3] @ point + pose[:3, 3], atol=1e-12)


def test_missing_ranges_are_zero_or_negative() -> None:
    values = np.zeros((1, 4, 4), np.float32)
    values[0, :, 0] = [5.0, 0.0, -1.0, 7.0]
    image = RangeImage(values, None)
    points = lidar.points_of_frame(
        {2: (image, None)}, {2: replace(_LIDAR, inclinations=np.zeros(1))}, np.eye(4), "x"
    )
    np.testing.assert_allclose(np.linalg.norm(points.points_vehicle, axis=1), [5.0, 7.0])


def test_tops_pixel_poses_move_both_returns_and_no_other_lidars() -> None:
    values = np.full((1, 2, 4), 5.0, np.float32)
    pose = np.zeros((1, 2, 6))
    pose[..., 3] = 2.0  # each pulse leaves two metres ahead
    image = RangeImage(values, None, pose)
    calibration = {number: replace(_LIDAR, inclinations=np.zeros(1)) for number in (1, 2)}
    plain = RangeImage(values, None)
    for laser, shift in ((1, 2.0), (2, 0.0)):
        points = lidar.points_of_frame({laser: (image, plain)}, calibration, np.eye(4), "x").points_vehicle
        still = lidar.points_of_frame({2: (plain, plain)}, calibration, np.eye(4), "x").points_vehicle
        np.testing.assert_allclose(points - still, np.tile([shift, 0, 0], (4, 1)), atol=1e-12)


def test_pixel_poses_turn_by_roll_then_pitch_then_yaw() -> None:
    numbers = np.array([0.1, -0.2, 0.3, 1.0, 2.0, 3.0], np.float32)
    a, b, c = numbers[:3].astype(np.float64)
    roll = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    pitch = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    yaw = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    values = np.full((1, 5, 4), 6.0, np.float32)
    calibration = LaserCalibration(np.eye(4), np.array([0.4]), (0, 0))
    plain = _placed(values, calibration)
    want = plain @ (yaw @ pitch @ roll).T + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(_placed(values, calibration, np.tile(numbers, (1, 5, 1))), want, atol=1e-12)


def test_pixel_poses_are_brought_to_the_frames_own_pose() -> None:
    """Far from the global origin, with a vehicle that is turned: points keep their digits."""
    frame = np.eye(4)
    frame[:3, :3] = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    frame[:3, 3] = [-25_216.0, 42_392.0, 32.0]  # float32 keeps these
    values = np.full((1, 7, 4), 6.0, np.float32)
    calibration = {1: LaserCalibration(np.eye(4), np.array([0.4]), (0, 0))}
    own = np.float32([0, 0, np.pi / 2, *frame[:3, 3]])
    image = RangeImage(values, None, np.tile(own, (1, 7, 1)))
    points = lidar.points_of_frame({1: (image, None)}, calibration, frame, "x").points_vehicle
    np.testing.assert_allclose(
        points, _placed(values, calibration[1]), atol=1e-6
    )  # of a float32 quarter turn


def test_only_points_that_a_camera_sees_are_kept_where_asked() -> None:
    values = np.ones((1, 4, 4), np.float32)
    values[0, :, 0] = [1, 2, 3, 4]
    projection = np.zeros((1, 4, 6), np.int32)
    projection[0, 1], projection[0, 2] = [3, 7, 8, 0, 0, 0], [0, 0, 0, 2, 5, 6]
    rasters = {2: (RangeImage(values, projection), RangeImage(values, None))}
    calibration = {2: replace(_LIDAR, inclinations=np.zeros(1))}
    every = lidar.points_of_frame(rasters, calibration, np.eye(4), "x")
    seen = lidar.points_of_frame(rasters, calibration, np.eye(4), "x", only_seen=True)
    assert len(every.projection) == 8
    np.testing.assert_array_equal(seen.projection, projection[0, 1:3])
    np.testing.assert_array_equal(seen.points_vehicle, every.points_vehicle[1:3])


def test_companions_of_a_range_image_on_another_grid_are_refused() -> None:
    values = np.ones((1, 4, 4), np.float32)
    calibration = {1: replace(_LIDAR, inclinations=np.zeros(1))}
    for image in (
        RangeImage(values, np.zeros((1, 3, 6), np.int32)),
        RangeImage(values, None, np.zeros((2, 4, 6), np.float32)),
    ):
        with pytest.raises(ConventionError, match="other sizes"):
            lidar.points_of_frame({1: (image, None)}, calibration, np.eye(4), "x")


def test_the_smallest_box_that_holds_a_point_owns_it() -> None:
    def label(name: str, centre: list[float], size: list[float], heading: float) -> Labelled:
        return Labelled(name, 1, Box(np.array(centre), np.array(size), heading), np.zeros(3))

    head = FrameHead(
        0,
        np.eye(4),
        {},
        (
            label("long, turned", [0.0, 0, 0], [6.0, 2, 2], np.pi / 2),
            label("small, inside", [0.0, 2, 0], [1.0, 1, 1], 0.3),
            label("far", [50.0, 0, 0], [1.0, 1, 1], 0.0),
            label("slanted", [20.0, 0, 0], [6.0, 1, 1], 0.5),
        ),
    )
    places = np.array([[0.0, 2.0, 0], [0, 2.9, 0], [2.9, 0, 0], [50.54, 0, 0], [0, 0, 1.2], [22.2, 1.2, 0]])
    points = lidar.Points(places, np.zeros((6, 6), np.int32), np.zeros(6, bool))
    np.testing.assert_array_equal(assemble._owners(points, head, 0.05), [1, 0, -1, 2, -1, 3])
    np.testing.assert_array_equal(assemble._owners(points, head, 0.0), [1, 0, -1, -1, -1, 3])
    np.testing.assert_array_equal(assemble._owners(points, replace(head, objects=()), 0.05), [-1] * 6)


def test_the_second_slot_of_the_projections_is_used() -> None:
    projection = np.array([[1, 3, 4, 2, 7, 8], [2, 5, 6, 0, 0, 0]], np.int32)
    points = np.array([[1.0, 0, 0], [2.0, 0, 0]])
    owner = np.array([-1, 0])
    z_rows = np.array([[1.0, 0, 0, 0.5], [10.0, 0, 0, 0.25]])
    at, uv, z = kernels.see_points(points, projection, owner, z_rows, 2)
    np.testing.assert_array_equal(at, [1, 0])
    np.testing.assert_array_equal(uv, [[5.5, 6.5], [7.5, 8.5]])
    np.testing.assert_array_equal(z, [20.25, 1.5])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_the_nearest_point_of_a_pixel_wins(dtype: Any) -> None:
    uv = np.array([[1.5, 0.5], [1.2, 0.9], [1.9, 0.1], [9.0, 0.5], [-0.1, 0.5], [2.5, 1.5], [0.5, 0.5]])
    z = np.array([5.0, 3.0, 4.0, 1.0, 1.0, 2.0, -1.0])
    depth, ids, rows, cols = assemble._nearest(uv, z, np.arange(1, 8, dtype=dtype), (3, 2))
    assert depth[0, 1] == 3.0 and ids[0, 1] == 2 and ids.dtype == dtype
    assert depth[1, 2] == 2.0 and ids[1, 2] == 6
    assert np.isfinite(depth).sum() == 2 and np.count_nonzero(ids) == 2
    assert sorted(zip(rows, cols, strict=True)) == [(0, 1), (1, 2)]


def test_of_equally_near_points_the_last_wins() -> None:
    uv, ids = np.full((3, 2), 0.5), np.array([7, 8, 9], np.uint16)
    _, drawn, _, _ = assemble._nearest(uv, np.array([2.0, 2.0, 3.0]), ids, (1, 1))
    assert drawn[0, 0] == 8


def _shadowed(z_depth: np.ndarray, spacing: tuple[int, int]) -> np.ndarray:
    rows, cols = np.nonzero(np.isfinite(z_depth))
    out = np.zeros(z_depth.shape, bool)
    out[rows, cols] = assemble.shadowed(z_depth, rows, cols, spacing)
    return out


def test_points_behind_a_surface_are_shadowed_and_slanted_ground_is_not() -> None:
    rows = np.arange(40)[:, None] + np.zeros((1, 40))
    ground = (400.0 / (rows + 5)).astype(np.float32)  # 1/z is linear in the image
    sparse = np.where((np.arange(40) % 3 == 0)[:, None], ground, np.nan).astype(np.float32)
    assert not _shadowed(sparse, (1, 3)).any()
    wall = np.full((40, 40), 10.0, np.float32)
    wall[::2] = np.nan
    wall[21, 20] = 30.0
    found = _shadowed(wall, (1, 2))
    assert found[21, 20] and found.sum() == 1


def test_shadowed_points_are_those_of_the_plain_rule() -> None:
    """Windows cross the blocks in which the kernel looks first, and the raster's borders."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        height, width = rng.integers(5, 40, 2)
        z = np.where(rng.random((height, width)) < 0.15, rng.choice([2.0, 10.0], (height, width)), np.nan)
        z = (z * rng.uniform(0.95, 1.05, z.shape)).astype(np.float32)
        spacing = tuple(rng.integers(1, 7, 2))
        across, down = 2 * spacing[0], 2 * spacing[1]
        wide, tall = across // 4, down // 4

        def nearer(limit: float, top: int, bottom: int, left: int, right: int, z: np.ndarray = z) -> np.bool_:
            window = z[max(top, 0) : max(bottom + 1, 0), max(left, 0) : max(right + 1, 0)]
            return (window < limit).any()

        want = np.zeros(z.shape, bool)
        for r, c in zip(*np.nonzero(np.isfinite(z)), strict=True):
            limit = float(z[r, c]) * 0.9
            want[r, c] = (
                nearer(limit, r - down, r - 1, c - wide, c + wide)
                and nearer(limit, r + 1, r + down, c - wide, c + wide)
            ) or (
                nearer(limit, r - tall, r + tall, c - across, c - 1)
                and nearer(limit, r - tall, r + tall, c + 1, c + across)
            )
        np.testing.assert_array_equal(_shadowed(z, spacing), want)


def test_the_frames_time_is_found_from_the_vehicles_path() -> None:
    """Poses 60 ms after the start of the sweep, not the usual 50; a standing vehicle tells nothing."""

    def head(k: int, speed: float) -> FrameHead:
        def pose(t: float) -> np.ndarray:
            out = np.eye(4)
            out[0, 3] = speed * t + 1e4
            return out

        start = 0.1 * k
        times = [start + dt for dt in (0.022, 0.042, 0.052, 0.062, 0.082)]
        images = {c: Image(b"", pose(t), t, 0, 0, 0) for c, t in enumerate(times, start=1)}
        return FrameHead(round(start * 1e6), pose(start + 0.06), images, ())

    _, offset = motion.label_times([head(k, 9.0) for k in range(5)])
    assert offset == pytest.approx(0.06, abs=1e-4)
    _, offset = motion.label_times([head(k, 0.0) for k in range(5)])
    assert offset == motion.HALF_SWEEP


def test_float32_transforms_and_named_cameras_of_older_tables(
    natives: dict[str, Path], scene_files: dict[str, Path], tmp_path: Path
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = {1: "FRONT", 2: "FRONT_LEFT", 3: "FRONT_RIGHT", 4: "SIDE_LEFT", 5: "SIDE_RIGHT"}
    for path in natives["v2"].rglob("*.parquet"):
        table = pq.read_table(path)
        for k, field in enumerate(table.schema):
            if field.name.endswith("extrinsic.transform"):
                column = table[k].combine_chunks().cast(pa.list_(pa.float32(), 16))
                table = table.set_column(k, field.name, column)
            if field.name == "key.camera_name":
                table = table.set_column(k, field.name, pa.array([names[v.as_py()] for v in table[k]]))
        target = tmp_path / "n" / path.relative_to(natives["v2"])
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
    path = convert(tmp_path / "n", tmp_path / "out.h5")
    with datakit.open_scene(path) as old, datakit.open_scene(scene_files["v2"]) as new:
        for name, view in new.views.items():
            np.testing.assert_allclose(old.views[name].world_from_cam, view.world_from_cam, atol=1e-6)


def test_optional_components_may_be_missing(natives: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "n"
    shutil.copytree(natives["v2"], root)
    for component in ("lidar_camera_synced_box", "stats", "lidar", "lidar_box"):
        shutil.rmtree(root / "training" / component)
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        assert np.isnan(scene.views["front"].z_depth(0)).all()
    assert {p.severity for p in waymo.probe(root).problems} == {"warning"}
    shutil.rmtree(root / "training" / "vehicle_pose")
    with pytest.raises(LayoutError, match="component"):
        convert(root, tmp_path / "out2.h5")


def test_a_table_that_is_no_parquet_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(natives["v2"], tmp_path / "n")
    victim = next((tmp_path / "n" / "training" / "lidar").glob("*.parquet"))
    data = victim.read_bytes()
    victim.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="parquet"):
        convert(tmp_path / "n", tmp_path / "out.h5")
    assert any(p.severity == "error" for p in waymo.probe(tmp_path / "n").problems)


def test_a_table_of_what_arrow_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by fuzzing: its other errors are neither ValueErrors nor OSErrors."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def refuse(path: Path) -> None:
        raise pyarrow.lib.ArrowNotImplementedError("Integers with more than 64 bits not implemented")

    monkeypatch.setattr(parquet, "ParquetFile", refuse)
    with pytest.raises(FormatError, match="64 bits"):
        v2.count_rows(v2.Tables({"stats": tmp_path}, "x"), "stats")


def test_rows_out_of_the_order_of_time_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    pq = pytest.importorskip("pyarrow.parquet")
    shutil.copytree(natives["v2"], tmp_path / "n")
    victim = next((tmp_path / "n" / "training" / "lidar").glob("*.parquet"))
    table = pq.read_table(victim)
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), victim)
    with pytest.raises(FormatError, match="order of time"):
        convert(tmp_path / "n", tmp_path / "out.h5")


def test_shapes_are_checked_against_their_values() -> None:
    import zlib

    message = message_class("MatrixFloat")()
    message.data.extend([1.0] * 8)
    message.shape.dims.extend([1 << 20, 1 << 20, 4])
    with pytest.raises(FormatError, match="shape"):
        v1._matrix(zlib.compress(message.SerializeToString()), "MatrixFloat", np.float32, 4, "x")


def test_a_zlib_bomb_is_refused() -> None:
    import zlib

    with pytest.raises(FormatError, match="wrong size"):
        v1._inflate(zlib.compress(b"\0" * (v1._MAX_VALUES * 10 + 1)), "x")
    with pytest.raises(FormatError, match="truncated"):
        v1._inflate(zlib.compress(b"\0" * 1000)[:-6], "x")
    with pytest.raises(FormatError, match="corrupt"):
        v1._inflate(b"no zlib at all", "x")


def test_poses_that_are_not_rigid_are_refused() -> None:
    with pytest.raises(ConventionError, match="rigid"):
        v1.rigid(np.diag([1.0, 1.0, -1.0, 1.0]), "x")
    with pytest.raises(ConventionError, match="rigid"):
        v1.rigid(np.diag([1.1, 1.0, 1.0, 1.0]), "x")


def test_a_pose_without_an_error_is_refused() -> None:
    """Numbers too large to be squared may leave NaN, which is above no limit."""
    pose = np.eye(4)
    pose[0, 0] = np.nan
    with pytest.raises(ConventionError, match="not rigid"):
        v1.rigid(pose, "x")


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (1 << 30, 1 << 30)])
def test_cameras_of_absurd_sizes_are_refused(size: tuple[int, int]) -> None:
    """Depth is drawn in that size, whatever the picture's is."""
    with pytest.raises(FormatError, match="absurd"):
        v1.camera_size(*size, "x")


def test_texts_that_are_no_utf8_are_refused(natives: dict[str, Path]) -> None:
    """Found by fuzzing: the runtime gives their bytes, which cannot be sorted among texts, or stored as one."""
    frame, where, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    wire = frame.SerializeToString()
    for text, read in ((frame.laser_labels[0].id, v1.head), (frame.context.stats.weather, v1.calibration)):
        assert text.encode() in wire
        bad = parse("Frame", wire.replace(text.encode(), b"\xff" * len(text)), where)
        with pytest.raises(FormatError, match="UTF-8"):
            read(bad, where)


@pytest.mark.parametrize("lens", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1e300, 1, 1), (1, 1, -1e300, 1)])
def test_absurd_cameras_are_refused(lens: tuple[float, ...]) -> None:
    """Found by fuzzing: their numbers went on to where integers of 64 bits are asked for."""
    with pytest.raises(ConventionError, match="absurd"):
        v1.camera_matrix(lens, "x")


def test_beams_that_are_no_angles_are_refused(natives: dict[str, Path]) -> None:
    """Found by fuzzing: the points' spacing in a picture follows from them, as an integer of 64 bits."""
    frame, where, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    for name, value in (("beam_inclination_min", np.nan), ("beam_inclination_max", 1e20)):
        wrong = type(frame).FromString(frame.SerializeToString())
        setattr(wrong.context.laser_calibrations[0], name, value)
        with pytest.raises(ConventionError, match="angle"):
            v1.calibration(wrong, where)


def test_times_that_are_no_numbers_are_refused(natives: dict[str, Path]) -> None:
    frame, where, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    frame.images[0].camera_trigger_time = np.nan
    with pytest.raises(ConventionError, match="times"):
        v1.head(frame, where)


@pytest.mark.parametrize(
    ("component", "column", "values"),
    [
        ("camera_calibration", "key.camera_name", [1.5] * 5),
        ("camera_calibration", "key.camera_name", [[1]] * 5),
        ("camera_calibration", "width", ["wide"] * 5),
        ("camera_calibration", "width", [1 << 40] * 5),
        ("camera_calibration", "k1", ["x"] * 5),
        ("camera_image", "].image", [1 << 40] * 25),
        ("lidar_calibration", "beam_inclination.values", [7] * 5),
        ("lidar_calibration", "beam_inclination.values", ["x"] * 5),
        ("lidar", "return1.values", ["x"] * 25),
        ("lidar", "return1.values", [["x"]] * 25),
        ("lidar", "return1.values", [{"a": 1}] * 25),
        ("lidar", "return1.shape", ["x"] * 25),
        ("lidar_box", "].type", ["car"] * 100),
        ("lidar_box", "speed.x", ["fast"] * 100),
        ("vehicle_pose", "timestamp_micros", ["now"] * 5),
    ],
)
def test_v2_columns_of_another_type_are_refused(
    natives: dict[str, Path], tmp_path: Path, component: str, column: str, values: list[Any]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    root = Path(shutil.copytree(natives["v2"], tmp_path / "n"))
    (path,) = (root / "training" / component).iterdir()
    table = parquet.read_table(path)
    (at,) = (k for k, name in enumerate(table.schema.names) if name.endswith(column))
    columns = table.to_pydict() | {table.schema.names[at]: values[: len(table)]}
    columns = {name: rows[: len(values)] for name, rows in columns.items()}
    parquet.write_table(type(table).from_pydict(columns), path)
    with pytest.raises((FormatError, ConventionError)):
        for _ in waymo.read(root, only_scene(root), waymo.Params()).frames:
            pass


def test_two_segments_of_one_name_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    data = _segment_file(natives["v1"]).read_bytes()
    for split in ("training", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "segment-7_with_camera_labels.tfrecord").write_bytes(data)
    with pytest.raises(LayoutError, match="same id"):
        list(waymo.scenes(tmp_path, waymo.Params()))


def test_wrong_roots_and_forms(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="No Waymo"):
        list(waymo.scenes(tmp_path, waymo.Params()))
    with pytest.raises(LayoutError, match="folder"):
        list(waymo.scenes(tmp_path / "none", waymo.Params()))
    with pytest.raises(UsageError, match="form"):
        waymo.write_native(iter([]), tmp_path, "v3")
    from datakit.worlds import random_world

    with pytest.raises(ConventionError, match="vehicle"):
        waymo.write_native(iter([random_world(0, num_frames=2, size=(16, 16))]), tmp_path, "v1")


def test_garbage_gives_typed_errors(natives: dict[str, Path], tmp_path: Path) -> None:
    """Whatever a frame's bytes are, its record's CRCs being right, only typed errors come out."""
    rng = np.random.default_rng(0)
    frame, _, _ = next(v1.frames(_segment_file(natives["v1"]), check_crc=True))
    good = frame.SerializeToString()
    root = tmp_path / "n"
    root.mkdir()
    outcomes = set()
    for _ in range(40):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(0, 4000)] = rng.integers(0, 256)
        (root / "segment-1.tfrecord").write_bytes(_record(bytes(data)))
        try:
            for _ in waymo.read(root, only_scene(root), waymo.Params()).frames:
                outcomes.add("read")
        except DatakitError as err:
            outcomes.add(type(err).__name__)
    assert {"FormatError", "ConventionError"} & outcomes


def test_v2_needs_its_vehicle_poses_for_every_row(natives: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    pq = pytest.importorskip("pyarrow.parquet")
    shutil.copytree(natives["v2"], tmp_path / "n")
    victim = next((tmp_path / "n" / "training" / "vehicle_pose").glob("*.parquet"))
    pq.write_table(pq.read_table(victim).slice(0, 3), victim)
    with pytest.raises(FormatError, match="vehicle pose"):
        v2.heads(v2.open_tables(tmp_path / "n", Path("training"), victim.stem))
