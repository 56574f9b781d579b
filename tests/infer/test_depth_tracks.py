"""Depth, points, motion and tracks from a perfect oracle are the truth; what is counted beforehand is what is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.infer.depth import depth_maps, is_static, motion_maps, point_maps
from datakit.infer.grids import cell_at, cell_centres, grid_shape, resample_nearest
from datakit.infer.params import InferParams
from datakit.infer.tracks import TrackQueries, carry_tracks, follow
from datakit.infer.truth import Errors
from datakit.infer.window import WindowResult, count_queries, reconstruct_window
from tests.infer.oracles import SIZE, open_clip, room_world, true_focal, true_poses

PARAMS = InferParams(window=8, overlap=3, depth_size=24, motion_size=12, camera_grid=8)
QUERIES = TrackQueries(
    np.array([[0.3, 0.4], [0.52, 0.47], [0.9, 0.1], [0.5, 0.5]], np.float32),
    np.array([0, 3, 7, 0]),
    np.array([11, 5, 7, 900]),
)


@pytest.fixture(scope="module")
def world():
    return room_world()


@pytest.fixture(scope="module")
def window(world) -> WindowResult:
    return reconstruct_window(open_clip(world), PARAMS, QUERIES)


def rendered(world, t: int, shape: tuple[int, int]):
    rows, columns = shape
    matrix = np.diag([columns / SIZE[0], rows / SIZE[1], 1.0]) @ world.views["camera"].intrinsics[t]
    return world.render(t, intrinsics=matrix, size=(columns, rows))


def true_tracks(world, uv, frame) -> np.ndarray:
    """(N, T, 3) in the world of frame 0's camera."""
    count = world.num_frames
    points, _ = world.track(
        "camera",
        np.repeat(uv.astype(float) * SIZE, count, axis=0),
        np.repeat(frame, count),
        np.tile(range(count), len(uv)),
    )
    cam_from_world = g.invert_rigid(world.views["camera"].world_from_cam[0])
    return g.transform_points(cam_from_world, points).reshape(len(uv), count, 3)


@pytest.mark.parametrize("shape", [(18, 24), (7, 11), (72, 96)])
def test_depth_is_exact_at_any_resolution(world, shape):
    """Also beyond the video's own."""
    found = list(depth_maps(open_clip(world), shape, [0, 5]))
    assert [each.t for each in found] == [0, 5]
    for each in found:
        truth = rendered(world, each.t, shape)
        np.testing.assert_allclose(each.z_depth, truth.z_depth, rtol=1e-6)
        turn = world.views["camera"].world_from_cam[each.t, :3, :3]
        np.testing.assert_allclose(each.normal @ turn.T, truth.normals_world, atol=1e-6)


def test_points_in_one_camera(world):
    shape = (9, 12)
    rgb = np.random.default_rng(0).integers(0, 256, (8, 36, 48, 3), dtype=np.uint8)
    for each in point_maps(open_clip(world), shape, t_cam=2, frames=[6], rgb=rgb):
        truth, view = rendered(world, 6, shape), world.views["camera"]
        uv = cell_centres(12, 9) * SIZE
        own = g.unproject_pixels(uv, truth.z_depth.ravel(), view.intrinsics[6])
        moved = g.transform_points(g.invert_rigid(view.world_from_cam[2]) @ view.world_from_cam[6], own)
        np.testing.assert_allclose(each.points, moved, atol=1e-5)
        # The middle of a 4 x 4 block lies on the corner of four pixels; the one that begins there holds it.
        np.testing.assert_array_equal(each.rgb.reshape(9, 12, 3), rgb[6, 2::4, 2::4])
        assert each.t == 6 and each.confidence.min() == 1


def test_motion_finds_what_moves(world):
    clip, shape = open_clip(world), (18, 24)
    for t, found in enumerate(motion_maps(clip, shape)):
        moving = rendered(world, t, shape).instances == 1
        np.testing.assert_array_equal(~is_static(found, PARAMS), moving)
        assert (found[~moving] < 1e-6).all()
    assert not is_static(np.array([np.nan]), PARAMS).any()


def test_a_window_is_the_truth(world, window):
    np.testing.assert_allclose(window.fx_fy, true_focal(world), atol=1e-9)
    np.testing.assert_allclose(window.world_from_cam, true_poses(world), atol=1e-9)
    for t in range(8):
        np.testing.assert_allclose(window.z_depth[t], rendered(world, t, (18, 24)).z_depth, rtol=1e-6)
    assert window.normal is not None and window.normal.shape == (8, 18, 24, 3)
    np.testing.assert_array_equal(window.numbers, np.arange(8))
    assert window.size == SIZE and window.motion.shape == (8, 18, 24) and window.dense is None


@pytest.mark.parametrize("world_tracks", ["queries", "poses"])
@pytest.mark.parametrize("position", ["head", "projected"])
def test_tracks_are_the_truth(world, window, world_tracks, position):
    params = replace(PARAMS, world_tracks=world_tracks, position=position)
    found = follow(open_clip(world), QUERIES, params, window.fx_fy, window.world_from_cam)
    truth = true_tracks(world, QUERIES.uv, QUERIES.frame)
    np.testing.assert_allclose(found.points_world, truth, atol=1e-5)
    poses, focal = true_poses(world), true_focal(world)
    in_camera = g.transform_points(g.invert_rigid(poses), truth)
    np.testing.assert_allclose(found.points_cam, in_camera, atol=1e-5)
    in_front = in_camera[..., 2] > 0
    uv = (focal * in_camera[..., :2] / in_camera[..., 2:] + 0.5)[in_front]
    np.testing.assert_allclose(found.uv[in_front], uv, atol=1e-5)
    assert found.visible[np.arange(4), QUERIES.frame].min() == 1
    np.testing.assert_array_equal(found.ids, QUERIES.ids)


def test_the_cost_is_known_beforehand(world):
    for params, queries in (
        (PARAMS, QUERIES),
        (replace(PARAMS, world_tracks="poses", star=2, normals=False), None),
        (replace(PARAMS, depth_size=10, motion_size=9, camera_grid=5), QUERIES),
    ):
        asked = []
        reconstruct_window(open_clip(world), params, queries, asked.append)
        count = 0 if queries is None else len(queries)
        assert sum(asked) == sum(count_queries(params, 8, count, SIZE).values())


def test_the_default_never_decodes_everything_at_full_size():
    cost = count_queries(InferParams(), 48, 256, (1920, 1080))
    assert sum(cost.values()) < 48 * 256 * 256 / 8 and cost["dense"] == 0


def test_noise_makes_depth_and_tracks_worse(world):
    truth, errors = true_tracks(world, QUERIES.uv, QUERIES.frame), []
    shape = (18, 24)
    for noise in (0.0, 0.003, 0.01, 0.03):
        clip = open_clip(world, errors=Errors(noise=noise))
        depth = next(depth_maps(clip, shape)).z_depth
        tracks = follow(clip, QUERIES, PARAMS, np.ones((8, 2)), np.tile(np.eye(4), (8, 1, 1))).points_world
        errors.append(
            (np.abs(depth / rendered(world, 0, shape).z_depth - 1).mean(), np.abs(tracks - truth).mean())
        )
    assert (np.diff(errors, axis=0) > 0).all()
    assert abs(errors[2][0] / (0.01 * np.sqrt(2 / np.pi)) - 1) < 0.15


def test_tracks_go_on_at_the_last_frame_where_they_are_surely_seen(window):
    tracks = window.tracks
    assert tracks is not None
    uv = np.full((4, 8, 2), 0.5, np.float32)
    uv[..., 0] = np.arange(8) / 10
    uv[3, 7] = 1.2
    visible = np.ones((4, 8), np.float32)
    confidence = np.ones((4, 8), np.float32)
    visible[0, 6:], visible[1, 5:] = 0.4, 0.4
    confidence[2, 7] = 0.05
    changed = replace(window, tracks=replace(tracks, uv=uv, visible=visible, confidence=confidence))
    found = carry_tracks(changed, PARAMS, shared=3)  # frames 5, 6, 7 are 0, 1, 2 of the next
    assert found.ids.tolist() == [11, 7, 900] and found.frame.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.uv[:, 0], [0.5, 0.6, 0.6], atol=1e-6)
    assert len(carry_tracks(replace(window, tracks=None), PARAMS, 3)) == 0
    with pytest.raises(UsageError):
        carry_tracks(window, PARAMS, 9)


def test_grids():
    assert grid_shape(64, (1920, 1080)) == (64, 36) and grid_shape(64, (1080, 1920)) == (36, 64)
    assert grid_shape(3, (1000, 1)) == (3, 1)
    centres = cell_centres(5, 4)
    row, col = cell_at(centres, 5, 4)
    np.testing.assert_array_equal(row * 5 + col, np.arange(20))
    raster = np.arange(6).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        resample_nearest(raster, (4, 6))[0], np.kron(raster[0], np.ones((2, 2), int))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 0},
        {"window": 2.5},
        {"window": True},
        {"overlap": 48},
        {"focal": "fixed"},
        {"visible_at": 1.5},
        {"static_at": 0.0},
        {"dense": "yes"},
        {"dense_stop": float("nan")},
        {"star": 0},
    ],
)
def test_parameters_are_checked(changes):
    with pytest.raises(UsageError):
        InferParams(**changes)


def test_track_queries_are_checked():
    with pytest.raises(UsageError, match="one id"):
        TrackQueries(np.zeros((2, 2)), np.zeros(2, int), np.zeros(2, int))
    with pytest.raises(UsageError, match="fit"):
        TrackQueries(np.zeros((2, 2)), np.zeros(3, int), np.arange(2))
