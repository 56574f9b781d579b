"""A world as a scene file says what the world says."""

from __future__ import annotations

import numpy as np
import pytest

from datakit import MotionKind, open_scene
from datakit.worlds import random_world, world_motion, write_world_scene


@pytest.fixture(scope="module")
def world():
    return random_world(4, motion="mixed", size=(40, 32), num_frames=3, num_views=2, background="open")


def test_scene_file_holds_the_world(world, tmp_path):
    write_world_scene(world, tmp_path / "a.h5")
    write_world_scene(world, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with open_scene(tmp_path / "a.h5") as scene:
        assert (scene.dataset, scene.id, scene.scale) == ("world", world.name, "metric")
        for name, view in world.views.items():
            stored = scene.views[name]
            np.testing.assert_array_equal(stored.world_from_cam, view.world_from_cam)
            np.testing.assert_array_equal(stored.times, world.times)
            frame = world.render(2, name)
            np.testing.assert_array_equal(stored.rgb(2), frame.rgb)
            np.testing.assert_array_equal(stored.z_depth(2), frame.z_depth.astype(np.float32))
            np.testing.assert_array_equal(stored.instances(2), frame.instances)
            np.testing.assert_array_equal(stored.normals(2), frame.normals_world.astype(np.float32))
            np.testing.assert_array_equal(stored.flow(2, "forward"), frame.flow_forward.astype(np.float32))
            np.testing.assert_array_equal(
                stored.flow(0, "backward"), world.render(0, name).flow_backward.astype(np.float32)
            )
            np.testing.assert_array_equal(stored.object_coords(2), frame.object_coords.astype(np.float32))


def test_motion_record(world):
    motion = world_motion(world, 100)
    assert motion.instance_motion[0] == MotionKind.STATIC
    for item in world.instances:
        pose, box = motion.world_from_instance[:, item.id], motion.world_from_box[:, item.id]
        if item.motion == MotionKind.STATIC:
            np.testing.assert_array_equal(pose, np.tile(np.eye(4), (3, 1, 1)))
        elif item.motion == MotionKind.RIGID:
            np.testing.assert_array_equal(pose, item.world_from_instance)
        if item.motion == MotionKind.POINTS:
            assert np.isnan(pose).all() and np.isnan(box).all()
            tracks = motion.points_world[motion.point_instance == item.id]
            np.testing.assert_array_equal(tracks, world.trajectories(item.id, 100))
        else:
            corner = box @ (1.0, 0.0, 1.0, 1.0)
            local = np.array([item.box_hi[0], item.box_lo[1], item.box_hi[2], 1.0])
            np.testing.assert_allclose(corner, item.world_from_instance @ local, atol=1e-12)
    for name in world.views:
        state, _, _ = world.see(name, motion.points_world[:, 1], world.times[1])
        np.testing.assert_array_equal(motion.point_state[name][:, 1], state)


def test_worlds_without_deforming_things_have_no_trajectories():
    motion = world_motion(random_world(0, motion="rigid", num_frames=2))
    assert motion.points_world is None and motion.point_instance is None and not motion.point_state
