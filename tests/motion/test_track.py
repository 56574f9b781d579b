"""Tracks on a scene whose answers are arithmetic: see `tests.tiny`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datakit import ConventionError, MotionKind, Reason, UsageError, Visibility, open_scene
from datakit.motion import DEPTH_TOLERANCE, carry_points
from datakit.motion.sampling import quad_at
from datakit.motion.visibility import depth_test
from datakit.scene import Frame, LayerRecord, MotionRecord, encode_png, write_scene
from tests.tiny import tiny_stream, write_tiny

FOCAL, WIDTH, HEIGHT = 40.0, 40, 30


@pytest.fixture
def scene(tmp_path: Path):
    with open_scene(write_tiny(tmp_path / "s.h5")) as opened:
        yield opened


def test_static_point_shifts_by_parallax(scene) -> None:
    """The camera moves 0.25 right a frame: the wall at z = 10 moves 0.25 * 40 / 10 = 1 px left a frame."""
    tracks = scene.track("cam", [[30.2, 5.7]], 0, [3])
    np.testing.assert_allclose(tracks.uv_px, [[27.2, 5.7]], atol=1e-6)
    np.testing.assert_allclose(tracks.points_world, [[(30.2 - 20) / 4, (5.7 - 15) / 4, 10]], atol=1e-6)
    assert (tracks.state[0], tracks.reason[0]) == (Visibility.VISIBLE, Reason.SEEN)


def test_rigid_point_moves_with_its_instance(scene) -> None:
    """The square moves 0.5 down a frame: 4 px at z = 5, and the camera's step is 2 px there."""
    tracks = scene.track("cam", np.tile([20.0, 15.0], (3, 1)), 0, np.arange(3))
    np.testing.assert_allclose(tracks.uv_px, [[20, 15], [18, 19], [16, 23]], atol=1e-6)
    np.testing.assert_allclose(tracks.points_world[:, 1], [0, 0.5, 1.0], atol=1e-6)
    assert tracks.state.tolist() == [Visibility.VISIBLE] * 3


def test_states_and_reasons(scene) -> None:
    # At t = 2 the square covers u in 8..24, v in 15..31 (px); at t = 0 u in 12..28, v in 7..23.
    cases = [
        ((20.5, 27.0), 0, 2, Visibility.OCCLUDED),  # wall below the square, covered two frames later
        ((0.5, 2.0), 0, 1, Visibility.OUTSIDE),  # leaves on the left
        ((20.0, 22.0), 0, 3, Visibility.OUTSIDE),  # leaves at the bottom with the square
        ((41.0, 2.0), 0, 1, Visibility.UNKNOWN),  # not a pixel of the image
    ]
    uv, src, tgt, want = zip(*cases, strict=True)
    tracks = scene.track("cam", uv, np.array(src), np.array(tgt))
    assert tracks.state.tolist() == list(want)
    assert tracks.reason[1] == tracks.reason[2] == Reason.OUT_OF_IMAGE
    assert tracks.reason[3] == Reason.SOURCE_OUT_OF_IMAGE
    assert tracks.reason[0] in (Reason.BEHIND_SURFACE, Reason.BEHIND_OTHER_INSTANCE)


def test_points_behind_the_camera_are_outside(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5", camera_step=(0, 0, 3.0), num_frames=3)) as scene:
        tracks = scene.track("cam", [[20.0, 15.0]], 0, [2])  # the square at z = 5, the camera at z = 6
    assert (tracks.state[0], tracks.reason[0]) == (Visibility.OUTSIDE, Reason.BEHIND_CAMERA)
    assert tracks.z_depth[0] == pytest.approx(-1) and np.isnan(tracks.uv_px[0]).all()
    np.testing.assert_allclose(tracks.points_world[0], [0, 1.0, 5], atol=1e-6)


def test_a_hole_in_depth_is_unknown_never_occluded(tmp_path: Path) -> None:
    stream = tiny_stream()
    frames = [replace(f, layers=dict(f.layers)) for f in stream.frames]
    frames[1].layers["z_depth"] = frames[1].layers["z_depth"].copy()
    frames[1].layers["z_depth"][:, :] = np.nan
    stream.frames = iter(frames)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        grid = np.stack(np.meshgrid(np.arange(2.5, 40, 3), np.arange(2.5, 30, 3)), -1).reshape(-1, 2)
        to_hole = scene.track("cam", grid, 0, 1)
        from_hole = scene.track("cam", grid, 1, 0)
    assert set(to_hole.state[to_hole.state != Visibility.OUTSIDE]) == {Visibility.UNKNOWN}
    assert set(to_hole.reason[to_hole.state == Visibility.UNKNOWN]) == {Reason.TARGET_NO_DEPTH}
    assert np.isfinite(to_hole.points_world).all()  # the point is known though its visibility is not
    assert set(from_hole.reason) == {Reason.SOURCE_NO_DEPTH} and not from_hole.state.any()


def test_a_point_in_front_of_the_map_contradicts_it(tmp_path: Path) -> None:
    stream = tiny_stream(square_step=(0, 0, 0), camera_step=(0, 0, 0))
    frames = [replace(f, layers=dict(f.layers)) for f in stream.frames]
    frames[1].layers["z_depth"] = np.full((HEIGHT, WIDTH), 20, np.float32)
    stream.frames = iter(frames)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        tracks = scene.track("cam", [[30.0, 5.0]], 0, 1)
    assert (tracks.state[0], tracks.reason[0]) == (Visibility.UNKNOWN, Reason.TARGET_CONTRADICTS)


def test_at_a_depth_edge_the_map_does_not_decide(scene) -> None:
    """The square covers u > 12 at t = 0: wall points half a pixel beside it fit one neighbour, not the other."""
    z_map, instances = scene.views["cam"].z_depth(0), scene.views["cam"].instances(0)
    uv = np.array([[12.2, 15.5], [11.8, 15.5], [9.0, 15.5], [20.0, 15.5]])
    state, reason = depth_test(
        quad_at(uv, (WIDTH, HEIGHT)),
        np.full(4, 10.0),
        np.zeros(4, np.uint32),
        z_map[None],
        instances[None],
        "rendered",
    )
    assert state.tolist() == [Visibility.UNKNOWN, Visibility.VISIBLE, Visibility.VISIBLE, Visibility.OCCLUDED]
    assert reason[0] == Reason.TARGET_DEPTH_EDGE


def test_another_instance_at_the_same_depth_occludes() -> None:
    """A floor point under an object that stands on it: the depths agree, the instances do not."""
    flat = np.full((5, 5), 4.0, np.float32)
    ids = np.zeros((5, 5), np.uint32)
    ids[:, 2:] = 7
    quad = quad_at(np.array([[1.0, 2.5], [4.0, 2.5]]), (5, 5))
    state, reason = depth_test(
        quad, np.full(2, 4.0), np.zeros(2, np.uint32), flat[None], ids[None], "rendered"
    )
    assert state.tolist() == [Visibility.VISIBLE, Visibility.OCCLUDED]
    assert reason[1] == Reason.BEHIND_OTHER_INSTANCE


def test_tolerance_follows_the_kind_of_depth() -> None:
    flat, quad = np.full((5, 5), 4.0, np.float32), quad_at(np.array([[2.5, 2.5]]), (5, 5))
    for kind, share in DEPTH_TOLERANCE.items():
        for factor, want in ((0.9, Visibility.VISIBLE), (1.1, Visibility.OCCLUDED)):
            z_point = np.array([4.0 / (1 - factor * share)])
            state, _ = depth_test(quad, z_point, np.zeros(1, np.uint32), flat[None], None, kind)
            assert state[0] == want, (kind, factor)


def _between(points: dict[tuple[int, int], float], z_point: float, label: int = 0) -> tuple[int, int]:
    """Judge a point in the middle of a 40 x 40 lidar map that knows these (row, column) -> depth."""
    z = np.full((1, 40, 40), np.nan, np.float32)
    for (row, col), value in points.items():
        z[0, row, col] = value
    labels = np.zeros((1, 40, 40), np.uint32)
    quad = quad_at(np.array([[20.5, 20.5]]), (40, 40))
    state, reason = depth_test(quad, np.array([z_point]), np.array([label], np.uint32), z, labels, "lidar")
    return int(state[0]), int(reason[0])


def test_between_lidar_points_there_is_evidence_on_four_sides_or_none() -> None:
    four = {(17, 18): 10.0, (17, 23): 10.2, (24, 18): 10.0, (24, 23): 9.8}
    assert _between(four, 10.1) == (Visibility.VISIBLE, Reason.SEEN)
    assert _between(four, 15.0) == (Visibility.OCCLUDED, Reason.BEHIND_SURFACE)
    # Behind by a little may be the surface's slope; before it, one of the two is wrong.
    assert _between(four, 11.5)[0] == Visibility.UNKNOWN
    assert _between(four, 5.0) == (Visibility.UNKNOWN, Reason.TARGET_CONTRADICTS)
    assert _between(four, 10.1, label=3)[0] == Visibility.UNKNOWN
    assert _between(four, 15.0, label=3) == (Visibility.OCCLUDED, Reason.BEHIND_OTHER_INSTANCE)
    three = dict(list(four.items())[:3])
    for z_point in (10.1, 15.0):
        assert _between(three, z_point) == (Visibility.UNKNOWN, Reason.TARGET_NO_DEPTH)
    assert _between({}, 10.0) == (Visibility.UNKNOWN, Reason.TARGET_NO_DEPTH)
    # An edge runs through: nearer on two sides only.
    edge = {**four, (17, 18): 30.0, (17, 23): 30.0}
    assert _between(edge, 30.0)[0] == Visibility.UNKNOWN
    # The pixel's own depth was seen past an edge: a nearer surface is all around it.
    assert _between({**four, (20, 20): 30.0}, 30.0) == (Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE)
    assert _between({(20, 20): 30.0}, 30.0) == (Visibility.VISIBLE, Reason.SEEN)


def test_unknown_poses_are_unknown(tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[2] = np.nan
    known = np.array([True, True, False, True])
    with open_scene(write_tiny(tmp_path / "s.h5", world_from_cam=poses, pose_is_known=known)) as scene:
        tracks = scene.track("cam", [[30.0, 5.0]] * 2, [0, 2], [2, 0])
    assert tracks.reason.tolist() == [Reason.TARGET_NO_POSE, Reason.SOURCE_NO_POSE]
    assert not tracks.state.any() and np.isfinite(tracks.points_world[0]).all()


def test_instances_without_motion_are_unknown(tmp_path: Path) -> None:
    stream = tiny_stream()
    motion = replace(stream.record.motion, instance_motion=np.array([1, 0], np.uint8))
    stream.record = replace(stream.record, motion=motion)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        tracks = scene.track("cam", [[20.0, 15.0], [30.0, 5.0]], 0, 1)
    assert tracks.reason.tolist() == [Reason.MOTION_UNKNOWN, Reason.SEEN]


def test_depth_grid_of_its_own(tmp_path: Path) -> None:
    """Depth at half size and a quarter pixel off, as in Kubric's half-size sets: same points, same tracks."""
    stream = tiny_stream(square_step=(0, 0, 0))
    size = (WIDTH // 2, HEIGHT // 2)
    full = stream.record.views["cam"].intrinsics
    # Half size is sampled at the centre of every second pixel: half-grid position = full / 2 + 0.25.
    half = np.array([[0.5, 0, 0.25], [0, 0.5, 0.25], [0, 0, 1]]) @ full
    layers = dict(stream.record.views["cam"].layers)
    layers["z_depth"] = LayerRecord(size, "array", "float32", intrinsics=half, depth_kind="rendered")
    layers["instances"] = LayerRecord(size, "png", "uint8", intrinsics=half)
    frames = []
    for frame in stream.frames:
        instances = (frame.layers["z_depth"] < 7).astype(np.uint8)
        changed = {"z_depth": frame.layers["z_depth"][::2, ::2], "instances": encode_png(instances[::2, ::2])}
        frames.append(Frame("cam", frame.index, dict(frame.layers) | changed))
    view = replace(stream.record.views["cam"], layers=layers)
    stream.record = replace(stream.record, views={"cam": view})
    stream.frames = iter(frames)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        assert scene.views["cam"].depth_size == size
        tracks = scene.track("cam", [[20.0, 15.0], [12.5, 12.5], [30.2, 5.7]], 0, 2)
    # (12.5, 12.5) is the square's first column; a grid read as if it were not shifted would miss it.
    np.testing.assert_allclose(tracks.z_depth, [5, 5, 10], atol=1e-6)
    np.testing.assert_allclose(tracks.uv_px[:, 0], [16, 8.5, 28.2], atol=1e-6)


def test_own_pixel_is_visible_everywhere(scene) -> None:
    grid = np.stack(np.meshgrid(np.arange(0, 40, 0.7), np.arange(0, 30, 0.7)), -1).reshape(-1, 2)
    tracks = scene.track("cam", grid, 2, 2)
    assert set(tracks.state) == {Visibility.VISIBLE}
    np.testing.assert_allclose(tracks.uv_px, grid, atol=1e-9)


def test_order_and_grouping_change_nothing(scene) -> None:
    rng = np.random.default_rng(0)
    uv = rng.uniform([0, 0], [WIDTH, HEIGHT], (300, 2))
    src, tgt = rng.integers(0, 4, (2, 300))
    whole = scene.track("cam", uv, src, tgt)
    order = rng.permutation(300)
    shuffled = scene.track("cam", uv[order], src[order], tgt[order])
    for name in ("points_world", "state", "reason", "uv_px", "z_depth"):
        np.testing.assert_array_equal(getattr(whole, name)[order], getattr(shuffled, name))


def test_bad_calls_are_named(scene) -> None:
    with pytest.raises(UsageError, match="no such view"):
        scene.track("left", [[1.0, 1.0]], 0, 0)
    with pytest.raises(UsageError, match="t_tgt is out of range"):
        scene.track("cam", [[1.0, 1.0]], 0, 4)
    with pytest.raises(ConventionError, match="uv_px"):
        scene.track("cam", [1.0, 1.0], 0, 0)
    with pytest.raises(ConventionError, match="t_src must be integers"):
        scene.track("cam", [[1.0, 1.0]], 0.5, 0)
    with pytest.raises(UsageError, match="object coordinates"):
        scene.track("cam", [[1.0, 1.0]], 0, 0, via="object_coords")


def deforming_motion(spacing: float) -> tuple[MotionRecord, np.ndarray]:
    """Trajectories of a sheet x, y -> (x, y, 0) that bends into z = 0.3 x^2 + 0.2 y and slides by (1, 0, 0)."""
    x, y = np.meshgrid(np.arange(-1, 1 + 1e-9, spacing), np.arange(-1, 1 + 1e-9, spacing))
    rest = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=-1)
    motion = MotionRecord(
        times=np.array([0.0, 1.0]),
        instance_ids=np.array([3], np.uint32),
        instance_names=("sheet",),
        instance_motion=np.array([MotionKind.POINTS], np.uint8),
        world_from_instance=np.full((2, 1, 4, 4), np.nan),
        points_world=np.stack([rest, bend(rest)], axis=1),
        point_instance=np.full(len(rest), 3, np.uint32),
    )
    return motion, rest


def bend(rest: np.ndarray) -> np.ndarray:
    height = 0.3 * rest[:, 0] ** 2 + 0.2 * rest[:, 1]
    return rest + np.stack([np.ones(len(rest)), np.zeros(len(rest)), height], axis=-1)


def test_explicit_trajectories_carry_the_points_between_them() -> None:
    errors = []
    for spacing in (0.1, 0.05):
        motion, _ = deforming_motion(spacing)
        points = np.c_[np.random.default_rng(0).uniform(-0.9, 0.9, (200, 2)), np.zeros(200)]
        src, tgt = np.zeros(200, np.int64), np.ones(200, np.int64)
        moved, reason = carry_points(motion, points, np.full(200, 3, np.uint32), src, tgt)
        assert not reason.any()
        errors.append(np.abs(moved - bend(points)).max())
    assert errors[0] < 0.005 and errors[1] < errors[0] / 3  # second order in the spacing


def test_points_far_from_any_trajectory_are_unknown() -> None:
    motion, rest = deforming_motion(0.1)
    points = np.array([[0.0, 0, 0], [0, 0, 0.25], [5, 5, 5]])  # on the sheet, 2.5 spacings off, far away
    ids = np.full(3, 3, np.uint32)
    moved, reason = carry_points(motion, points, ids, np.zeros(3, np.int64), np.ones(3, np.int64))
    assert reason.tolist() == [Reason.SEEN, Reason.NO_TRAJECTORY_NEAR, Reason.NO_TRAJECTORY_NEAR]
    assert np.isnan(moved[1:]).all()
    motion.points_world[len(rest) // 2 - 60 : len(rest) // 2 + 60, 1] = np.nan  # the source lost them
    _, reason = carry_points(motion, points, ids, np.zeros(3, np.int64), np.ones(3, np.int64))
    assert reason[0] == Reason.NO_TRAJECTORY_NEAR


def test_points_off_the_motion_clock_are_unknown() -> None:
    motion, _ = deforming_motion(0.1)
    ids, zero = np.array([3, 9], np.uint32), np.zeros((2, 3))
    _, reason = carry_points(motion, zero, ids, np.array([-1, 0]), np.array([1, 1]))
    assert reason.tolist() == [Reason.MOTION_UNKNOWN, Reason.MOTION_UNKNOWN]
