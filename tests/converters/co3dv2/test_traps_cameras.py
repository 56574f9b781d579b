"""Traps of the viewpoints: axes, intrinsics, poses that are none.

Each test fails without its handling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.co3dv2 as co3dv2
from converters.co3dv2.annotations import parse_frame
from converters.co3dv2.camera import intrinsics_of, pose_of
from datakit.errors import QualityError

from .snippets import FRAME, frame, viewpoint
from .takes import FRAMES, PARAMS, drain, open_take, write_take


def test_trap_row_vectors_and_axes() -> None:
    """A camera at x = 3 that looks along -x with y up, worked out by hand."""
    # Columns of R are PyTorch3D's axes in the world: left (0, 0, 1), up (0, 1, 0), ahead (-1, 0, 0).
    rotation = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0.0]])
    translation = -np.array([3.0, 0, 0]) @ rotation
    pose, _ = pose_of(viewpoint(R=rotation.tolist(), T=translation.tolist()), PARAMS)
    assert pose is not None
    assert np.allclose(pose[:3, 3], [3, 0, 0])
    # OpenCV: right, down, ahead.
    assert np.allclose(pose[:3, :3].T, [[0, 0, -1], [0, -1, 0], [-1, 0, 0]])


@pytest.mark.parametrize("kind", ["ndc_isotropic", "ndc_norm_image_bounds", None])
@pytest.mark.parametrize("size", [(30, 40), (40, 30)])
def test_trap_all_intrinsics_formats(kind: str | None, size: tuple[int, int]) -> None:
    k = intrinsics_of(viewpoint(intrinsics_format=kind), size)
    unit = (15, 15) if kind == "ndc_isotropic" else (size[0] / 2, size[1] / 2)
    want = [
        [4 * unit[0], 0, size[0] / 2 - 0.1 * unit[0]],
        [0, 4.5 * unit[1], size[1] / 2 + 0.2 * unit[1]],
        [0, 0, 1],
    ]
    assert k is not None and np.allclose(k, want)


def test_trap_absent_format_is_the_legacy_one() -> None:
    given = {key: value for key, value in FRAME["viewpoint"].items() if key != "intrinsics_format"}
    note = parse_frame(frame(viewpoint=given), "x")
    assert note.viewpoint is not None and note.viewpoint.format == "ndc_norm_image_bounds"


def test_trap_corner_origin_in_the_middle() -> None:
    """NDC 0 is the middle of the image, W / 2, not (W - 1) / 2."""
    k = intrinsics_of(viewpoint(principal_point=[0, 0]), (30, 40))
    assert k is not None and k[:2, 2].tolist() == [15, 20]


def test_trap_intrinsics_change_from_frame_to_frame(raw: Path, tmp_path: Path) -> None:
    with open_take(raw, tmp_path / "o") as scene:
        focal = scene.views["camera"].intrinsics[:, 0, 0]
        assert len(np.unique(focal)) == FRAMES


def test_trap_frame_without_viewpoint(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", no_viewpoint={1})
    with open_take(root, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.pose_is_known.tolist() == [True, False, True, True, True]
        assert np.isnan(view.world_from_cam[1]).all()
        assert np.array_equal(view.intrinsics[1], view.intrinsics[0])
        assert scene.metadata["intrinsics_of_a_neighbour"] == ["frame000002"]
        assert scene.metadata["poses_unknown"] == {"frame000002": "no viewpoint"}
    with pytest.raises(QualityError, match="has a camera"):
        drain(write_take(tmp_path / "r2", no_viewpoint=set(range(FRAMES))))


# --- defects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "axis"), [(1, 0), (-1, 1), (-1, 2)])
def test_trap_far_cameras_of_either_sign(sign: int, axis: int) -> None:
    translation = [0.0, 0.0, 0.0]
    translation[axis] = sign * 2e5
    assert pose_of(viewpoint(T=translation), PARAMS) == (None, "T beyond 100000")
    pose, _ = pose_of(viewpoint(T=translation), co3dv2.Params(max_translation=1e6))
    assert pose is not None


@pytest.mark.parametrize("scale", [0.9, 1.1, -1.0])
def test_trap_rotations_that_are_none(scale: float) -> None:
    pose, why = pose_of(viewpoint(R=(np.cbrt(scale) * np.eye(3)).tolist()), PARAMS)
    assert pose is None and why.startswith("R is no rotation")


def test_trap_sheared_rotation_of_determinant_1() -> None:
    assert pose_of(viewpoint(R=[[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]), PARAMS)[0] is None


def test_trap_rotation_tolerance_is_a_parameter() -> None:
    rough = viewpoint(R=(np.cbrt(0.995) * np.eye(3)).tolist())
    pose, _ = pose_of(rough, PARAMS)
    assert pose is not None and np.abs(pose[:3, :3].T @ pose[:3, :3] - np.eye(3)).max() < 1e-12
    assert pose_of(rough, co3dv2.Params(rotation_tolerance=0.001))[0] is None


def test_trap_bad_poses_of_a_sequence_become_unknown(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", far={1}, skewed={4})
    with open_take(root, tmp_path / "o") as scene:
        assert scene.views["camera"].pose_is_known.tolist() == [True, False, True, True, False]
        assert list(scene.metadata["poses_unknown"]) == ["frame000002", "frame000008"]
        assert scene.provenance["params"]["rotation_tolerance"] == 0.01
