from __future__ import annotations

import math

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate.tracks3d import tapvid3d
from datakit.evaluate.worldtrack import THRESHOLDS_M, world_apd, worldtrack
from datakit.geometry import rotation_from_axis_angle

ALIGNS = ("global", "per_traj", "sim3", "sim3_closed")


def clip(seed: int = 0, tracks: int = 12, frames: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1, 1, (tracks, 1, 3)) + [0, 0, 4] + rng.normal(scale=0.2, size=(tracks, frames, 3))
    target[: tracks // 2] = target[: tracks // 2, :1]  # half of them stand still
    return target, np.ones((tracks, frames), bool)


def turned(points: np.ndarray) -> np.ndarray:
    return 0.4 * points @ rotation_from_axis_angle([0.3, -0.8, 0.2]).T + [1.0, -2.0, 0.5]


@pytest.mark.parametrize("align", ALIGNS)
def test_perfect_up_to_what_is_aligned(align):
    target, seen = clip()
    predicted = turned(target) if align.startswith("sim3") else 0.3 * target
    found = worldtrack(predicted, target, seen, align=align, official=True)
    assert found["apd"] == found["apd_dynamic"] == found["apd_official"] == 1.0
    assert found["epe"] < 1e-9 and found["num_tracks"] == 12 and found["num_tracks_dynamic"] == 6


def test_a_turned_world_fails_under_scale_alone():
    target, seen = clip()
    predicted = target @ rotation_from_axis_angle([0.0, np.pi, 0.0]).T
    assert worldtrack(predicted, target, seen)["apd"] == 0.0
    assert worldtrack(predicted, target, seen, align="sim3_closed")["apd"] == 1.0


def test_by_hand_and_not_strict():
    target = np.array([[[0.0, 0, 4], [0, 0, 4], [0, 0, 4]]])
    predicted = target + [[[0.0, 0, 0], [0.5, 0, 0], [0, 3.0, 0]]]
    seen = np.array([[True, False, False]])  # occluded frames count
    found = worldtrack(predicted, target, seen)  # the median norm of both: 4 and sqrt(16.25)
    ratio = 4 / math.sqrt(16.25)
    distance = [np.linalg.norm(ratio * p - g) for p, g in zip(predicted[0], target[0], strict=True)]
    assert found["epe"] == pytest.approx(np.mean(distance))
    assert found["apd"] == pytest.approx(np.mean([[d <= m for d in distance] for m in THRESHOLDS_M]))
    exact = worldtrack(np.array([[[0.5, 0, 4], [0, 0, 4], [0, 0, 4]]]), target, seen)  # the median stays 4
    assert exact["pts_within_0.5"] == 1.0 and exact["pts_within_0.3"] == pytest.approx(2 / 3)


def test_per_traj_is_a_ratio_of_medians_for_each():
    target, seen = clip(1)
    rng = np.random.default_rng(2)
    predicted = target * rng.uniform(0.1, 9, (12, 1, 1)) + rng.normal(scale=0.05, size=target.shape)
    want = []
    for p, g in zip(predicted, target, strict=True):
        s = np.median(np.linalg.norm(g, axis=1)) / np.median(np.linalg.norm(p, axis=1))
        want += [np.linalg.norm(s * a - b) for a, b in zip(p, g, strict=True)]
    assert worldtrack(predicted, target, seen, align="per_traj")["epe"] == pytest.approx(np.mean(want))


def test_only_tracks_seen_in_the_first_frame_count():
    target, seen = clip()
    predicted = target.copy()
    seen[3:, 0] = False
    predicted[3:] += 9
    assert worldtrack(predicted, target, seen)["apd"] == 1.0
    seen[:, 0] = False
    found = worldtrack(predicted, target, seen)
    assert math.isnan(found["apd"]) and math.isnan(found["epe"]) and found["num_tracks"] == 0


@pytest.mark.parametrize("align", ALIGNS)
def test_no_answer_is_a_miss(align):
    target, seen = clip()
    predicted = target.copy()
    predicted[:3] = np.nan
    found = worldtrack(predicted, target, seen, align=align, official=True)
    assert found["apd"] == pytest.approx(0.75) and found["epe"] == np.inf
    assert found["epe_answered"] < 1e-9 and found["num_unanswered"] == 18
    assert found["apd_official"] == (pytest.approx(0.75) if align == "per_traj" else 0.0)
    assert worldtrack(np.full_like(target, np.nan), target, seen, align=align)["apd"] == 0.0


def test_unknown_truth_does_not_count():
    target, seen = clip()
    unknown = target.copy()
    unknown[:3, 2:] = np.nan
    assert worldtrack(target, unknown, seen)["apd"] == 1.0


def test_ransac_leaves_outliers_alone_and_is_seeded():
    target, seen = clip(3, tracks=30)
    predicted = turned(target)
    predicted[:8] += np.random.default_rng(4).normal(size=(8, 1, 3))
    found = worldtrack(predicted, target, seen, align="sim3", seed=5)
    assert found == worldtrack(predicted, target, seen, align="sim3", seed=5)
    assert found["pts_within_0.1"] >= 22 / 30
    assert worldtrack(predicted, target, seen, align="sim3_closed")["pts_within_0.1"] < 0.2


def test_dynamic_is_more_than_a_centimetre_of_path():
    target = np.zeros((2, 3, 3)) + [0, 0, 1.0]
    target[0, :, 0] = [0, 0.25, 0]
    target[1, 1:, 0] = 0.005
    assert worldtrack(target, target, np.ones((2, 3), bool))["num_tracks_dynamic"] == 1


def test_world_frame_scores_have_the_pixels_of_each_camera():
    target, seen = clip()
    z = target[..., 2]
    camera = [200.0, 200.0, 0, 0]
    noisy = target + np.random.default_rng(0).normal(scale=0.1, size=target.shape)
    in_camera = tapvid3d(noisy, seen, target, seen, camera)
    found = world_apd(noisy, target, seen, z, camera)
    assert found["apd3d"] == pytest.approx(in_camera["average_pts_within_thresh"])
    none = world_apd(target + [0.3, 0, 0], target, seen, z, camera, scaling="none")
    assert none["l1"] == pytest.approx(0.1) and none["l1_sum"] == pytest.approx(0.3)
    gone = world_apd(np.full_like(target, np.nan), target, seen, z, camera)
    assert gone["apd3d"] == 0.0 and gone["l1"] == np.inf
    assert math.isnan(world_apd(noisy, target, ~seen, z, camera)["l1"])
    far = world_apd(noisy, target, seen, z * 2, camera)["apd3d"]
    assert far > found["apd3d"]


def test_bad_input_is_named():
    target, seen = clip()
    with pytest.raises(UsageError, match="alignment"):
        worldtrack(target, target, seen, align="best")
    with pytest.raises(UsageError, match="fit"):
        worldtrack(target[:1], target, seen)
    with pytest.raises(UsageError, match="scaling"):
        world_apd(target, target, seen, target[..., 2], [1, 1, 0, 0], scaling="mean")
