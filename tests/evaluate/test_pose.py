"""Trajectories against evo called directly and by hand; pose AUC against slow loops."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate.pose import megasam, pose_auc, trajectory
from datakit.geometry import rigid_from, rotation_from_axis_angle

pytest.importorskip("evo")

NAMES = ("ate", "rpe_trans", "rpe_rot")


def path(seed: int = 0, count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turns = rotation_from_axis_angle(rng.normal(scale=0.4, size=(count, 3)))
    return np.stack([rigid_from(r, t) for r, t in zip(turns, rng.normal(size=(count, 3)), strict=True)])


def noisy(poses: np.ndarray, seed: int = 1, scale: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turns = rotation_from_axis_angle(rng.normal(scale=scale, size=(len(poses), 3)))
    out = poses.copy()
    out[:, :3, :3] = poses[:, :3, :3] @ turns
    out[:, :3, 3] += rng.normal(scale=scale, size=(len(poses), 3))
    return out


def moved(poses: np.ndarray, factor: float = 3.0) -> np.ndarray:
    """The same trajectory in another world and unit."""
    out = rigid_from(rotation_from_axis_angle([0.4, -1.0, 0.3]), [1.0, 2, 3]) @ poses
    out[:, :3, 3] *= factor
    return out


def test_is_evo_called_directly():
    from evo.core import metrics
    from evo.core import trajectory as paths

    truth = path()
    guess = moved(noisy(truth))
    reference = paths.PosePath3D(poses_se3=list(truth))
    estimate = paths.PosePath3D(poses_se3=list(guess))
    estimate.align(reference, correct_scale=True)
    want = []
    for relation in (None, metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg):
        part = metrics.PoseRelation.translation_part
        made = (
            metrics.APE(part)
            if relation is None
            else metrics.RPE(relation, 1, metrics.Unit.frames, 0.1, True)
        )
        made.process_data((reference, estimate))
        want.append(made.get_statistic(metrics.StatisticsType.rmse))
    found = trajectory(guess, truth, official=True)
    assert [found[name] for name in NAMES] == want
    assert [found[f"{name}_official"] for name in NAMES] == want


def test_is_the_definition():
    truth = path()
    guess = noisy(truth)
    a, b = guess[:, :3, 3], truth[:, :3, 3]
    left, singular, right = np.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
    sign = np.diag([1, 1, np.linalg.det(left @ right)])
    turn = left @ sign @ right
    s = (singular * np.diag(sign)).sum() / np.square(a - a.mean(0)).sum()
    aligned = guess.copy()
    aligned[:, :3, :3] = turn @ guess[:, :3, :3]
    aligned[:, :3, 3] = s * a @ turn.T + b.mean(0) - s * turn @ a.mean(0)
    steps, angles = [], []
    for i in range(len(truth) - 1):
        q = np.linalg.inv(truth[i]) @ truth[i + 1]
        e = np.linalg.inv(q) @ (np.linalg.inv(aligned[i]) @ aligned[i + 1])
        steps.append(np.linalg.norm(e[:3, 3]))
        angles.append(np.degrees(np.arccos((np.trace(e[:3, :3]) - 1) / 2)))
    found = trajectory(guess, truth)
    ate = np.sqrt(np.square(aligned[:, :3, 3] - b).sum(1).mean())
    want = [ate, np.sqrt(np.mean(np.square(steps))), np.sqrt(np.mean(np.square(angles)))]
    assert [found[name] for name in NAMES] == pytest.approx(want, rel=1e-9)


def test_perfect_in_any_world_and_unit_and_worse_with_noise():
    truth = path()
    found = trajectory(moved(truth), truth)
    assert max(found[name] for name in NAMES) < 1e-6
    ates = [trajectory(noisy(truth, scale=s), truth)["ate"] for s in (0.0, 0.01, 0.05, 0.2)]
    assert ates == sorted(ates)


def line(count: int = 6, step: float = 1.0) -> np.ndarray:
    turns = rotation_from_axis_angle([[0, 0.1 * i, 0] for i in range(count)])
    direction = np.array([0.3, 0.5, 0.7]) * step
    return np.stack([rigid_from(r, i * direction) for i, r in enumerate(turns)])


@pytest.mark.parametrize("truth", [line(step=0.0), line(), path(count=2)], ids=["static", "straight", "two"])
def test_degenerate_truth_is_undefined_but_for_rotations(truth):
    guess = truth.copy()
    guess[1:, :3, :3] = guess[1:, :3, :3] @ rotation_from_axis_angle([0, np.radians(2), 0])
    found = trajectory(guess, truth, official=True)
    assert math.isnan(found["ate"]) and math.isnan(found["rpe_trans"])
    # Two degrees between the first two frames, and none after.
    assert found["rpe_rot"] == pytest.approx(2 / math.sqrt(len(truth) - 1))


def test_a_line_that_is_straight_but_for_rounding_is_undefined_beside_what_evo_fits():
    truth = line(30)
    truth[:, :3, 3] += [1234.5, -77.1, 3.3]
    found = trajectory(moved(truth), truth, official=True)
    assert math.isnan(found["ate"]) and found["ate_official"] < 1e-6


def test_static_prediction_of_a_moving_camera_is_what_evo_says_nothing_of():
    truth = path()
    guess = truth.copy()
    guess[:, :3, 3] = 0
    found = trajectory(guess, truth, official=True)
    assert math.isnan(found["ate"]) and math.isnan(found["ate_official"])
    assert math.isnan(found["rpe_rot_official"]) and found["rpe_rot"] == pytest.approx(0, abs=1e-5)


def test_one_pose_no_answer_and_unknown_truth():
    truth = path()
    assert all(math.isnan(trajectory(truth[:1], truth[:1])[name]) for name in NAMES)
    guess = noisy(truth)
    gone = guess.copy()
    gone[3] = np.nan
    found = trajectory(gone, truth)
    assert [found[name] for name in NAMES] == [np.inf] * 3 and found["num_unanswered"] == 1
    unknown = truth.copy()
    unknown[-1] = np.nan
    assert trajectory(guess, unknown) == trajectory(guess[:-1], truth[:-1])
    with pytest.raises(UsageError, match="fit"):
        trajectory(guess[:3], truth)


def test_without_evo_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "evo.core", None)
    with pytest.raises(UsageError, match="evaluate"):
        trajectory(path(), path())


def test_megasam_has_the_unit_of_first_to_last():
    truth = path()
    guess = noisy(truth)
    unit = np.linalg.norm(truth[-1, :3, 3] - truth[0, :3, 3])
    found, plain = megasam(guess, truth), trajectory(guess, truth)
    assert found["ate"] == pytest.approx(plain["ate"] / unit)
    assert found["rpe_rot"] == pytest.approx(plain["rpe_rot"])
    loop = np.concatenate([truth, truth[:1]])
    found = megasam(noisy(loop), loop, official=True)
    assert math.isnan(found["ate"]) and math.isnan(found["rpe_trans"])
    assert found["ate_official"] > 1e5 and found["rpe_rot"] > 0
    assert math.isnan(megasam(truth, np.full_like(truth, np.nan))["ate"])


def slow_auc(guess: np.ndarray, truth: np.ndarray, most: int) -> tuple[float, float, float]:
    worst, turns, ways = [], [], []
    for i in range(len(truth)):
        for j in range(i + 1, len(truth)):
            a, b = (np.linalg.inv(p[i]) @ p[j] for p in (guess, truth))
            cosine = np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)
            turns.append(math.degrees(math.acos(cosine)))
            way = a[:3, 3] @ b[:3, 3] / np.linalg.norm(a[:3, 3]) / np.linalg.norm(b[:3, 3])
            ways.append(math.degrees(math.acos(min(1.0, abs(way)))))
            worst.append(max(turns[-1], ways[-1]))
    auc = np.mean([np.mean([w < t for w in worst]) for t in range(1, most + 1)])
    return auc, np.mean([t < most for t in turns]), np.mean([w < most for w in ways])


@pytest.mark.parametrize("most", [3, 15, 30])
def test_auc_is_the_definition(most):
    truth = path(3)
    guess = noisy(truth, scale=0.02 if most == 3 else 0.15)
    found = pose_auc(moved(guess), truth, (most,), official=True)
    got = found[f"auc_{most}"], found[f"rra_{most}"], found[f"rta_{most}"]
    assert got == pytest.approx(slow_auc(guess, truth, most))
    assert found[f"auc_{most}_official"] == found[f"auc_{most}"] and 0 < got[0] < 1


def test_auc_perfect_folded_and_signed():
    truth = path()
    back = truth.copy()
    back[:, :3, 3] *= -1
    found = pose_auc(back, truth)
    assert found["auc_30"] == 1.0 and found["auc_30_signed"] == 0.0
    found = pose_auc(moved(truth), truth)
    assert found["auc_3"] == found["auc_3_signed"] == found["rra_3"] == found["rta_3"] == 1.0


def test_auc_of_a_static_camera_is_undefined_beside_the_official_zero():
    still = line(step=0.0)
    found = pose_auc(still, still, official=True)
    assert math.isnan(found["auc_30"]) and math.isnan(found["rta_30"])
    assert found["auc_30_official"] == 0.0 and found["auc_rotation_30"] == 1.0
    assert found["num_pairs"] == found["num_pairs_undefined"] == 15
    # One stop: that pair is left out, the others count.
    truth = path(count=4)
    truth[1, :3, 3] = truth[0, :3, 3]
    found = pose_auc(truth, truth, official=True)
    assert found["auc_30"] == 1.0 and found["num_pairs_undefined"] == 1
    assert found["auc_30_official"] == pytest.approx(5 / 6)
    # A prediction that stands still while truth moves is wrong, not undefined.
    guess = path(count=4)
    guess[:, :3, 3] = 0
    assert pose_auc(guess, path(count=4))["auc_30"] == 0.0


def test_auc_of_no_answer_and_of_one_frame():
    truth = path(count=4)
    guess = truth.copy()
    guess[0] = np.nan
    found = pose_auc(guess, truth)
    assert found["auc_30"] == found["rra_30"] == found["rta_30"] == 0.5  # three of six pairs
    assert math.isnan(pose_auc(truth[:1], truth[:1])["auc_30"])
