"""Rendering and tracking of hand-made worlds against formulas, and of random ones against themselves."""

from __future__ import annotations

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.motion import MotionKind, Visibility
from datakit.worlds import (
    Box,
    CameraPath,
    Jelly,
    Linear,
    Orbit,
    Plane,
    RigidPath,
    Room,
    Sheet,
    Sphere,
    Spin,
    Still,
    Sway,
    Wave,
    random_world,
)
from tests.worlds.helpers import FPS, big_room, hand_world

STATIC, RIGID, POINTS = MotionKind.STATIC, MotionKind.RIGID, MotionKind.POINTS


@pytest.fixture(scope="module")
def mixed():
    return random_world(5, size=(96, 80), motion="mixed", num_views=3, lens="general")


@pytest.fixture(scope="module")
def frames(mixed):
    return {(v, t): mixed.render(t, v) for v in ("camera", "camera_2") for t in (0, 9, 23)}


# --- depth, by hand ------------------------------------------------------------


def test_depth_of_a_fronting_wall_and_of_the_floor():
    frame = hand_world([], background=big_room()).render(0)
    # Wall x = 10 straight ahead, f = 100: all of it at z = 10, further along slanted rays.
    assert frame.z_depth[24, 32] == pytest.approx(10.0, abs=1e-12)
    assert frame.ray_distance[23, 31] == pytest.approx(10 * np.sqrt(1 + 2 * 0.005**2), abs=1e-12)
    assert frame.z_depth[5, 3] == pytest.approx(10.0, abs=1e-12)
    tall = hand_world([], background=(Room((-5, -8, -1.0), (10, 8, 4)), RigidPath())).render(0)
    # Row 47 looks down by (47.5 - 24) / 100: it meets the floor 1 m below at z = 1 / 0.235.
    assert tall.z_depth[47, 10] == pytest.approx(1 / 0.235, abs=1e-12)
    np.testing.assert_allclose(tall.normals_world[47, 10], (0, 0, 1), atol=1e-15)
    np.testing.assert_allclose(tall.normals_world[5, 10], (-1, 0, 0), atol=1e-15)


def test_depth_of_a_sphere_by_hand():
    frame = hand_world([(Sphere(1.0), RigidPath(Still((6.0, 0.0, 0.0))), STATIC)]).render(0)
    d = np.array([0.005, 0.005, 1.0])  # the ray of pixel (32, 24), z = 1
    s = (6 - np.sqrt(36 - 35 * (d @ d))) / (d @ d)
    assert frame.z_depth[24, 32] == pytest.approx(s, abs=1e-12)
    assert frame.ray_distance[24, 32] == pytest.approx(s * np.sqrt(d @ d), abs=1e-12)
    assert frame.instances[24, 32] == 1 and frame.instances[0, 0] == 0
    # World: x forward, y left, z up. The point is at (s, -0.005 s, -0.005 s).
    point = s * np.array([1.0, -0.005, -0.005])
    np.testing.assert_allclose(frame.normals_world[24, 32], point - (6, 0, 0), atol=1e-12)
    np.testing.assert_allclose(frame.object_coords[24, 32], (point - (6, 0, 0) + 1) / 2, atol=1e-12)


def test_open_sky_has_no_values():
    frame = hand_world([(Sphere(1.0), RigidPath(Still((6.0, 0.0, 0.0))), STATIC)]).render(2)
    for layer in (frame.z_depth, frame.ray_distance, frame.normals_world, frame.flow_forward):
        assert np.isnan(layer[0, 0]).all()
    assert frame.instances[0, 0] == 0 and (frame.object_coords[0, 0] == 0).all()
    assert np.isfinite(frame.z_depth[24, 32])


def test_another_grid_has_the_same_rays():
    world = hand_world([(Box((0.5, 1, 1)), RigidPath(Still((5.0, 0, 0))), STATIC)], background=big_room())
    full = world.render(1)
    matrix = world.views["camera"].intrinsics[1].copy()
    matrix[:2] /= 2
    # Kubric's half-size sets take every second sample: their pixel centres sit a quarter pixel further left.
    matrix[:2, 2] += 0.25
    half = world.render(1, intrinsics=matrix, size=(32, 24))
    np.testing.assert_allclose(half.z_depth, full.z_depth[::2, ::2], atol=1e-12)
    np.testing.assert_allclose(half.flow_forward, full.flow_forward[::2, ::2] / 2, atol=1e-12)


# --- layers against each other ------------------------------------------------------------


def unprojected(world, frame, view, t):
    height, width = frame.z_depth.shape
    v, u = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    rays = pixels @ np.linalg.inv(world.views[view].intrinsics[t]).T
    pose = world.views[view].world_from_cam[t]
    points = (rays * frame.z_depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    return points, rays, rays @ pose[:3, :3].T


def test_ray_distance_and_normals(mixed, frames):
    for (view, t), frame in frames.items():
        _, rays, rays_world = unprojected(mixed, frame, view, t)
        assert np.isfinite(frame.z_depth).all(), "every ray hits something in a room"
        ratio = frame.ray_distance / frame.z_depth
        np.testing.assert_allclose(ratio, np.linalg.norm(rays, axis=-1), rtol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(frame.normals_world, axis=-1), 1, atol=1e-12)
        assert ((frame.normals_world * rays_world).sum(axis=-1) <= 1e-12).all()


def test_object_coords_and_pose_give_the_depth_point(mixed, frames):
    seen = 0
    for (view, t), frame in frames.items():
        points, _, _ = unprojected(mixed, frame, view, t)
        for item in mixed.instances:
            mask = frame.instances == item.id
            coords = frame.object_coords[mask]
            assert ((coords >= 0) & (coords <= 1)).all()
            if item.motion == POINTS:
                continue
            local = item.box_lo + coords * (item.box_hi - item.box_lo)
            pose = item.world_from_instance[t]
            world = local @ pose[:3, :3].T + pose[:3, 3]
            assert np.abs(world - points[mask]).max(initial=0) < 1e-9
            seen += mask.sum()
        assert (frame.object_coords[frame.instances == 0] == 0).all()
    assert seen > 500


def test_flow_is_the_projected_track(mixed, frames):
    """Flow of a pixel equals where `track` puts its point, in the next frame and in the one before."""
    frame = frames["camera", 9]
    rng = np.random.default_rng(0)
    pick = np.concatenate([np.argwhere(frame.instances == k)[:40] for k in np.unique(frame.instances)])
    pick = np.concatenate([pick, rng.integers(0, (80, 96), size=(200, 2))])
    uv = pick[:, ::-1] + 0.5
    for step, flow in ((1, frame.flow_forward), (-1, frame.flow_backward)):
        nines = np.full(len(uv), 9)
        points, _ = mixed.track("camera", uv, nines, nines + step)
        pose, matrix = (
            mixed.views["camera"].world_from_cam[9 + step],
            mixed.views["camera"].intrinsics[9 + step],
        )
        cam = (points - pose[:3, 3]) @ pose[:3, :3]
        projected = (cam / cam[:, 2:]) @ matrix[:2].T
        np.testing.assert_allclose(projected - uv, flow[pick[:, 0], pick[:, 1]], atol=1e-9)


def test_flow_is_known_beyond_both_ends(frames):
    for frame in frames.values():
        assert np.isfinite(frame.flow_forward).all() and np.isfinite(frame.flow_backward).all()


def test_flow_by_hand():
    """A wall 4 m ahead that slides left by 0.2 m a frame: f * 0.2 / 4 = 5 px, and back."""
    wall = RigidPath(Linear((4.0, 0.0, 0.0), (0.0, 0.2 * FPS, 0.0)), Spin((0.0, np.pi / 2, 0.0)))
    for t in (0, 4):
        frame = hand_world([(Plane(50.0, 50.0), wall, RIGID)]).render(t)
        np.testing.assert_allclose(frame.flow_forward[..., 0], -5, atol=1e-9)
        np.testing.assert_allclose(frame.flow_backward[..., 0], 5, atol=1e-9)
        np.testing.assert_allclose(frame.flow_forward[..., 1], 0, atol=1e-9)


def test_static_points_keep_their_colour():
    """The same world point has the same colour from a moved camera, as far as interpolation can tell."""
    world = random_world(2, size=(128, 128), motion="mixed")
    a, b = world.render(10), world.render(11)
    v, u = np.mgrid[:128, :128]
    x, y = u + a.flow_forward[..., 0], v + a.flow_forward[..., 1]
    inside = (x >= 1) & (x < 126) & (y >= 1) & (y < 126)
    x0, y0 = np.floor(x[inside]).astype(int), np.floor(y[inside]).astype(int)
    fx, fy = (x[inside] - x0)[:, None], (y[inside] - y0)[:, None]
    rgb, z = b.rgb.astype(float), b.z_depth
    top = rgb[y0, x0] * (1 - fx) + rgb[y0, x0 + 1] * fx
    low = rgb[y0 + 1, x0] * (1 - fx) + rgb[y0 + 1, x0 + 1] * fx
    error = np.abs(top * (1 - fy) + low * fy - a.rgb[inside]).mean(axis=1)
    # Leave out what is hidden or lies across an outline.
    corner = np.stack([b.instances[y0 + i, x0 + j] for i in (0, 1) for j in (0, 1)])
    same = (corner == a.instances[inside]).all(axis=0)
    tracks_z = np.abs(z[y0, x0] - a.z_depth[inside]) < 0.5
    assert (same & tracks_z).mean() > 0.8
    assert error[same & tracks_z].mean() < 3.0
    assert a.rgb.std() > 15, "there is texture to compare"


# --- tracks and visibility ------------------------------------------------------------


def test_sphere_before_a_wall_hides_what_it_should():
    """A ball crosses the view of a wall; hidden wall points are those within its disc, by formula."""
    ball = RigidPath(Linear((5.0, -1.0, 0.0), (0.0, 0.5 * FPS, 0.0)))
    world = hand_world([(Sphere(0.6), ball, RIGID)], background=big_room())
    rng = np.random.default_rng(0)
    uv = rng.uniform((0, 0), (64, 48), size=(3000, 2))
    src, tgt = np.zeros(3000, int), np.full(3000, 2)
    points, state = world.track("camera", uv, src, tgt)
    # Which rays pass within 0.6 m of the ball's centre, at frames 0 and 2 (there it is straight ahead).
    rays = np.stack([np.ones(3000), -(uv[:, 0] - 32) / 100, -(uv[:, 1] - 24) / 100], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)

    def misses(centre):
        return np.linalg.norm(np.cross(rays, centre), axis=1) - 0.6

    on_wall, hidden = misses((5, -1, 0)) > 1e-6, misses((5, 0, 0)) < -1e-6
    assert (on_wall & hidden).sum() > 100
    assert (state[on_wall & hidden] == Visibility.OCCLUDED).all()
    clear = on_wall & (misses((5, 0, 0)) > 1e-6)
    assert (state[clear] == Visibility.VISIBLE).all()
    np.testing.assert_allclose(points[on_wall], 10 * rays[on_wall] / rays[on_wall, :1], atol=1e-9)
    # Points of the ball move with it: 1 m to the left.
    still, _ = world.track("camera", uv[~on_wall], src[~on_wall], src[~on_wall])
    np.testing.assert_allclose(points[~on_wall] - still, np.tile((0, 1.0, 0), (len(still), 1)), atol=1e-9)


def test_a_turning_ball_hides_its_own_points():
    """Half a turn carries the near point to the far side: occluded by the ball itself, then back."""
    spin = Spin((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), np.pi / 2 * FPS)
    world = hand_world([(Sphere(1.0), RigidPath(Still((5.0, 0, 0)), spin), RIGID)], background=big_room())
    centre = np.tile((32.0, 24.0), (5, 1))
    points, state = world.track("camera", centre, np.zeros(5, int), np.arange(5))
    expected = [(4, 0, 0), (5, -1, 0), (6, 0, 0), (5, 1, 0), (4, 0, 0)]
    np.testing.assert_allclose(points, expected, atol=1e-12)
    assert state[[0, 2, 4]].tolist() == [Visibility.VISIBLE, Visibility.OCCLUDED, Visibility.VISIBLE]


def test_leaves_and_returns():
    swing = RigidPath(Sway((5.0, 0, 0), (0, 6.0, 0), np.pi / 4 * FPS))
    world = hand_world([(Sphere(0.5), swing, RIGID)], background=big_room())
    _, state = world.track("camera", np.tile((32.0, 24.0), (5, 1)), np.zeros(5, int), np.arange(5))
    out = Visibility.OUTSIDE
    assert state.tolist() == [Visibility.VISIBLE, out, out, out, Visibility.VISIBLE]


def test_behind_the_camera_is_outside():
    turn = CameraPath(Still((0, 0, 0)), Orbit((0, 0, 0), 5.0, np.pi / 4 * FPS, 0.0), (100, 100), (32, 24))
    world = hand_world([], camera=turn, background=big_room())
    points, state = world.track("camera", [[32.0, 24.0]], [0], [4])
    assert state[0] == Visibility.OUTSIDE
    np.testing.assert_allclose(points, [[10, 0, 0]], atol=1e-12)


def test_unknown_sources():
    ball = (Sphere(1.0), RigidPath(Still((5.0, 0, 0))), STATIC)
    uv = [[32.0, 24.0], [-0.1, 24.0], [32.0, 48.1], [np.nan, 3.0], [1.0, 1.0]]
    for background, corner in ((None, Visibility.UNKNOWN), (big_room(), Visibility.VISIBLE)):
        world = hand_world([ball], background=background)
        points, state = world.track("camera", uv, np.zeros(5, int), np.ones(5, int))
        assert state.tolist() == [Visibility.VISIBLE, *3 * [Visibility.UNKNOWN], corner]
        assert (np.isfinite(points).all(axis=1) == (state != Visibility.UNKNOWN)).all()


def test_deforming_points_follow_their_formula():
    """A lying sheet seen from above: its points go up and down only, by the wave's formula."""
    wave = Wave(0.2, 3.0, 1.0, 5.0, 0.4)
    camera = CameraPath(Still((0, -0.01, 6)), Still((0, 0, 0)), (150, 150), (32, 24))
    world = hand_world([(Sheet(1.0, 1.0, (wave,)), RigidPath(Still((0, 0, 0.5))), POINTS)], camera=camera)
    uv = np.random.default_rng(0).uniform((15, 10), (50, 40), size=(200, 2))
    for t in range(5):
        points, state = world.track("camera", uv, np.ones(200, int), np.full(200, t))
        x, y, z = points[np.isfinite(points[:, 0])].T
        assert len(x) > 150
        np.testing.assert_allclose(z, 0.5 + 0.2 * np.sin(3 * x + y + 5 * t / FPS + 0.4), atol=1e-9)
        start, _ = world.track("camera", uv, np.ones(200, int), np.ones(200, int))
        np.testing.assert_allclose(points[:, :2], start[:, :2], atol=1e-9)


def test_trajectories_stay_on_the_rendered_surface(mixed):
    """Where a trajectory point is visible, a ray through its pixel hits it."""
    for item in mixed.instances:
        tracks = mixed.trajectories(item.id, 200)
        assert tracks.shape[1:] == (24, 3) and abs(len(tracks) - 200) < 40
        state, uv, z = mixed.see("camera", tracks[:, 9], mixed.times[9])
        seen = state == Visibility.VISIBLE
        hits = mixed.cast_pixels("camera", uv[seen], mixed.times[9])
        assert np.abs(hits.scale - z[seen]).max(initial=0) < 1e-4
        moved = np.ptp(tracks, axis=1).max()
        assert (moved > 0.01) == item.is_dynamic


def test_a_jelly_breathes_where_it_stands():
    jelly = Jelly((0.5, 0.6, 0.7), 0.2, 4.0, (0.0, 1.0, 2.0))
    world = hand_world([(jelly, RigidPath(Still((5.0, 0, 0))), POINTS)])
    points, _ = world.track("camera", np.tile((32.0, 24.0), (3, 1)), np.zeros(3, int), np.arange(3))
    np.testing.assert_allclose(points[:, 0], 5 - 0.5 * (1 + 0.2 * np.sin(4 * np.arange(3) / FPS)), atol=1e-12)


def test_rays_at_their_own_times():
    """A column-wise shutter: each ray sees the ball where it is at that ray's time."""
    path = RigidPath(Linear((5.0, 0.0, 0.0), (2.0, 0.0, 0.0)))
    world = hand_world([(Sphere(1.0), path, RIGID)])
    times = np.linspace(-0.5, 1.0, 7)
    hits = world.cast((0, 0, 0), np.tile((1.0, 0, 0), (7, 1)), times)
    np.testing.assert_allclose(hits.scale, 4 + 2 * times, atol=1e-12)
    assert hits.instance.tolist() == [1] * 7
    np.testing.assert_allclose(hits.normals_world, np.tile((-1.0, 0, 0), (7, 1)), atol=1e-12)


def test_continuous_poses_meet_the_frames(mixed):
    for item in mixed.instances:
        poses = mixed.world_from_instance_at(item.id, mixed.times)
        np.testing.assert_array_equal(poses, item.world_from_instance)
    for name, view in mixed.views.items():
        poses, intrinsics = mixed.camera_at(name, mixed.times)
        np.testing.assert_array_equal(poses, view.world_from_cam)
        np.testing.assert_array_equal(intrinsics, view.intrinsics)
    early = mixed.world_from_instance_at(1, [-0.2, 3.0])
    assert early.shape == (2, 4, 4) and np.isfinite(early).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.render(0, "left"),
        lambda w: w.render(5),
        lambda w: w.render(-1),
        lambda w: w.track("camera", [[1.0, 1.0]], [0], [5]),
        lambda w: w.track("camera", [[1.0, 1.0]], [0.5], [1]),
        lambda w: w.world_from_instance_at(1, [0.0]),
        lambda w: w.trajectories(-1, 10),
    ],
)
def test_wrong_names_and_frames_are_refused(call):
    with pytest.raises(UsageError):
        call(hand_world([]))
