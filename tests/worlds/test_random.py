"""What every random world promises: nothing overlaps, everything can be seen, same seed same world."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.motion import MotionKind, Visibility
from datakit.worlds import Box, Cylinder, Jelly, Sphere, random_world

MOTIONS = ("static", "rigid", "points", "mixed")


def holds(item, points, time):
    """Tell which world points (N, 3) are inside a solid at a time, by its implicit formula."""
    pose = item.path.world_from_instance([time])[0]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    shape = item.shape
    if isinstance(shape, Sphere):
        return np.linalg.norm(local, axis=1) < shape.radius
    if isinstance(shape, Box):
        return (np.abs(local) < shape.half).all(axis=1)
    if isinstance(shape, Cylinder):
        return (np.hypot(local[:, 0], local[:, 1]) < shape.radius) & (np.abs(local[:, 2]) < shape.half_height)
    if isinstance(shape, Jelly):
        swell = 1 + shape.swell * np.sin(shape.omega * time + np.asarray(shape.phases))
        return (local**2 / (swell * shape.half) ** 2).sum(axis=1) < 1
    return np.zeros(len(points), bool)  # a sheet has no inside


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_nothing_cuts_into_anything(motion, seed):
    world = random_world(seed, motion=motion, num_frames=40)
    times = np.linspace(-1 / world.fps, 41 / world.fps, 15)
    tracks = [world.trajectories(item.id, 150, times) for item in world.instances]
    for item, track in zip(world.instances, tracks, strict=True):
        assert track[..., 2].min() > -1e-9, f"{item.name} goes through the floor"
        assert np.abs(track[..., :2]).max() < 11
    for item, other in itertools.permutations(world.instances, 2):
        for k, time in enumerate(times):
            assert not holds(item, tracks[other.id - 1][:, k], time).any(), (item.name, other.name)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_things_and_cameras_are_of_a_plausible_size(motion, seed):
    world = random_world(seed, motion=motion)
    for item in world.instances:
        assert 0.15 < item.shape.bound_radius < 1.3
    eye = world.views["camera"].world_from_cam[:, :3, 3]
    assert (eye[:, 2] > 1).all() and (np.abs(eye[:, :2]) < 10).all()
    distance = np.linalg.norm(eye, axis=1)
    assert (distance > 4).all() and (distance < 12).all()
    for view in world.views.values():
        # z up: the image's down axis points down in the world.
        assert (view.world_from_cam[:, 2, 1] < -0.5).all()
    frame = world.render(0)
    shown = set(np.unique(frame.instances)) - {0}
    assert len(shown) >= len(world.instances) / 2
    assert 0.02 < (frame.instances > 0).mean() < 0.7


@pytest.mark.parametrize(
    ("motion", "kinds"),
    [
        ("static", {MotionKind.STATIC}),
        ("rigid", {MotionKind.STATIC, MotionKind.RIGID}),
        ("points", {MotionKind.STATIC, MotionKind.POINTS}),
        ("mixed", {MotionKind.STATIC, MotionKind.RIGID, MotionKind.POINTS}),
    ],
)
def test_kinds_of_motion(motion, kinds):
    world = random_world(1, motion=motion)
    assert {item.motion for item in world.instances} == kinds
    assert [item.id for item in world.instances] == list(range(1, len(world.instances) + 1))
    for item in world.instances:
        assert item.is_dynamic == (item.motion != MotionKind.STATIC)
        if item.motion == MotionKind.STATIC:
            np.testing.assert_array_equal(
                item.world_from_instance, item.world_from_instance[:1].repeat(24, 0)
            )
        if item.motion == MotionKind.RIGID:
            moved = np.abs(item.world_from_instance - item.world_from_instance[:1]).max()
            assert moved > 0.05


@pytest.mark.parametrize("seed", range(6))
def test_something_leaves_and_comes_back(seed):
    world = random_world(seed, motion="rigid")
    leaver = world.instances[-1]
    tracks = world.trajectories(leaver.id, 100)
    states = np.stack([world.see("camera", tracks[:, t], time)[0] for t, time in enumerate(world.times)])
    gone = (states == Visibility.OUTSIDE).all(axis=1)
    inside = (states != Visibility.OUTSIDE).any(axis=1)
    assert gone.any() and inside[0] and inside[-1]
    assert inside[: gone.argmax()].all()


def test_cameras():
    moving = random_world(3).views["camera"].world_from_cam
    assert np.linalg.norm(moving[-1, :3, 3] - moving[0, :3, 3]) > 0.5
    static = random_world(3, camera="static").views["camera"].world_from_cam
    np.testing.assert_array_equal(static, static[:1].repeat(24, 0))
    rotating = random_world(3, camera="rotating").views["camera"].world_from_cam
    np.testing.assert_array_equal(rotating[:, :3, 3], rotating[:1, :3, 3].repeat(24, 0))
    assert np.abs(rotating[-1, :3, :3] - rotating[0, :3, :3]).max() > 0.02


def test_rig_is_rigid_and_stereo():
    world = random_world(3, num_views=3)
    assert list(world.views) == ["camera", "camera_1", "camera_2"]
    poses = [view.world_from_cam for view in world.views.values()]
    second = np.linalg.inv(poses[0]) @ poses[1]
    np.testing.assert_allclose(
        second, np.tile([[1, 0, 0, 0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], (24, 1, 1)), atol=1e-12
    )
    third = np.linalg.inv(poses[0]) @ poses[2]
    np.testing.assert_allclose(third, third[:1].repeat(24, 0), atol=1e-12)
    assert third[0, 0, 2] > 0.1, "turned to the right"


def test_lenses():
    plain = random_world(3, size=(64, 48)).views["camera"].intrinsics
    np.testing.assert_allclose(plain, np.tile([[70, 0, 32], [0, 70, 24], [0, 0, 1]], (24, 1, 1)))
    general = random_world(3, size=(64, 48), lens="general").views["camera"].intrinsics
    assert (general[:, 0, 0] != general[:, 1, 1]).all() and (general[:, 0, 2] != 32).all()
    assert (np.diff(general[:, 0, 0]) > 0).all()


def test_open_background_shows_sky():
    frame = random_world(3, size=(48, 48), background="open").render(0)
    assert np.isnan(frame.z_depth).any() and np.isfinite(frame.z_depth).mean() > 0.4


@pytest.mark.parametrize("motion", ["rigid", "points"])
def test_same_seed_same_world(motion):
    first, again = (random_world(7, motion=motion, size=(40, 30), num_frames=4).render(2) for _ in range(2))
    other = random_world(8, motion=motion, size=(40, 30), num_frames=4).render(2)
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(again, name))
        assert not np.array_equal(value, getattr(other, name), equal_nan=True)


def test_worlds_cross_process_boundaries():
    world = random_world(7, motion="mixed", size=(24, 24), num_frames=2)
    copy = pickle.loads(pickle.dumps(world))
    np.testing.assert_array_equal(copy.render(1).rgb, world.render(1).rgb)


@pytest.mark.parametrize(
    "wrong",
    [
        {"motion": "fluid"},
        {"camera": "drunk"},
        {"background": "void"},
        {"lens": "fisheye"},
        {"num_frames": 0},
        {"num_views": 0},
        {"fps": 0.0},
        {"size": (0, 10)},
    ],
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(UsageError):
        random_world(0, **wrong)
