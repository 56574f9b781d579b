"""Cameras from a perfect oracle are exact, and get worse as answers do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from datakit import geometry as g
from datakit.infer.cameras import camera_queries, find_cameras, keyframes
from datakit.infer.params import InferParams
from datakit.infer.robust import fit_similarity, mean_pose
from datakit.infer.truth import Errors
from tests.infer.oracles import SIZE, open_clip, room_world, true_focal, true_poses

PARAMS = InferParams(camera_grid=10)


@dataclass
class Changed:
    """A clip whose answers are changed."""

    clip: Any
    change: Any
    asked: int = 0

    @property
    def info(self):
        return self.clip.info

    @property
    def num_frames(self):
        return self.clip.num_frames

    def ask(self, uv, t_src, t_tgt, t_cam):
        self.asked += len(uv)
        return self.change(self.clip.ask(uv, t_src, t_tgt, t_cam), t_src, t_tgt, t_cam)


def pose_error(found, expected) -> tuple[float, float]:
    """Largest error of rotation (radians) and position."""
    turns = np.swapaxes(found[:, :3, :3], 1, 2) @ expected[:, :3, :3]
    return float(g.rotation_angle(turns).max()), float(np.abs(found[:, :3, 3] - expected[:, :3, 3]).max())


@pytest.mark.parametrize(
    ("num_frames", "star"), [(1, None), (2, None), (3, None), (8, None), (8, 1), (8, 3), (8, 50)]
)
def test_a_perfect_oracle_gives_exact_cameras(num_frames: int, star: int | None):
    world = room_world(num_frames)
    cameras = find_cameras(open_clip(world), replace(PARAMS, star=star))
    np.testing.assert_allclose(
        cameras.fx_fy, true_focal(world), atol=1e-9
    )  # the paper's cameras, and 1e-3 is asked
    assert max(pose_error(cameras.world_from_cam, true_poses(world))) < 1e-9
    assert cameras.pose_residual.max() < 1e-9 and np.allclose(cameras.pose_scale, 1)
    assert cameras.intrinsics_residual.max() < 1e-9 and cameras.pose_is_known.all()


def test_the_unit_of_a_clip_is_that_of_its_poses():
    world = room_world()
    clip = open_clip(world, errors=Errors(scale_spread=0.7, seed=2))
    expected = true_poses(world)
    expected[:, :3, 3] *= clip.scale
    assert max(pose_error(find_cameras(clip, PARAMS).world_from_cam, expected)) < 1e-9


def test_a_baseline_that_contradicts_depth_is_that_of_its_poses():
    world = room_world()
    clip = open_clip(world, errors=Errors(baseline_spread=0.3, scale_spread=0.2, seed=2))
    expected = true_poses(world)
    expected[:, :3, 3] *= clip.scale * clip.baseline
    assert abs(clip.baseline - 1) > 0.05
    assert max(pose_error(find_cameras(clip, PARAMS).world_from_cam, expected)) < 1e-9


def test_single_precision_is_enough():
    def rounded(answer, *_):
        return replace(answer, xyz=answer.xyz.astype(np.float32))

    world = room_world()
    cameras = find_cameras(Changed(open_clip(world), rounded), PARAMS)
    assert max(pose_error(cameras.world_from_cam, true_poses(world))) < 1e-6
    np.testing.assert_allclose(cameras.fx_fy, true_focal(world), rtol=1e-6)


def test_noise_makes_everything_worse():
    world, expected = room_world(), true_poses(room_world())
    rows = []
    for noise in (0.0, 0.003, 0.01, 0.03):
        found = find_cameras(open_clip(world, errors=Errors(noise=noise, seed=5)), PARAMS)
        rows.append(
            (
                *pose_error(found.world_from_cam, expected),
                np.abs(found.fx_fy / true_focal(world) - 1).max(),
                found.pose_residual.mean(),
                found.intrinsics_residual.mean(),
            )
        )
    for column in np.array(rows).T:
        assert (np.diff(column) > 0).all(), column
    # The residual is an honest figure: three coordinates of noise in both sets of points, a mean of lengths.
    assert 0.8 < rows[2][3] / (0.01 * np.sqrt(2) * 1.6) < 1.2


def test_wrong_answers_do_not_matter():
    world = room_world()
    cameras = find_cameras(open_clip(world, errors=Errors(outliers=0.15)), PARAMS)
    assert max(pose_error(cameras.world_from_cam, true_poses(world))) < 1e-6
    np.testing.assert_allclose(cameras.fx_fy, true_focal(world), rtol=1e-3)
    assert cameras.pose_residual[1:].min() > 0.02, "but they show"


def test_what_moves_does_not_matter():
    """Both sets are at one time: a box that fills half the picture is no harm."""
    asked = []

    def seen(answer, t_src, t_tgt, t_cam):
        asked.append((t_src, t_tgt, t_cam))
        return answer

    clip = Changed(open_clip(room_world()), seen)
    find_cameras(clip, PARAMS)
    for t_src, t_tgt, _ in asked:
        np.testing.assert_array_equal(t_src, t_tgt)
    assert clip.asked == camera_queries(PARAMS, 8, SIZE)


def test_a_frame_without_sure_answers_has_no_pose():
    def unsure(answer, t_src, t_tgt, t_cam):
        return replace(answer, confidence=np.where((t_cam == 5) | (t_src == 5), 1e-4, answer.confidence))

    world = room_world()
    cameras = find_cameras(Changed(open_clip(world), unsure), PARAMS)
    assert cameras.pose_is_known.tolist() == [True] * 5 + [False] + [True] * 2
    assert np.isnan(cameras.pose_residual[5]) and np.isnan(cameras.intrinsics_residual[5])
    known = cameras.pose_is_known
    assert max(pose_error(cameras.world_from_cam[known], true_poses(world)[known])) < 1e-9


def test_a_chain_that_breaks_is_not_mended():
    def cut(answer, t_src, t_tgt, t_cam):
        return replace(answer, confidence=np.where((t_src < 4) != (t_cam < 4), 0.0, answer.confidence))

    cameras = find_cameras(Changed(open_clip(room_world()), cut), PARAMS)
    assert cameras.pose_is_known.tolist() == [True] * 4 + [False] * 4
    assert np.isfinite(cameras.fx_fy).all()


def test_nothing_is_known_of_a_clip_of_sky():
    def nothing(answer, *_):
        return replace(answer, xyz=np.full_like(answer.xyz, np.nan), confidence=np.full(len(answer), 1e-4))

    cameras = find_cameras(Changed(open_clip(room_world()), nothing), PARAMS)
    assert np.isnan(cameras.fx_fy).all() and cameras.pose_is_known.tolist() == [True] + [False] * 7


def test_zoom_needs_a_focal_length_a_frame():
    world = room_world()
    views = world.views["camera"]
    zoomed = replace(world, views={"camera": replace(views, path=replace(views.path, zoom=1.0))})
    views = zoomed.views["camera"]
    views = replace(views, intrinsics=views.path.intrinsics(zoomed.times))
    zoomed = replace(zoomed, views={"camera": views})
    each = find_cameras(open_clip(zoomed), replace(PARAMS, focal="per_frame"))
    np.testing.assert_allclose(each.fx_fy, true_focal(zoomed), atol=1e-9)
    shared = find_cameras(open_clip(zoomed), PARAMS)
    assert (np.ptp(shared.fx_fy, axis=0) == 0).all() and shared.intrinsics_residual.max() > 0.01


def test_a_centre_beside_the_middle():
    """Documented: the model's camera has none, so the focal length is off, and the residual says so."""
    exact = find_cameras(open_clip(room_world()), PARAMS)
    off = find_cameras(open_clip(room_world(centre=(24.0 + 0.05 * 48, 18.0))), PARAMS)
    np.testing.assert_allclose(off.intrinsics_residual, 0.05, rtol=0.1)
    assert exact.intrinsics_residual.max() < 1e-9
    assert 0.001 < np.abs(off.fx_fy / true_focal(room_world()) - 1).max() < 0.02
    # Points are true in the true camera, so poses do not care.
    assert max(pose_error(off.world_from_cam, true_poses(room_world()))) < 1e-9


def test_keyframes():
    assert keyframes(1, PARAMS) == [0] and keyframes(2, PARAMS) == [0]
    assert keyframes(48, PARAMS) == [0, 24] and keyframes(9, replace(PARAMS, star=4)) == [0, 4]
    assert keyframes(10, replace(PARAMS, star=4)) == [0, 4, 8]


def test_a_similarity_with_a_third_of_wrong_points():
    rng = np.random.default_rng(0)
    src = rng.normal(size=(300, 3)) + [0, 0, 5]
    turn = g.rotation_from_axis_angle([0.3, -0.2, 0.5])
    dst = 1.7 * src @ turn.T + [1, 2, 3]
    wrong = rng.random(300) < 0.33
    dst[wrong] *= rng.uniform(0.3, 3, (wrong.sum(), 1))
    fit = fit_similarity(src, dst, np.ones(300), src[:, 2], with_scale=True, rounds=20)
    assert fit is not None and abs(fit.scale - 1.7) < 1e-6
    np.testing.assert_allclose(fit.rotation, turn, atol=1e-6)
    np.testing.assert_allclose(fit.apply(src)[~wrong], dst[~wrong], atol=1e-5)


def test_points_on_a_line_fix_nothing():
    line = np.arange(20.0)[:, None] * [1.0, 2.0, 3.0] + [0, 0, 1]
    assert fit_similarity(line, line, np.ones(20), line[:, 2], with_scale=True, rounds=5) is None


def test_the_mean_of_poses_is_between_them():
    poses = g.rigid_from(
        g.rotation_from_axis_angle(np.array([[0, 0, 0.0], [0, 0, 0.4]])), [[0, 0, 0], [1, 0, 0]]
    )
    mean = mean_pose(poses, np.array([3.0, 1.0]))
    np.testing.assert_allclose(mean[:3, 3], [0.25, 0, 0])
    assert abs(g.rotation_angle(mean[:3, :3]) - 0.1) < 0.002
