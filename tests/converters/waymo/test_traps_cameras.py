"""Traps of cameras: pictures that are missing, poses, sizes, lenses and times that are none.

Each test fails without its handling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters.waymo import v1
from converters.waymo.proto import message_class
from datakit.errors import ConventionError, FormatError

from .conftest import convert, drop, edited_segment


def test_a_camera_may_miss_a_frame_or_all(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        drop(frame.images, lambda image: image.name == 5 or (image.name == 2 and number == 1))

    with datakit.open_scene(
        convert(edited_segment(natives, tmp_path / "n", edit), tmp_path / "out.h5")
    ) as scene:
        assert list(scene.views) == ["front", "front_left", "front_right", "side_left"]
        view = scene.views["front_left"]
        assert view.num_frames == 4 and view.frame_names[1] == scene.views["front"].frame_names[2]


def test_frames_without_pictures_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    root = edited_segment(natives, tmp_path / "n", lambda frame, number: frame.ClearField("images"))
    with pytest.raises(ConventionError, match="No picture"):
        convert(root, tmp_path / "out.h5")


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
    camera = message_class("CameraCalibration")(name=1, width=size[0], height=size[1], intrinsic=[1.0] * 9)
    with pytest.raises(FormatError, match="absurd"):
        v1._camera(camera, "x")


@pytest.mark.parametrize("lens", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1e300, 1, 1), (1, 1, -1e300, 1)])
def test_absurd_cameras_are_refused(lens: tuple[float, ...]) -> None:
    """Found by fuzzing: their numbers went on to where integers of 64 bits are asked for."""
    with pytest.raises(ConventionError, match="absurd"):
        v1.camera_matrix(lens, "x")


def test_times_that_are_no_numbers_are_refused(natives: dict[str, Path]) -> None:
    frame, where, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    frame.images[0].camera_trigger_time = np.nan
    with pytest.raises(ConventionError, match="times"):
        v1.head(frame, where)
