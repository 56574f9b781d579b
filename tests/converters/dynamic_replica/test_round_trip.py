"""World -> native files -> scene: the same world comes out of both layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import datakit
from converters import dynamic_replica as dr
from converters.dynamic_replica.write import FIRST_ID, VIEWS
from datakit.motion import MotionKind, Visibility
from datakit.worlds import World

#: Half of a half float's last place, relative.
HALF = 2**-11


@pytest.mark.parametrize("form", dr.NATIVE_FORMS)
def test_everything_comes_back(form: str, scene_files: dict[str, Path], world: World) -> None:
    with datakit.open_scene(scene_files[form]) as scene:
        assert scene.split == "valid" and scene.scale == "metric" and list(scene.views) == ["left", "right"]
        for eye, view in scene.views.items():
            truth = world.views[VIEWS[eye]]
            np.testing.assert_allclose(view.world_from_cam, truth.world_from_cam, atol=1e-9)
            np.testing.assert_allclose(view.intrinsics, truth.intrinsics, atol=1e-9)
            np.testing.assert_allclose(view.times, world.times, atol=1e-12)
            for t in range(view.num_frames):
                frame = world.render(t, VIEWS[eye])
                np.testing.assert_array_equal(view.rgb(t), frame.rgb)
                np.testing.assert_array_equal(view.instances(t), frame.instances + FIRST_ID)
                want = frame.z_depth.copy()
                want[0, :4] = np.nan  # the writer's codes for "unknown"
                np.testing.assert_allclose(view.z_depth(t), want, rtol=HALF)
                for name, flow, absent in (
                    ("forward", frame.flow_forward, world.num_frames - 1),
                    ("backward", frame.flow_backward, 0),
                ):
                    got = view.flow(t, name)
                    if t == absent:
                        assert np.isnan(got).all()
                    else:
                        np.testing.assert_allclose(got, flow, rtol=HALF, atol=1e-6)


def test_trajectories_and_their_states(scene_files: dict[str, Path], world: World) -> None:
    with datakit.open_scene(scene_files["split"]) as scene:
        motion = scene.motion
        for body in world.bodies:
            row = list(motion.instance_ids).index(body.id + FIRST_ID)
            want = MotionKind.STATIC if not body.is_dynamic else MotionKind.POINTS
            assert motion.instance_motion[row] == want, body.name
            mine = motion.point_instance == body.id + FIRST_ID
            tracks = world.trajectories(body.id, 300).astype(np.float32)
            # A subset of the body's points, each one exact at all times.
            assert {p.tobytes() for p in motion.points_world[mine]} <= {p.tobytes() for p in tracks}
        flat = motion.points_world.reshape(-1, 3).astype(np.float64)
        state, _, _ = world.see("camera", flat, np.tile(world.times, len(motion.points_world)))
        stored = motion.point_state["left"]
        # float32 moves points by 1e-7 of the scene, which turns some on edges.
        assert (stored == state.reshape(stored.shape)).mean() > 0.995
        assert {Visibility.VISIBLE, Visibility.OCCLUDED, Visibility.OUTSIDE} == set(np.unique(stored))


def test_a_pixel_on_a_deforming_thing_is_followed(scene_files: dict[str, Path], world: World) -> None:
    rng = np.random.default_rng(0)
    uv = rng.uniform(2, [94, 62], size=(4000, 2))
    truth, state = world.track("camera", uv, np.zeros(4000, int), np.full(4000, 3))
    with datakit.open_scene(scene_files["split"]) as scene:
        tracks = scene.track("left", uv, 0, 3)
        ids = scene.views["left"].instances(0)[uv[:, 1].astype(int), uv[:, 0].astype(int)]
        moving = np.isin(ids, scene.motion.instance_ids[scene.motion.instance_motion == MotionKind.POINTS])
    gap = np.linalg.norm(tracks.points_world - truth, axis=1)
    known = moving & np.isfinite(gap)
    assert known.sum() > 150
    # Half-float depth at 7 m is good to 3 mm.
    assert np.quantile(gap[known], 0.9) < 0.02
    assert np.quantile(gap[~moving & np.isfinite(gap)], 0.9) < 0.005


def test_the_right_eye_is_to_the_right(scene_files: dict[str, Path]) -> None:
    with datakit.open_scene(scene_files["split"]) as scene:
        left, right = (scene.views[eye].world_from_cam[0] for eye in ("left", "right"))
        offset = left[:3, :3].T @ (right[:3, 3] - left[:3, 3])
        np.testing.assert_allclose(offset, [scene.metadata["baseline"], 0, 0], atol=1e-9)
