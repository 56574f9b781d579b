"""Windows, each in a unit of its own, join to one world; a seam that contradicts itself is marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.infer.params import InferParams
from datakit.infer.stitch import Reconstruction, stitch
from datakit.infer.tracks import TrackQueries, carry_tracks
from datakit.infer.truth import Errors
from datakit.infer.window import WindowResult, reconstruct_window
from tests.infer.oracles import open_clip, room_world, true_focal, true_poses
from tests.infer.test_cameras import pose_error
from tests.infer.test_depth_tracks import rendered, true_tracks

PARAMS = InferParams(window=8, overlap=4, depth_size=16, motion_size=16, camera_grid=8)
#: The last one is moved back, as the job does; the middle of it is in three windows.
SPANS = [(0, 8), (4, 12), (8, 16), (10, 18)]
NUM = 18
START = TrackQueries(
    np.array([[0.3, 0.4], [0.5, 0.5], [0.6, 0.7]], np.float32), np.array([0, 3, 2]), np.array([11, 5, 900])
)


def make_windows(errors: Errors, count: int = len(SPANS)) -> tuple[list[WindowResult], float]:
    world, windows, first_scale = room_world(NUM), [], 1.0
    for number, (first, stop) in enumerate(SPANS[:count]):
        clip = open_clip(world, range(first, stop), errors)
        queries = START
        if number:
            queries = carry_tracks(windows[-1], PARAMS, SPANS[number - 1][1] - first)
        else:
            first_scale = clip.scale
        windows.append(reconstruct_window(clip, PARAMS, queries))
    return windows, first_scale


@pytest.fixture(scope="module")
def scaled() -> tuple[list[WindowResult], float]:
    return make_windows(Errors(scale_spread=0.5, seed=1))


@pytest.fixture(scope="module")
def joined(scaled) -> Reconstruction:
    return stitch(scaled[0], PARAMS)


def test_poses_of_a_long_video(scaled, joined):
    expected = true_poses(room_world(NUM))
    expected[:, :3, 3] *= scaled[1]
    assert max(pose_error(joined.world_from_cam, expected)) < 1e-5  # asked for: 1e-3
    assert joined.pose_is_known.all() and joined.num_frames == NUM
    np.testing.assert_array_equal(joined.numbers, np.arange(NUM))
    np.testing.assert_allclose(joined.fx_fy, true_focal(room_world(NUM)), atol=1e-9)


def test_depth_of_a_long_video(scaled, joined):
    world = room_world(NUM)
    for t in range(NUM):
        maps = joined.frame(t)
        truth = rendered(world, t, (12, 16))
        np.testing.assert_allclose(maps.z_depth, scaled[1] * truth.z_depth, rtol=1e-5)
        turn = world.views["camera"].world_from_cam[t, :3, :3]
        assert maps.normal is not None
        np.testing.assert_allclose(maps.normal @ turn.T, truth.normals_world, atol=1e-5)
        np.testing.assert_array_equal(maps.static, truth.instances == 0)
    with pytest.raises(UsageError):
        joined.frame(NUM)


def test_tracks_of_a_long_video(scaled, joined):
    tracks = joined.tracks
    assert tracks is not None and tracks.ids.tolist() == [11, 5, 900]
    np.testing.assert_array_equal(tracks.query_frame, START.frame)
    np.testing.assert_array_equal(tracks.query_uv, START.uv)
    truth = scaled[1] * true_tracks(room_world(NUM), START.uv, START.frame)
    known = np.isfinite(tracks.points_world).all(axis=-1)
    assert known.any(axis=1).all() and known.sum(axis=1).max() == NUM, "one at least goes all the way"
    np.testing.assert_allclose(tracks.points_world[known], truth[known], atol=1e-4)
    np.testing.assert_array_equal(np.isfinite(tracks.visible), known)
    poses = true_poses(room_world(NUM))
    poses[:, :3, 3] *= scaled[1]
    in_camera = g.transform_points(g.invert_rigid(poses), truth)
    np.testing.assert_allclose(tracks.points_cam[known], in_camera[known], atol=1e-4)
    ahead = known & (in_camera[..., 2] > 0)
    uv = true_focal(room_world(NUM)) * in_camera[..., :2] / in_camera[..., 2:] + 0.5
    np.testing.assert_allclose(tracks.uv[ahead], uv[ahead], atol=1e-4)


def test_seams_say_that_they_hold(scaled, joined):
    scales = [
        open_clip(room_world(NUM), range(*span), Errors(scale_spread=0.5, seed=1)).scale for span in SPANS
    ]
    assert [(seam.first, seam.last) for seam in joined.seams] == [(4, 7), (8, 11), (10, 15)]
    for number, seam in enumerate(joined.seams):
        assert seam.method == "points" and not seam.is_bad and seam.num_points > 300
        assert abs(seam.scale * scales[number + 1] / scales[number] - 1) < 1e-6
        assert max(seam.residual, seam.disagreement, seam.rotation_deg, seam.depth_error) < 1e-5
        assert seam.track_error < 1e-5
        assert all(np.isscalar(value) for value in asdict(seam).values())


def test_a_window_that_contradicts_itself_makes_bad_seams():
    """Its cameras are further apart than its depth says: scale from points and from cameras differ."""
    errors = Errors(baseline_spread=0.2, seed=2)
    windows, _ = make_windows(errors)
    factors = [open_clip(room_world(NUM), range(*span), errors).baseline for span in SPANS]
    for number, seam in enumerate(stitch(windows, PARAMS).seams):
        expected = abs(factors[number] / factors[number + 1] - 1)
        assert expected > 0.04, "the test is about large ones"
        assert seam.is_bad and abs(seam.disagreement - expected) < 0.02 + 0.3 * expected


def test_a_window_of_another_place_makes_a_bad_seam(scaled):
    windows = list(scaled[0])
    turn = np.diag([-1.0, -1.0, 1.0])
    poses = windows[1].world_from_cam.copy()
    poses[1:, :3, :3] = poses[1:, :3, :3] @ turn
    windows[1] = replace(windows[1], world_from_cam=poses)
    assert stitch(windows, PARAMS).seams[0].is_bad


def test_noise_makes_seams_worse():
    rows = []
    for noise in (0.0, 0.003, 0.01):
        windows, first_scale = make_windows(Errors(noise=noise, scale_spread=0.3, seed=4), 2)
        found = stitch(windows, PARAMS)
        expected = true_poses(room_world(NUM))[:12]
        expected[:, :3, 3] *= first_scale
        seams = found.seams
        rows.append(
            (
                max(pose_error(found.world_from_cam, expected)),
                np.mean([seam.residual for seam in seams]),
                np.mean([seam.depth_error for seam in seams]),
                np.mean([seam.track_error for seam in seams]),
                np.mean([seam.deviation for seam in seams]),
            )
        )
        assert not any(seam.is_bad for seam in seams), "poses are unsure, and it is known that they are"
    assert (np.diff(rows, axis=0) > 0).all(), rows


def test_wrong_answers_do_not_break_seams():
    windows, first_scale = make_windows(Errors(outliers=0.1, scale_spread=0.3, seed=6), 2)
    expected = true_poses(room_world(NUM))[:12]
    expected[:, :3, 3] *= first_scale
    assert max(pose_error(stitch(windows, PARAMS).world_from_cam, expected)) < 1e-3


def test_without_still_points_cameras_join_and_it_is_said(scaled):
    windows = [replace(window, motion=np.full_like(window.motion, np.nan)) for window in scaled[0]]
    found = stitch(windows, PARAMS)
    assert all(seam.is_bad and seam.method == "cameras" for seam in found.seams)
    expected = true_poses(room_world(NUM))
    expected[:, :3, 3] *= scaled[1]
    assert max(pose_error(found.world_from_cam, expected)) < 1e-4


def test_where_all_moves_a_little_the_stillest_are_taken(scaled):
    windows = [replace(window, motion=window.motion + np.float32(0.05)) for window in scaled[0]]
    seams = stitch(windows, PARAMS).seams
    assert all(seam.method == "points" and not seam.is_bad for seam in seams)


def test_where_nothing_joins_poses_are_unknown(scaled):
    windows = list(scaled[0])
    poses = windows[2].world_from_cam.copy()
    poses[1:] = np.nan
    blind = replace(windows[2], world_from_cam=poses, z_depth=np.full_like(windows[2].z_depth, np.nan))
    found = stitch([*windows[:2], blind, windows[3]], PARAMS)
    assert [seam.method for seam in found.seams] == ["points", "none", "none"]
    assert found.seams[1].is_bad and np.isnan(found.seams[1].scale)
    assert found.pose_is_known.tolist() == [True] * 12 + [False] * 6
    assert np.isfinite(found.frame(16).z_depth).all(), "depth of the window is there, in its own unit"
    tracks = found.tracks
    assert tracks is not None and np.isnan(tracks.points_world[:, 12:]).all()


def test_the_blend_is_linear(scaled):
    """A window whose depth is 10 % too large at one frame of a seam has its share of that."""
    windows = list(scaled[0])[:2]
    z = windows[1].z_depth.copy()
    z[1] *= 1.1
    plain, changed = (
        stitch([windows[0], second], PARAMS) for second in (windows[1], replace(windows[1], z_depth=z))
    )
    scale = changed.placed[1].fit.scale / plain.placed[1].fit.scale
    ratio = changed.frame(5).z_depth / plain.frame(5).z_depth
    # Frame 5 is the second of four shared ones: 3/5 of the first window, 2/5 of the second.
    np.testing.assert_allclose(ratio, 0.6 + 0.4 * 1.1 * scale, rtol=1e-4)


def test_only_two_windows_are_held(scaled):
    class Counting(Sequence):
        def __init__(self):
            self.reads = []

        def __len__(self):
            return len(scaled[0])

        def __getitem__(self, number):
            self.reads.append(number)
            return scaled[0][number]

    windows = Counting()
    found = stitch(windows, PARAMS)
    windows.reads.clear()
    for t in range(NUM):
        found.frame(t)
    assert len(windows.reads) <= 2 * len(SPANS)


def test_one_window_is_itself(scaled):
    found = stitch(scaled[0][:1], PARAMS)
    np.testing.assert_allclose(found.world_from_cam, scaled[0][0].world_from_cam, atol=1e-12)
    np.testing.assert_allclose(found.frame(3).z_depth, scaled[0][0].z_depth[3])
    assert found.seams == () and stitch([replace(scaled[0][0], tracks=None)], PARAMS).tracks is None


def test_windows_that_do_not_follow(scaled):
    windows = scaled[0]
    for wrong in ([], [windows[0], windows[2]], [windows[1], windows[0]]):
        with pytest.raises(UsageError):
            stitch(wrong, PARAMS)
    smaller = replace(windows[1], z_depth=windows[1].z_depth[:, ::2])
    with pytest.raises(UsageError, match="same grid"):
        stitch([windows[0], smaller], PARAMS)
