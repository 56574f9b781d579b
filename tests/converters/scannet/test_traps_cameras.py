"""Traps of cameras: poses, times, sizes, intrinsics and extrinsics.

Each test fails without its handling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.scannet as scannet
from datakit import geometry as g
from datakit.errors import ConventionError, FormatError

from .scans import drain, hand_frames, jpeg, k4, open_scan, write_hand

# --- poses and times --------------------------------------------------------------------------------------------------


LOST = np.full((4, 4), -np.inf)


@pytest.mark.parametrize("lost", [LOST, np.full((4, 4), np.nan), np.where(np.eye(4) > 0, np.inf, 0)])
def test_trap_a_lost_pose_is_unknown_and_the_frame_stays(tmp_path: Path, lost: np.ndarray) -> None:
    frames = hand_frames(4)
    frames[2] = hand_frames(3, camera_to_world=lost)[2]
    write_hand(tmp_path, frames)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.pose_is_known.tolist() == [True, True, False, True]
        assert np.isnan(view.world_from_cam[2]).all() and view.frame_names == ("0", "1", "2", "3")
        assert view.world_from_cam[3, 0, 3] == pytest.approx(0.3) and view.z_depth(2) is not None


def test_trap_single_precision_rotations_become_exact_ones(tmp_path: Path) -> None:
    pose = g.rigid_from(g.rotation_from_axis_angle([0.4, -1.1, 0.7]), [1, 2, 3])
    rounded = np.round(pose, 6)  # as exported; the contract asks for 1e-6 of orthonormality
    write_hand(tmp_path, hand_frames(1, camera_to_world=rounded))
    with open_scan(tmp_path, tmp_path / "out") as scene:
        found = scene.views["camera"].world_from_cam[0]
    assert np.abs(found[:3, :3].T @ found[:3, :3] - np.eye(3)).max() < 1e-12
    assert np.abs(found - pose).max() < 2e-6


@pytest.mark.parametrize(
    "pose",
    [np.zeros((4, 4)), np.diag([1, 1, -1, 1]), np.diag([2, 2, 2, 1]), np.eye(4) * [1, 1, 1, 0.5]],
    ids=["zero", "mirror", "scaled", "bottom"],
)
def test_trap_a_finite_pose_that_is_not_rigid_is_refused(tmp_path: Path, pose: np.ndarray) -> None:
    write_hand(tmp_path, [hand_frames(1)[0], hand_frames(1, camera_to_world=pose)[0]])
    with pytest.raises(ConventionError, match="not rigid") as caught:
        drain(tmp_path)
    assert "frame 1" in str(caught.value)


@pytest.mark.parametrize(
    ("stamps", "how"),
    [
        ([0, 0, 0, 0], "all time stamps are 0"),
        ([5, 5, 5, 5], "do not increase"),
        ([1000, 34000, 33000, 99000], "do not increase"),
        ([1000, 34000, 2**64 - 1, 99000], "do not increase"),
        ([2**64 - 1] * 4, "do not increase"),
        ([0, 33_333, 66_666, 90_000_000], "do not increase"),
        ([1, 2, 3, 4], "e-06 s apart"),
        ([0, 3_000_000, 6_000_000, 9_000_000], "3 s apart"),
    ],
)
def test_trap_time_stamps_that_cannot_be_believed(tmp_path: Path, stamps: list[int], how: str) -> None:
    write_hand(tmp_path, [hand_frames(1, timestamp=stamp)[0] for stamp in stamps])
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert np.allclose(scene.views["camera"].times, np.arange(4) / 30)
        assert how in scene.metadata["times"] and "30 Hz" in scene.metadata["times"]


def test_good_time_stamps_are_microseconds_from_the_first(tmp_path: Path) -> None:
    write_hand(tmp_path, [hand_frames(1, timestamp=stamp)[0] for stamp in (7_000_000, 7_033_000, 7_066_000)])
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert np.allclose(scene.views["camera"].times, [0, 0.033, 0.066], atol=1e-12)
        assert scene.metadata["times"] == "timestamp_color" and scene.metadata["first_timestamp"] == 7_000_000
    with open_scan(tmp_path, tmp_path / "2", scannet.Params(timestamps="never", frame_rate=10)) as scene:
        assert np.allclose(scene.views["camera"].times, [0, 0.1, 0.2])


# --- sizes, intrinsics, alignment -------------------------------------------------------------------------------------


def test_trap_pixel_centres_are_integers_in_the_source(tmp_path: Path) -> None:
    write_hand(tmp_path)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.intrinsics[0, :2, 2].tolist() == [8, 6] and view.depth_intrinsics[0, :2, 2].tolist() == [
            4,
            3,
        ]


def test_trap_sizes_and_k_come_from_the_head_and_may_be_anything(tmp_path: Path) -> None:
    """scene0711_00 has fx != fy; scene0704_* and scene0705_* have colour and depth of one size."""
    head = {
        "colour_size": (8, 6),
        "intrinsic_color": k4(7.1, 7.3, 3.7, 2.4),
        "intrinsic_depth": k4(7.1, 7.3, 3.7, 2.4),
    }
    write_hand(tmp_path, hand_frames(2, colour=jpeg((8, 6))), **head)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.size == view.depth_size == (8, 6)
        assert np.allclose(view.intrinsics[0], [[7.1, 0, 4.2], [0, 7.3, 2.9], [0, 0, 1]], atol=1e-6)


def test_trap_a_jpeg_of_another_size_than_the_head_says(tmp_path: Path) -> None:
    write_hand(tmp_path, hand_frames(1, colour=jpeg((8, 6))))
    with pytest.raises(FormatError, match="another size") as caught:
        drain(tmp_path)
    assert "frame 0: colour" in str(caught.value)


@pytest.mark.parametrize("which", ["extrinsic_color", "extrinsic_depth"])
def test_trap_a_head_with_extrinsics_is_refused(tmp_path: Path, which: str) -> None:
    moved = np.eye(4)
    moved[0, 3] = -0.038
    write_hand(tmp_path, **{which: moved})
    with pytest.raises(ConventionError, match="not registered") as caught:
        drain(tmp_path)
    assert which in str(caught.value)


@pytest.mark.parametrize(
    "matrix",
    [
        k4(0, 1, 7.5, 5.5),
        k4(16, np.nan, 7.5, 5.5),
        k4(16, 16, 7.5, 5.5).T,
        k4(16, 16, 7.5, 5.5) + np.eye(4, k=3),
        k4(16, 16, 7.5, 5.5) + np.diag([0, 0, 0.02, 0]),
        k4(16, 16, 7.5, 5.5) * 2,
        np.zeros((4, 4)),
    ],
)
def test_trap_an_intrinsic_matrix_that_is_none(tmp_path: Path, matrix: np.ndarray) -> None:
    write_hand(tmp_path, intrinsic_color=matrix)
    with pytest.raises(ConventionError, match="intrinsic_color"):
        drain(tmp_path)
