"""Every protocol of video depth, against its definition written slowly and, where it is an optimiser, torch's own."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from datakit.errors import UsageError
from datakit.evaluate.depth_fit import (
    fit_l1,
    fit_l1_adam,
    fit_l1_scale,
    fit_weighted_affine,
    fit_weighted_scale,
    nearest_on_grid,
)
from datakit.evaluate.video_depth import PROTOCOLS, protocol_settings, tae, video_depth
from datakit.geometry import rigid_from


def clip(seed: int = 0, frames: int = 3, height: int = 12, width: int = 16, noise: float = 0.2):
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 9, (frames, height, width)).astype(np.float32)
    predicted = (target * 0.4 * np.exp(rng.normal(scale=noise, size=target.shape))).astype(np.float32)
    target[rng.random(target.shape) < 0.2] = 0
    target[0, 0, 0] = 75.0  # beyond 70, within 80
    return predicted, target


def errors(d, g) -> tuple[float, float]:
    ratio = [max(a / b, b / a) for a, b in zip(d, g, strict=True)]
    return np.mean([abs(a - b) / b for a, b in zip(d, g, strict=True)]), np.mean([r < 1.25 for r in ratio])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_perfect_up_to_scale(name):
    _, target = clip()
    factor = 1.0 if name == "metric" else 0.37
    found = video_depth(factor * target, target, name, dataset="sintel")
    assert found["abs_rel"] < 2e-3 and found["delta1"] == 1.0
    assert found["num_unanswered"] == 0 and found["num_frames"] == 3


@pytest.mark.parametrize("dataset, most", [("sintel", 70), ("bonn", 70), ("kitti", math.inf)])
def test_cut3r_scale_is_ten_weiszfeld_steps_in_torch(dataset, most):
    predicted, target = clip()
    d, g = torch.from_numpy(predicted), torch.from_numpy(target)
    mask = (g > 0) & (g < most)
    d, g = d[mask].double(), g[mask].double()
    s = g.mean() / d.mean()
    for _ in range(10):
        w = 1 / ((s * d - g).abs() + 1e-8)
        s = (w * d * g).sum() / (w * d**2).sum()
    fitted = (s.clamp(min=1e-3) * d).clamp(max=70) if dataset == "sintel" else s * d
    want = errors(fitted.tolist(), g.tolist())
    found = video_depth(predicted, target, "cut3r_scale", dataset=dataset)
    assert (found["abs_rel"], found["delta1"]) == pytest.approx(want, abs=1e-9)
    assert found["scale"] == pytest.approx(float(s)) and found["num_valid"] == int(mask.sum())


def test_prediction_beyond_seventy_is_clipped_on_sintel_only():
    target = np.full((1, 4, 4), 60.0)
    predicted = target.copy()
    predicted[0, 0, 0] = 200.0
    bound = video_depth(predicted, target, "metric", dataset="sintel")["abs_rel"]
    free = video_depth(predicted, target, "metric", dataset="bonn")["abs_rel"]
    assert bound == pytest.approx((10 / 60) / 16) and free == pytest.approx((140 / 60) / 16)


def test_scale_has_a_floor():
    assert fit_l1_scale(np.full(4, 1e6), np.ones(4)) == (1e-3, 0.0)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scale_and_shift_of_cut3r_is_torch_adam(kind):
    predicted, target = clip(0, 2, 5, 6, noise=0.3)
    use = (target > 0) & (target < 70)
    d, g = predicted[use].astype(kind), target[use].astype(kind)
    s = torch.tensor([float(torch.median(torch.from_numpy(g)) / torch.median(torch.from_numpy(d)))])
    s = s.to(torch.from_numpy(d).dtype).requires_grad_()
    t = torch.zeros_like(s).requires_grad_()
    adam, before = torch.optim.Adam([s, t], lr=1e-4), None
    for _ in range(1000):
        adam.zero_grad()
        loss = (s * torch.from_numpy(d) + t - torch.from_numpy(g)).abs().sum()
        loss.backward()
        adam.step()
        if before is not None and abs(before - loss) < 1e-6:
            break
        before = loss.item()
    assert fit_l1_adam(d, g) == pytest.approx((s.item(), t.item()), rel=2e-5, abs=2e-5)


def test_adam_can_hardly_shift_and_the_true_minimum_is_beside_it():
    rng = np.random.default_rng(0)
    target = rng.uniform(3, 9, (2, 10, 10))
    found = video_depth(target - 2, target, "cut3r_scale_shift")
    assert found["abs_rel_lad"] < 1e-9 and found["delta1_lad"] == 1.0
    assert found["abs_rel"] > 0.05 and abs(found["shift"]) < 0.2


def test_least_absolute_line_is_the_best_of_all_through_two_points():
    rng = np.random.default_rng(1)
    d, g = rng.uniform(1, 5, 25), rng.uniform(1, 9, 25)

    def cost(s, t):
        return np.abs(s * d + t - g).sum()

    lines = [((g[i] - g[j]) / (d[i] - d[j]), i) for i in range(25) for j in range(i)]
    best = min(cost(s, g[i] - s * d[i]) for s, i in lines)
    assert cost(*fit_l1(d, g)) == pytest.approx(best, rel=1e-9)
    weight = rng.uniform(0.1, 2, 25)

    def weighted(s, t):
        return (weight * np.abs(s * d + t - g)).sum()

    best = min(weighted(s, g[i] - s * d[i]) for s, i in lines)
    assert weighted(*fit_weighted_affine(d[:, None], g[:, None], weight)) == pytest.approx(best, rel=1e-9)
    best = min((weight * np.abs(s * d - g)).sum() for s in g / d)
    assert (weight * np.abs(fit_weighted_scale(d, g, weight) * d - g)).sum() == pytest.approx(best)


def test_monst3r_takes_the_lower_median():
    predicted = np.array([[[1.0, 2.0, 3.0, 10.0]]])
    target = np.array([[[2.0, 4.0, 6.0, 20.0]]]) * [1, 1, 2, 1]
    assert video_depth(predicted, target, "monst3r_median")["scale"] == 2.0  # 4 / 2, not 8 / 2.5
    far = np.array([[[2.0, 4.0, 79.0, 80.0]]])
    assert video_depth(predicted, far, "monst3r_median")["num_valid"] == 3


@pytest.mark.parametrize("name, dataset, most", [("vda", "sintel", 70), ("depthcrafter", "bonn", 10)])
def test_disparity_protocols_are_their_definition(name, dataset, most):
    predicted, target = clip(3)
    target[2] = 0  # a frame without truth is left out
    disparity = np.maximum(np.where(predicted > 0, 1 / predicted, 0), 1e-3).astype(np.float64)
    use = (target > 1e-3) & (target < most)
    design = np.stack([disparity[use], np.ones(use.sum())], 1)
    s, t = np.linalg.lstsq(design, 1 / (target[use].astype(np.float64) + 1e-8), rcond=None)[0]
    depth = np.clip(1 / np.maximum(s * disparity + t, 1e-3), 1e-3, most)
    frames = [errors(depth[i][use[i]], target[i][use[i]]) for i in range(3) if use[i].any()]
    want = np.mean(frames, axis=0)
    found = video_depth(predicted, target, name, dataset=dataset)
    assert (found["abs_rel"], found["delta1"]) == pytest.approx(tuple(want), rel=1e-6)
    given = video_depth(1 / predicted, target, name, dataset=dataset, is_disparity=True)
    assert given["abs_rel"] == pytest.approx(found["abs_rel"], rel=1e-5)


def test_frames_and_pixels_are_different_means():
    target = np.ones((2, 2, 2))
    target[1, 0, :] = target[1, 1, 0] = 0
    predicted = np.ones((2, 2, 2))
    predicted[1] = 1.5
    pixels = video_depth(predicted, target, "metric")["abs_rel"]
    assert pixels == pytest.approx(0.1)  # 0.5 in one of five
    rules = PROTOCOLS["vda"]
    assert rules.average == "frames" and PROTOCOLS["cut3r_scale"].average == "pixels"
    one = video_depth(predicted, target, "moge")
    assert one["abs_rel"] < 1e-5  # fitted for each frame


def test_megasam_is_its_definition():
    predicted, target = clip(4)
    target[0, 0, 1] = 120.0
    use = (target > 0.1) & (target < 100)
    d, g = np.clip(predicted, 0.1, 100)[use].astype(float), target[use].astype(float)
    s = np.median((g - np.median(g) + 1e-8) / (d - np.median(d) + 1e-8))
    t = np.median(g - s * d)
    found = video_depth(predicted, target, "megasam_sintel")
    assert (found["scale"], found["shift"]) == pytest.approx((s, t), rel=1e-6)
    assert found["abs_rel"] == pytest.approx(np.mean(np.abs(s * d + t - g) / g), rel=1e-6)
    # Truth comes to the size of the prediction.
    assert video_depth(predicted[:, ::2, ::2], target, "megasam_sintel")["num_valid"] <= 3 * 6 * 8


def test_moge_fits_each_frame_with_weights_of_inverse_depth():
    rng = np.random.default_rng(5)
    target = rng.uniform(1, 9, (2, 128, 128))
    rows, columns, _ = nearest_on_grid(np.ones((128, 128), bool), 64)
    predicted = target * rng.uniform(0.5, 1.5, target.shape) * [[[1.0]], [[3.0]]]
    found = video_depth(predicted, target, "moge")
    scores = []
    for d, g in zip(predicted, target, strict=True):
        p, q = d[rows, columns].ravel(), g[rows, columns].ravel()
        s = min(q / p, key=lambda s: (np.abs(s * p - q) / q).sum())
        scores.append((np.abs(s * d - g) / (g + 1e-6)).mean())
    assert found["abs_rel"] == pytest.approx(np.mean(scores), rel=1e-12)


def test_d4rt_ss_fits_scale_and_translation_of_points():
    _, target = clip(6)
    target = target.astype(float) + 1
    intrinsics = np.array([[20.0, 0, 8], [0, 20.0, 6], [0, 0, 1]])
    found = video_depth(0.5 * target - 0.25, target, "d4rt_ss")  # without cameras: scale and shift of depth
    assert found["abs_rel"] < 1e-12 and found["shift"] == pytest.approx(0.5)
    same = video_depth(0.5 * target, target, "d4rt_ss", intrinsics=intrinsics)
    assert same["abs_rel"] < 1e-12 and same["scale"] == pytest.approx(2.0)
    # A shift in z alone moves points off their rays: with cameras it is not free.
    moved = video_depth(0.5 * target - 0.25, target, "d4rt_ss", intrinsics=intrinsics)
    assert 1e-4 < moved["abs_rel"] < 0.2
    wide = intrinsics * [[2.0], [2], [1]]
    big = np.stack([cv2.resize(t, (32, 24), interpolation=cv2.INTER_NEAREST) for t in target])
    other = video_depth(big, target, "d4rt_ss", intrinsics=intrinsics, predicted_intrinsics=wide)
    plain = video_depth(big, target, "d4rt_ss", intrinsics=intrinsics)
    assert other["abs_rel"] == pytest.approx(plain["abs_rel"])


@pytest.mark.parametrize(
    "name, how", [("metric", cv2.INTER_CUBIC), ("d4rt_s", cv2.INTER_LINEAR), ("vda", cv2.INTER_LINEAR)]
)
def test_the_resize_belongs_to_the_protocol(name, how):
    rng = np.random.default_rng(7)
    small = rng.uniform(1, 5, (2, 6, 8)).astype(np.float32)
    target = rng.uniform(1, 5, (2, 12, 16)).astype(np.float32)
    maps = 1 / small if name == "vda" else small
    big = np.stack([cv2.resize(one, (16, 12), interpolation=how) for one in maps])
    big = 1 / big if name == "vda" else big
    found, want = video_depth(small, target, name), video_depth(big, target, name)
    assert found["abs_rel"] == pytest.approx(want["abs_rel"], rel=1e-5)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_answer_is_no_gain_and_no_truth_is_undefined(name):
    predicted, target = clip(8)
    at = np.unravel_index(int(np.argmax(target == target[target > 1].min())), target.shape)
    predicted[at] = np.nan
    found = video_depth(predicted, target, name, official=True)
    assert found["abs_rel"] == np.inf and found["num_unanswered"] == 1
    assert math.isnan(found["abs_rel_official"]) and 0.3 < found["delta1"] < 1 or name == "metric"
    found = video_depth(predicted, np.zeros_like(target), name, official=True)
    assert math.isnan(found["abs_rel"]) and math.isnan(found["delta1"]) and found["num_valid"] == 0
    official = found["abs_rel_official"]
    assert official == 0 if PROTOCOLS[name].resize == "cubic" else math.isnan(official)
    gone = video_depth(np.full_like(target, np.nan), target, name)
    assert gone["abs_rel"] == np.inf and gone["delta1"] == 0.0


def test_a_mask_and_unknown_truth_do_not_count():
    predicted, target = clip(9)
    unknown = target.copy()
    unknown[0, :5] = np.nan
    mask = np.ones(target.shape, bool)
    mask[0, :5] = False
    assert video_depth(predicted, unknown, "metric") == video_depth(predicted, target, "metric", mask=mask)


def test_more_noise_is_worse():
    scores = [video_depth(*clip(10, 2, 40, 40, s), "cut3r_scale")["abs_rel"] for s in (0.01, 0.1, 0.3, 0.6)]
    assert scores == sorted(scores)


def test_grid_takes_the_nearest_masked_pixel():
    mask = np.zeros((128, 192), bool)
    mask[::4, ::6] = True
    rows, columns, found = nearest_on_grid(mask, 64)
    assert mask[rows[found], columns[found]].all()
    v = (np.arange(64) + 0.5) * 2
    u = (np.arange(64) + 0.5) * 3
    assert (np.abs(rows + 0.5 - v[:, None])[found] <= 1.5).all()
    assert (np.abs(columns + 0.5 - u)[found] <= 2).all()
    assert 0.2 < found.mean() < 0.8
    whole = nearest_on_grid(np.ones((480, 320), bool), 64)
    assert (np.abs(whole[0] + 0.5 - (np.arange(64)[:, None] + 0.5) * 7.5) <= 0.5).all() and whole[2].all()
    assert (np.abs(whole[1] + 0.5 - (np.arange(64) + 0.5) * 5) <= 0.5).all()
    assert not nearest_on_grid(np.zeros((70, 70), bool), 64)[2].any()


INTRINSICS = np.array([[8.0, 0, 4], [0, 8.0, 3], [0, 0, 1]])


def test_tae_of_a_still_camera_is_the_change_of_depth():
    depth = np.full((3, 6, 8), 2.0)
    still = np.tile(np.eye(4), (3, 1, 1))
    assert tae(depth, still, INTRINSICS, official=True)["tae"] == 0.0
    depth[1] = 2.5
    found = tae(depth, still, INTRINSICS, official=True)
    assert found["tae"] == pytest.approx((0.5 / 2.5 + 0.5 / 2.0) / 2) and found["num_pairs"] == 4
    assert found["tae_official"] == pytest.approx(found["tae"])
    # Forward by a metre before a wall: depth is a metre less, and that is no error.
    poses = still.copy()
    poses[1:] = rigid_from(np.eye(3), [0, 0, 1.0])
    walls = np.stack([np.full((6, 8), 3.0), np.full((6, 8), 2.0), np.full((6, 8), 2.0)])
    assert tae(walls, poses, INTRINSICS)["tae"] == pytest.approx(0.0, abs=1e-12)


def test_tae_without_overlap_is_undefined_and_the_near_point_wins():
    depth = np.full((2, 6, 8), 2.0)
    away = np.stack([np.eye(4), rigid_from(np.eye(3), [100.0, 0, 0])])
    found = tae(depth, away, INTRINSICS, official=True)
    assert math.isnan(found["tae"]) and found["num_pairs_undefined"] == 2 and found["tae_official"] == 0.0
    assert math.isnan(tae(depth[:1], away[:1], INTRINSICS)["tae"])
    # A step to the right: a near pixel moves four columns left of a far one's one, onto its place.
    step = np.stack([np.eye(4), rigid_from(np.eye(3), [0.5, 0, 0])])
    scene = np.full((2, 1, 8), 4.0)
    scene[0, 0, 3] = 1.0  # lands on column -1; make it land on column 0 of the far one at 1
    scene[0, 0, 4] = 1.0
    seen = np.full((1, 8), 4.0)
    seen[0, 0] = 1.0
    pair = np.stack([scene[0], seen])
    intrinsics = np.array([[8.0, 0, 4], [0, 8.0, 0.5], [0, 0, 1]])
    forward = np.ones(pair.shape, bool)
    forward[0] = False  # only compare in the second frame
    assert tae(pair, step, intrinsics, forward)["tae"] == 0.0


def test_settings_and_bad_input():
    assert protocol_settings("cut3r_scale", "KITTI")["max_depth"] is None
    assert protocol_settings("vda", "kitti")["clip_after"] == [1e-3, 80.0]
    assert all(rules.source for rules in PROTOCOLS.values())
    predicted, target = clip()
    with pytest.raises(UsageError, match="protocol"):
        video_depth(predicted, target, "best")
    with pytest.raises(UsageError, match="fit"):
        video_depth(predicted[:1], target, "metric")
    with pytest.raises(UsageError, match="mask"):
        video_depth(predicted, target, "metric", mask=np.ones((3, 2, 2), bool))
