from __future__ import annotations

import math

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate.point_maps import (
    align_scale_z,
    boundary_f1,
    estimate_normals,
    fov_error,
    icp,
    mean_shift_l1,
    moge_local_points,
    moge_points,
    precision_recall,
    reconstruction,
)
from datakit.geometry import rotation_from_axis_angle


def cloud(seed: int = 0, count: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3)) + [0, 0, 4]


def test_mean_shift_takes_translation_and_nothing_else():
    target = cloud()
    assert mean_shift_l1(target + [3, -1, 2], target)["l1"] == pytest.approx(0, abs=1e-12)
    by_hand = mean_shift_l1([[0.0, 0, 0], [2, 0, 0]], [[0.0, 0, 0], [1, 0, 0]])
    assert by_hand["l1_sum"] == pytest.approx(0.5) and by_hand["l1"] == pytest.approx(0.5 / 3)
    assert mean_shift_l1(2 * target, target)["l1"] > 0.2


def test_mean_shift_of_missing_points():
    target = cloud()
    gone = target.copy()
    gone[0] = np.nan
    assert mean_shift_l1(gone, target)["l1"] == np.inf
    assert mean_shift_l1(target, gone)["num_points"] == 299
    assert math.isnan(mean_shift_l1(target, target, np.zeros(300, bool))["l1"])
    with pytest.raises(UsageError, match="fit"):
        mean_shift_l1(target[:2], target)


def test_scale_and_z_shift_by_medians():
    target = cloud()
    wrong = (target - [0, 0, 1.5]) * 0.2
    assert np.allclose(align_scale_z(wrong, target), target)
    assert np.isnan(align_scale_z(np.full_like(target, np.nan), target)).all()


def test_icp_finds_a_small_motion():
    target = cloud(1, 2000)
    turn = rotation_from_axis_angle([0.01, 0.02, -0.01])
    motion = icp((target - [0.01, 0, 0.02]) @ turn, target, 0.2)
    assert np.allclose(motion[:3, :3], turn, atol=1e-6)
    assert (icp(target + 50, target) == np.eye(4)).all()
    assert (icp(np.zeros((0, 3)), target) == np.eye(4)).all()


def test_reconstruction_is_nearest_neighbours_both_ways():
    ours, theirs = cloud(2, 40), cloud(3, 60)
    rng = np.random.default_rng(4)
    n_ours, n_theirs = (
        v / np.linalg.norm(v, axis=1, keepdims=True)
        for v in map(rng.normal, [0, 0], [1, 1], [(40, 3), (60, 3)])
    )
    between = np.array([[np.linalg.norm(a - b) for b in theirs] for a in ours])
    found = reconstruction(ours, theirs, n_ours, n_theirs, icp_distance=None)
    assert found["accuracy"] == pytest.approx(between.min(1).mean())
    assert found["completeness_median"] == pytest.approx(np.median(between.min(0)))
    dots = np.abs(n_ours @ n_theirs.T)
    nc1 = np.mean([dots[i, j] for i, j in enumerate(between.argmin(1))])
    nc2 = np.mean([dots[i, j] for j, i in enumerate(between.argmin(0))])
    assert (found["nc1"], found["nc2"]) == pytest.approx((nc1, nc2))
    assert found["normal_consistency"] == pytest.approx((nc1 + nc2) / 2)


def test_perfect_and_empty_reconstruction():
    rng = np.random.default_rng(5)
    plane = np.concatenate([rng.uniform(-1, 1, (400, 2)), np.full((400, 1), 3.0)], axis=1)
    assert np.allclose(np.abs(estimate_normals(plane)), [0, 0, 1])
    found = reconstruction(plane, plane)
    assert found["accuracy"] < 1e-9 and found["normal_consistency"] == pytest.approx(1.0)
    nothing = np.full((5, 3), np.nan)
    found = reconstruction(nothing, plane)
    assert math.isnan(found["accuracy"]) and found["completeness"] == np.inf
    assert math.isnan(reconstruction(plane, nothing)["completeness"])


def test_precision_and_recall_are_strict():
    target = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
    ours = np.array([[0.0, 0.25, 0], [1, 0.125, 0]])
    found = precision_recall(ours, target, threshold=0.25, official=True)
    assert found["precision"] == 0.5 and found["recall"] == 0.25
    assert found["fscore"] == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert found["acc"] == pytest.approx(0.1875) and found["overall"] == (found["acc"] + found["comp"]) / 2
    assert found["fscore_official"] == found["fscore"]
    assert precision_recall(target, target)["fscore"] == 1.0
    assert precision_recall(target + 9, target)["fscore"] == 0.0


def test_empty_clouds_are_undefined_beside_the_official_values():
    target, nothing = cloud(), np.zeros((0, 3))
    found = precision_recall(nothing, target, official=True)
    assert math.isnan(found["acc"]) and math.isnan(found["precision"]) and found["comp"] == np.inf
    assert found["recall"] == found["fscore"] == 0.0 and found["acc_official"] == np.inf
    found = precision_recall(target, nothing, official=True)
    assert all(math.isnan(found[name]) for name in ("acc", "comp", "precision", "recall", "fscore"))
    assert found["fscore_official"] == 0.0


def point_map(seed: int = 0, side: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1, 1, (side, side, 3)) + [0, 0, 4.0]
    return target, rng.random((side, side)) < 0.8


@pytest.mark.parametrize(
    "align, change",
    [
        ("none", lambda p: p),
        ("shift", lambda p: p + [0.5, -1, 2]),
        ("scale", lambda p: 0.2 * p),
        ("affine", lambda p: 0.2 * p + [0.5, -1, 2]),
    ],
)
def test_moge_points_are_perfect_up_to_their_alignment(align, change):
    target, mask = point_map()
    found = moge_points(change(target), target, mask, align)
    assert found["rel_point"] < 1e-9 and found["delta1_point"] == 1.0
    assert found["num_points"] == mask.sum()
    if align != "affine":
        assert moge_points(0.2 * target + [9, 9, 9], target, mask, align)["rel_point"] > 0.1


def test_moge_points_by_hand():
    target = np.tile([0.0, 0, 4], (2, 2, 1))
    predicted = target.copy()
    predicted[0, 0] = [0, 0, 5.0]  # error 1, min norm 4: not below 1
    predicted[0, 1] = [0, 0, 3.2]  # error 0.8, min norm 3.2: not below 0.8
    mask = np.array([[True, True], [True, False]])
    found = moge_points(predicted, target, mask, "none")
    assert found["rel_point"] == pytest.approx((1 + 0.8) / 4 / 3, rel=1e-6)
    assert found["delta1_point"] == pytest.approx(1 / 3, abs=0.34)
    assert found["delta1_point"] <= 2 / 3
    predicted[1, 0] = np.nan
    assert moge_points(predicted, target, mask, "none")["rel_point"] == np.inf
    assert math.isnan(moge_points(predicted, target, np.zeros((2, 2), bool))["rel_point"])
    with pytest.raises(UsageError, match="alignment"):
        moge_points(predicted, target, mask, "best")


def test_moge_local_points_fit_each_segment():
    target, mask = point_map()
    segments = np.zeros(mask.shape, int)
    segments[:40], segments[40:] = 1, 2
    predicted = np.where(segments[..., None] == 1, 0.3 * target + 1, 2 * target - [0, 3, 0])
    found = moge_local_points(predicted, target, mask, segments)
    assert found["rel_point_local"] < 1e-9 and found["num_segments"] == 2
    assert math.isnan(moge_local_points(predicted, target, mask, segments * 0)["rel_point_local"])


def test_fov():
    k = np.diag([50.0, 50, 1])
    assert fov_error(k, np.diag([100.0, 100, 1]), 100)["fov_x_mae"] == pytest.approx(
        90 - 2 * math.degrees(math.atan(0.5))
    )
    assert fov_error(k, k, 100) == {"fov_x_mae": 0.0, "fov_x_deviation": 0.0}


def slow_boundary(ours, theirs, mask, radius) -> float:
    """As written: over centres `radius` from the rim, precision and recall for each ratio."""
    height, width = theirs.shape
    pairs = [
        (v, u, y, x)
        for v in range(radius, height - radius)
        for u in range(radius, width - radius)
        for y in range(v - radius, v + radius + 1)
        for x in range(u - radius, u + radius + 1)
        if (y - v) ** 2 + (x - u) ** 2 <= radius**2 and mask[v, u] and mask[y, x]
    ]
    total = weights = 0.0
    for t in np.linspace(0.05, 0.25, 10):
        a = [ours[y, x] / ours[v, u] > 1 + t for v, u, y, x in pairs]
        b = [theirs[y, x] / theirs[v, u] > 1 + t for v, u, y, x in pairs]
        both = sum(p and q for p, q in zip(a, b, strict=True))
        precision, recall = both / max(sum(a), 1e-12), both / max(sum(b), 1e-12)
        total += t * 2 * precision * recall / max(precision + recall, 1e-12)
        weights += t
    return total / weights


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_boundary_f1_is_the_definition(radius):
    rng = np.random.default_rng(radius)
    target = rng.uniform(1, 3, (14, 12))
    predicted = target * rng.uniform(0.8, 1.2, target.shape)
    mask = rng.random(target.shape) < 0.9
    found = boundary_f1(predicted, target, mask, radius, official=True)
    assert found["boundary_f1"] == pytest.approx(slow_boundary(predicted, target, mask, radius), rel=1e-6)
    assert found["boundary_f1_official"] == pytest.approx(found["boundary_f1"])


def test_boundary_f1_of_smooth_truth_is_undefined():
    flat, mask = np.ones((8, 8)), np.ones((8, 8), bool)
    found = boundary_f1(flat, flat, mask, official=True)
    assert math.isnan(found["boundary_f1"]) and found["boundary_f1_official"] == 0.0
    step = flat.copy()
    step[:, 4:] = 1.1  # no edge above 1.1: half of the ratios are undefined
    found = boundary_f1(step, step, mask, official=True)
    assert found["boundary_f1"] == 1.0 and 0 < found["boundary_f1_official"] < 1
    assert boundary_f1(step, flat, mask)["boundary_f1"] == 0.0
    assert math.isnan(boundary_f1(flat[:2], flat[:2], mask[:2])["boundary_f1"])
