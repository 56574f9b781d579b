"""Traps of range images: beams, columns, returns, pixel poses, shapes and packing.

Each test fails without its handling.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters.waymo import lidar, v1
from converters.waymo.proto import message_class
from converters.waymo.segment import LaserCalibration, RangeImage
from datakit.errors import ConventionError, FormatError

from .conftest import convert, edited_segment

# --- where a point is -------------------------------------------------------------------------------------------------


_LIDAR = LaserCalibration(np.eye(4), None, (-0.4, 0.2))


def _placed(values: np.ndarray, calibration: LaserCalibration, pose: np.ndarray | None = None) -> np.ndarray:
    """Points of a range image of TOP, for the vehicle's pose at the origin."""
    image = RangeImage(values, None, None if pose is None else pose.astype(np.float32))
    return lidar.points_of_frame({1: (image, None)}, {1: calibration}, np.eye(4), "x").points_vehicle


def test_uniform_beams_are_bin_centres_highest_first() -> None:
    np.testing.assert_allclose(lidar.beam_inclinations(_LIDAR, 3), [0.1, -0.1, -0.3], atol=1e-12)


def test_listed_beams_are_lowest_first() -> None:
    listed = replace(_LIDAR, inclinations=np.array([-0.3, 0.0, 0.1]))
    np.testing.assert_array_equal(lidar.beam_inclinations(listed, 3), [0.1, 0.0, -0.3])
    with pytest.raises(ConventionError, match="beams"):
        lidar.beam_inclinations(listed, 4)


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


# --- what is missing or not to be believed ----------------------------------------------------------------------------


def test_frames_without_lidar_have_no_depth(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        if number == 2:
            del frame.lasers[:]

    with datakit.open_scene(
        convert(edited_segment(natives, tmp_path / "n", edit), tmp_path / "out.h5")
    ) as scene:
        view = scene.views["front"]
        assert np.isnan(view.z_depth(2)).all() and np.isfinite(view.z_depth(1)).any()


def test_companions_of_a_range_image_on_another_grid_are_refused() -> None:
    values = np.ones((1, 4, 4), np.float32)
    calibration = {1: replace(_LIDAR, inclinations=np.zeros(1))}
    for image in (
        RangeImage(values, np.zeros((1, 3, 6), np.int32)),
        RangeImage(values, None, np.zeros((2, 4, 6), np.float32)),
    ):
        with pytest.raises(ConventionError, match="other sizes"):
            lidar.points_of_frame({1: (image, None)}, calibration, np.eye(4), "x")


def test_shapes_are_checked_against_their_values() -> None:
    message = message_class("MatrixFloat")()
    message.data.extend([1.0] * 8)
    message.shape.dims.extend([1 << 20, 1 << 20, 4])
    with pytest.raises(FormatError, match="shape"):
        v1._matrix(zlib.compress(message.SerializeToString()), "MatrixFloat", np.float32, 4, "x")


def test_a_zlib_bomb_is_refused() -> None:
    with pytest.raises(FormatError, match="wrong size"):
        v1._inflate(zlib.compress(b"\0" * (v1._MAX_VALUES * 10 + 1)), "x")
    with pytest.raises(FormatError, match="truncated"):
        v1._inflate(zlib.compress(b"\0" * 1000)[:-6], "x")
    with pytest.raises(FormatError, match="corrupt"):
        v1._inflate(b"no zlib at all", "x")


def test_beams_that_are_no_angles_are_refused(natives: dict[str, Path]) -> None:
    """Found by fuzzing: the points' spacing in a picture follows from them, as an integer of 64 bits."""
    frame, where, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    for name, value in (("beam_inclination_min", np.nan), ("beam_inclination_max", 1e20)):
        wrong = type(frame).FromString(frame.SerializeToString())
        setattr(wrong.context.laser_calibrations[0], name, value)
        with pytest.raises(ConventionError, match="angle"):
            v1.calibration(wrong, where)
