"""Rolling shutters in closed form: a camera that moves and turns steadily, read out line by line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datakit import geometry as g
from datakit.motion.sweeps import along_rays, project_into

SIZE = (60, 40)
K = np.array([[55.0, 0, 30], [0, 55, 20], [0, 0, 1]])
#: m/s and rad/s in the world.
SPEED, TURN = np.array([9.0, -1.0, 4.0]), np.array([0.1, -0.6, 0.2])
TIMES = np.arange(4) * 0.1


def _pose(times: np.ndarray) -> np.ndarray:
    return g.rigid_from(g.rotation_from_axis_angle(times[:, None] * TURN), times[:, None] * SPEED)


def _view(axis: str, readout: float, times: np.ndarray | None = None) -> Any:
    """Make a view of four frames, each read out around its own time; a negative readout goes the other way."""
    count = {"row": SIZE[1], "column": SIZE[0], "global": 1}[axis]
    lines = TIMES[:, None] + readout * ((np.arange(count) + 0.5) / count - 0.5)
    return SimpleNamespace(
        size=SIZE,
        num_frames=4,
        times=TIMES,
        intrinsics=np.broadcast_to(K, (4, 3, 3)),
        world_from_cam=_pose(TIMES),
        pose_is_known=np.ones(4, bool),
        record={
            "camera_model": "pinhole",
            "distortion": (),
            "shutter_axis": axis,
            "shutter_times": None if axis == "global" else lines,
        },
    )


def _seen(view: Any, t: int, uv: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Put points (N, 3) at distances z along the rays that pixels' lines had when they were exposed."""
    axis = 0 if view.record["shutter_axis"] == "column" else 1
    poses = _pose(view.record["shutter_times"][t][uv[:, axis].astype(int)])
    local = g.unproject_pixels(uv, z, K)
    return np.einsum("nij,nj->ni", poses[:, :3, :3], local) + poses[:, :3, 3]


@pytest.mark.parametrize(
    ("axis", "readout"), [("row", 0.05), ("row", -0.05), ("column", 0.05), ("column", -0.05)]
)
@pytest.mark.parametrize("t", [0, 2, 3])
def test_points_are_projected_to_the_line_that_sees_them(axis: str, readout: float, t: int) -> None:
    view, rng = _view(axis, readout), np.random.default_rng(t)
    uv = np.floor(rng.uniform(0, SIZE, (300, 2))) + 0.5
    world = _seen(view, t, uv, rng.uniform(6.0, 40.0, 300))
    own = g.transform_points(g.invert_rigid(view.world_from_cam[t]), world)
    found, z = project_into(view, t, own)
    np.testing.assert_allclose(found, uv, atol=1e-6)
    np.testing.assert_array_equal(z, own[:, 2])
    # The way back, by the depth of the frame's own pose, and what is missed without the shutter.
    rays = g.unproject_pixels(uv, np.ones(300), K)
    np.testing.assert_allclose(along_rays(view, t, uv, rays, z), world, atol=1e-9)
    plain, _ = project_into(_view("global", 0.0), t, own)
    assert np.median(np.linalg.norm(plain - uv, axis=1)) > 0.1


def test_without_times_or_motion_all_lines_are_at_the_frames_own_pose() -> None:
    points = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 20], (50, 3))
    want, _ = g.project_points(points, K)
    untimed, lone = _view("row", 0.05), _view("column", 0.05)
    untimed.record["shutter_times"] = None
    lone.pose_is_known = np.arange(4) == 1
    for view in (_view("global", 0.0), untimed, lone):
        np.testing.assert_array_equal(project_into(view, 1, points)[0], want)


def test_what_is_behind_the_camera_stays_behind() -> None:
    view = _view("row", 0.05)
    uv, z = project_into(view, 1, np.array([[0.1, 0.2, -4.0], [0.0, 0.0, 0.05], [np.nan, 0, 1]]))
    # The second is before the frame's own pose, and behind where its line had the camera.
    assert z[0] < 0 and np.isnan(uv[0]).all() and np.isnan(uv[2]).all()
