from __future__ import annotations

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate import TRIVIAL, abs_rel, constant_depth, delta1, depth_scale, static_world
from datakit.geometry import project_points, rigid_from, rotation_from_axis_angle, transform_points

KNOWN = np.ones(4, bool)


def test_abs_rel_after_one_scale():
    target = np.array([1.0, 2.0, 4.0, 8.0])
    assert abs_rel(target / 3, target, KNOWN) == pytest.approx(0.0, abs=1e-6)
    assert abs_rel(target / 3, target, KNOWN, "none") == pytest.approx(2 / 3)
    # The L1 fit of [1, 1, 1, 10] to ones leaves the outlier alone; so does the median.
    outlier = np.array([1.0, 1.0, 1.0, 10.0])
    assert depth_scale(np.ones(4), outlier) == pytest.approx(1.0, rel=0.02)
    assert depth_scale(np.ones(4), outlier, "median") == 1.0
    assert abs_rel(np.ones(4), outlier, KNOWN, "median") == pytest.approx(0.9 / 4)
    assert delta1(np.ones(4), outlier, KNOWN, "median") == 0.75


def test_the_scale_is_the_best_one():
    rng = np.random.default_rng(0)
    predicted, target = rng.uniform(1, 5, 200), rng.uniform(2, 20, 200)

    def cost(scale: float) -> float:
        return float(np.abs(scale * predicted - target).sum())

    fitted = depth_scale(predicted, target)
    best = min(cost(scale) for scale in target / predicted)
    assert cost(fitted) < 1.002 * best  # ten steps come this near


def test_masks_and_missing_answers():
    target = np.array([1.0, 2.0, np.nan, -1.0])
    mask = np.array([True, True, False, False])
    assert abs_rel([2.0, 4.0, 9.0, 9.0], target, mask) == pytest.approx(0.0, abs=1e-6)
    assert abs_rel([2.0, np.nan, 9.0, 9.0], target, mask) == np.inf
    assert delta1([2.0, np.nan, 9.0, 9.0], target, mask) == 0.5
    assert np.isnan(abs_rel(target, target, np.zeros(4, bool)))
    with pytest.raises(UsageError, match="positive"):
        abs_rel(np.ones(4), target, KNOWN)
    with pytest.raises(UsageError, match="fit"):
        abs_rel(np.ones(3), target, KNOWN)


def wall_batch(z: float) -> dict:
    """A wall that nothing moves in front of, seen by a camera that moves and turns."""
    rng = np.random.default_rng(1)
    size, frames, count = 32, 3, 50
    turn = rotation_from_axis_angle([0.0, 0.1, 0.0])
    poses = np.stack([np.eye(4), rigid_from(np.eye(3), [0.3, 0, 0]), rigid_from(turn, [0.5, 0, 0.2])])
    intrinsics = np.tile(np.array([[40.0, 0, 16], [0, 44.0, 15], [0, 0, 1]]), (frames, 1, 1))
    world = np.concatenate([rng.uniform(-0.4, 0.4, (count, 2)) * z, np.full((count, 1), z)], axis=1)
    t_cam = rng.integers(frames, size=count)
    xyz = transform_points(np.linalg.inv(poses[t_cam]), world)
    uv, _ = project_points(world, intrinsics[0])  # t_src is frame 0, whose camera is the world
    return {
        "video": np.zeros((1, frames, 3, size, size), np.uint8),
        "camera": {"intrinsics": intrinsics[None], "world_from_cam": poses[None]},
        "query": {"uv": uv[None] / size, "t_src": np.zeros((1, count), int), "t_cam": t_cam[None]},
        "target": {"xyz": xyz[None]},
        "mask": {"xyz": np.ones((1, count), bool)},
    }


def test_the_static_wall_is_right_where_the_world_is_one():
    batch = wall_batch(5.0)
    own = batch["query"]["t_cam"][0] == 0
    # Depth is measured where t_cam = t_src, of which the median is the wall's.
    batch["mask"]["xyz"][0] = own
    np.testing.assert_allclose(static_world(batch)[0], batch["target"]["xyz"][0], atol=1e-9)
    still = constant_depth(batch)[0]
    np.testing.assert_allclose(5 * still[own], batch["target"]["xyz"][0][own], atol=1e-9)
    assert np.abs(5 * still[~own] - batch["target"]["xyz"][0][~own]).max() > 0.1
    assert set(TRIVIAL) == {"constant_depth", "static_world"}


def test_a_clip_without_truth_gets_an_answer_all_the_same():
    batch = wall_batch(5.0)
    batch["mask"]["xyz"][:] = False
    assert np.isfinite(static_world(batch)).all()
