"""TAPVid-3D against hand-worked cases and a slow formulation from the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate.tracks3d import (
    FIXED_METRES,
    SCALINGS,
    intrinsics_at_256,
    tapvid3d,
    tapvid3d_batch,
    tapvid3d_tracks,
)

K = np.array([200.0, 200.0, 128.0, 128.0])
PX = (1, 2, 4, 8, 16)


def clip(seed: int = 0, tracks: int = 6, frames: int = 5, noise: float = 0.15) -> tuple:
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1, 1, (tracks, frames, 3)) + [0, 0, 4.0]
    predicted = 0.5 * (target + rng.normal(scale=noise, size=target.shape))
    visible = rng.random((tracks, frames)) < 0.7
    claimed = np.where(rng.random((tracks, frames)) < 0.8, visible, ~visible)
    return predicted, claimed, target, visible


def slow(predicted, claimed, target, visible, points, scale, fixed=False) -> dict[str, float]:
    """Count over (track, frame, weight) with loops; `scale` gives the factor of a point."""
    agree = total = 0.0
    counts = {k: dict.fromkeys(("tp", "within", "pos", "fp"), 0.0) for k in PX}
    for i, n, t, weight in points:
        agree += weight * (claimed[n, t] == visible[n, t])
        total += weight
        moved = [scale(i, n, t) * float(c) for c in predicted[n, t]]
        distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(moved, target[n, t], strict=True)))
        for k in PX:
            limit = FIXED_METRES[k] if fixed else k * target[n, t, 2] / math.sqrt(K[0] * K[1])
            near = distance < limit
            c = counts[k]
            c["pos"] += weight * visible[n, t]
            c["within"] += weight * (near and visible[n, t])
            c["tp"] += weight * (near and visible[n, t] and claimed[n, t])
            c["fp"] += weight * (claimed[n, t] and (not visible[n, t] or not near))
    out = {"occlusion_accuracy": agree / total}
    for k, c in counts.items():
        out[f"pts_within_{k}"] = c["within"] / c["pos"]
        out[f"jaccard_{k}"] = c["tp"] / (c["pos"] + c["fp"])
    out["average_jaccard"] = sum(out[f"jaccard_{k}"] for k in PX) / 5
    out["average_pts_within_thresh"] = sum(out[f"pts_within_{k}"] for k in PX) / 5
    return out


def every(visible) -> list[tuple[int, int, int, float]]:
    return [(n, n, t, 1.0) for n in range(visible.shape[0]) for t in range(visible.shape[1])]


def check(found: dict, wanted: dict) -> None:
    assert set(wanted) == set(found)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("scaling", ["median", "mean", "none", "reproduce_2d", "median_on_queries"])
@pytest.mark.parametrize("fixed", [False, True])
def test_whole_clip_modes_are_the_definition(scaling, fixed):
    predicted, claimed, target, visible = arrays = clip()
    query = np.array([0, 1, 2, 3, 4, 2])
    visible[np.arange(6), query] = claimed[np.arange(6), query] = True
    both = [
        (float(np.linalg.norm(target[n, t])), float(np.linalg.norm(predicted[n, t])), n, t)
        for _, n, t, _ in every(visible)
        if visible[n, t] and claimed[n, t]
    ]
    at_query = [(g, p) for g, p, n, t in both if query[n] == t]
    ratio = {
        "median": np.median([g for g, *_ in both]) / np.median([p for _, p, *_ in both]),
        "mean": np.mean([g for g, *_ in both]) / np.mean([p for _, p, *_ in both]),
        "none": 1.0,
        "median_on_queries": np.median([g for g, _ in at_query]) / np.median([p for _, p in at_query]),
    }

    def scale(_, n, t):
        return target[n, t, 2] / predicted[n, t, 2] if scaling == "reproduce_2d" else ratio[scaling]

    found = tapvid3d(*arrays, K, scaling=scaling, query_frame=query, fixed_metric=fixed)
    check(found, slow(*arrays, every(visible), scale, fixed))


@pytest.mark.parametrize("scaling", ["per_trajectory", "local_neighborhood"])
def test_modes_by_track_are_the_definition(scaling):
    predicted, claimed, target, visible = arrays = clip(1, tracks=6, frames=5, noise=0.12)
    target[1] = target[0] + 0.02  # a neighbour within 5 cm
    query = np.array([0.5, 1.5, 2, 3, 4, 2])  # halves go to the even frame: 0 and 2
    at = [0, 2, 2, 3, 4, 2]

    def scale(i, *_):
        return max(target[i, at[i], 2], 1e-12) / max(predicted[i, at[i], 2], 1e-12)

    def points_of(i):
        if scaling == "per_trajectory":
            return [(i, i, t, 1.0) for t in range(5)]
        near = [
            (n, t) for n in range(6) for t in range(5) if np.linalg.norm(target[n, t] - target[i, t]) < 0.05
        ]
        weight = visible[i].sum() / max(1.0, sum(visible[n, t] for n, t in near))
        return [(i, n, t, weight) for n, t in near]

    found = tapvid3d(*arrays, K, scaling=scaling, query_frame=query)
    check(found, slow(*arrays, [p for i in range(6) for p in points_of(i)], scale))
    tracks = tapvid3d_tracks(*arrays, K, scaling=scaling, query_frame=query)
    for i in range(6):
        check({name: value[i] for name, value in tracks.items()}, slow(*arrays, points_of(i), scale))


def test_scores_by_track_keep_the_scale_of_the_clip():
    arrays = clip(2)
    predicted, claimed, target, visible = arrays
    both = claimed & visible
    ratio = np.median(np.linalg.norm(target[both], axis=-1)) / np.median(
        np.linalg.norm(predicted[both], axis=-1)
    )
    tracks = tapvid3d_tracks(*arrays, K)
    for i in range(6):
        wanted = slow(*arrays, [(i, i, t, 1.0) for t in range(5)], lambda *_: ratio)
        check({name: value[i] for name, value in tracks.items()}, wanted)


def test_thresholds_are_strict_and_follow_depth():
    target = np.array([[[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]]])
    off = np.array([0.25, 0.0, 0.0])
    camera = np.array([16.0, 4.0, 0, 0])  # sqrt = 8: one pixel is 0.25 at depth 2, 0.5 at depth 4
    seen = np.ones((1, 2), bool)
    found = tapvid3d(target + off, seen, target, seen, camera, scaling="none")
    assert found["pts_within_1"] == 0.5 and found["pts_within_2"] == 1.0
    # A visible point missed by distance stays a positive and is a false positive too.
    assert found["jaccard_1"] == pytest.approx(1 / 3)
    doubled = tapvid3d(target + off, seen, target, seen, camera * 2, (512, 900), scaling="none")
    assert doubled == found
    assert intrinsics_at_256([512.0, 512, 256, 256], (512, 600)).tolist() == [256.0, 256, 128, 128]
    fixed = tapvid3d(target + [0.64, 0, 0], seen, target, seen, camera, scaling="none", fixed_metric=True)
    assert fixed["pts_within_8"] == 0.0 and fixed["pts_within_16"] == 1.0


def test_half_a_frame_goes_to_the_even_one():
    target = np.tile([0.0, 0.0, 4.0], (1, 4, 1))
    predicted = target * np.array([1.0, 0.5, 1.0, 0.9])[:, None]
    seen = np.ones((1, 4), bool)

    def at(frame: float) -> list[float]:
        found = tapvid3d(predicted, seen, target, seen, K, scaling="per_trajectory", query_frame=[frame])
        return [found[f"pts_within_{k}"] for k in PX]

    assert at(0.5) == at(0) != at(1)
    assert at(1.5) == at(2.5) == at(2) != at(1)


def test_the_frames_before_the_query_and_its_own_count():
    predicted, claimed, target, visible = clip(3)
    late = tapvid3d(target, claimed, target, visible, K, query_frame=np.full(6, 4))
    early = tapvid3d(target, claimed, target, visible, K, query_frame=np.zeros(6))
    assert late == early


@pytest.mark.parametrize("scaling", SCALINGS)
def test_perfect_is_perfect_at_any_scale_and_order(scaling):
    _, _, target, visible = clip(4, tracks=8)
    query = visible.argmax(axis=1)
    visible[np.arange(8), query] = True
    factor = 1.0 if scaling == "none" else 7.5
    found = tapvid3d(target * factor, visible, target, visible, K, scaling=scaling, query_frame=query)
    assert set(found.values()) == {1.0}
    predicted, claimed, *_ = clip(4, tracks=8)
    order = np.random.default_rng(0).permutation(8)
    one = tapvid3d(predicted, claimed, target, visible, K, scaling=scaling, query_frame=query)
    two = tapvid3d(
        *(a[order] for a in (predicted, claimed, target, visible)),
        K,
        scaling=scaling,
        query_frame=query[order],
    )
    assert two == pytest.approx(one, abs=1e-12)


def test_more_noise_is_never_better():
    _, _, target, visible = clip(5, tracks=200, frames=8)
    noise = np.random.default_rng(1).normal(size=target.shape)
    scores = [
        tapvid3d(target + s * noise, visible, target, visible, K, scaling="none")["average_jaccard"]
        for s in (0.0, 0.01, 0.03, 0.1, 0.3)
    ]
    assert scores == sorted(scores, reverse=True) and scores[0] == 1.0 and scores[-1] < 0.2


def test_nobody_predicted_visible_has_no_scale():
    _, _, target, visible = clip(6)
    none = np.zeros_like(visible)
    found = tapvid3d(target, none, target, visible, K, official=True)
    assert math.isnan(found["average_pts_within_thresh"])
    assert found["average_pts_within_thresh_official"] == 0.0
    assert found["average_jaccard"] == found["average_jaccard_official"] == 0.0
    assert found["occlusion_accuracy"] == pytest.approx((~visible).mean())
    # Without a scale to fit the positions are what they are.
    assert tapvid3d(target, none, target, visible, K, scaling="none")["pts_within_1"] == 1.0


def test_queries_that_nobody_sees_fix_no_scale():
    _, _, target, visible = clip(6)
    query = np.zeros(6)
    visible[:, 0] = False
    found = tapvid3d(
        *(target, visible, target, visible, K), scaling="median_on_queries", query_frame=query, official=True
    )
    assert math.isnan(found["pts_within_4"]) and found["pts_within_4_official"] == 0.0


def test_the_medians_are_of_each_side_alone():
    target = np.array([[[0.0, 0, 2]], [[0, 0, 4]], [[0, 0, 6]]])
    predicted = target.copy()
    predicted[2] = np.nan  # truth's median stays 4, the prediction's is 3, as the official script has it
    seen = np.ones((3, 1), bool)
    found = tapvid3d(predicted, seen, target, seen, [4.0, 4, 0, 0])
    # 2 * 4 / 3 is 2/3 off with a pixel of 1/2; 4 * 4 / 3 is 4/3 off with a pixel of 1.
    assert [found[f"pts_within_{k}"] for k in PX] == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_all_truth_occluded_is_undefined_not_zero():
    predicted, _, target, visible = clip(7)
    none = np.zeros_like(visible)
    some = none.copy()
    some[0, 0] = True
    found = tapvid3d(predicted, some, target, none, K)
    assert math.isnan(found["average_pts_within_thresh"]) and found["average_jaccard"] == 0.0
    assert math.isnan(tapvid3d(predicted, none, target, none, K)["average_jaccard"])


def test_one_frame_and_no_track():
    target = np.array([[[0.0, 0.0, 3.0]]])
    seen = np.ones((1, 1), bool)
    assert tapvid3d(2 * target, seen, target, seen, K)["average_jaccard"] == 1.0
    found = tapvid3d(np.zeros((0, 4, 3)), np.zeros((0, 4)), np.zeros((0, 4, 3)), np.zeros((0, 4)), K)
    assert all(math.isnan(value) for value in found.values())


def test_no_answer_is_a_miss_and_unknown_truth_harmless_under_occlusion():
    _, _, target, _ = clip(8)
    seen = np.ones(target.shape[:2], bool)
    predicted = target.copy()
    predicted[0] = np.nan
    found = tapvid3d(predicted, seen, target, seen, K, scaling="none")
    assert found["pts_within_16"] == pytest.approx(5 / 6)
    assert found["jaccard_16"] == pytest.approx(25 / (30 + 5))
    unknown = target.copy()
    unknown[0] = np.nan
    hidden = seen.copy()
    hidden[0] = False
    assert tapvid3d(target, hidden, unknown, hidden, K)["average_jaccard"] == 1.0
    assert tapvid3d(target, seen, unknown, seen, K)["pts_within_16"] == pytest.approx(5 / 6)


def test_a_batch_is_its_videos():
    clips = [clip(seed, tracks=3, frames=4) for seed in range(3)]  # as many videos as tracks: the mixing case
    batch = [np.stack(arrays) for arrays in zip(*clips, strict=True)]
    found = tapvid3d_batch(*batch, K)
    for b, arrays in enumerate(clips):
        check({name: value[b] for name, value in found.items()}, tapvid3d(*arrays, K))
    assert tapvid3d_batch(*(a[:0] for a in batch), K) == {}


@pytest.mark.parametrize("scaling", ["per_trajectory", "local_neighborhood"])
def test_where_the_official_evaluation_raises_it_reports_zeros(scaling):
    _, _, target, visible = clip(9)
    found = tapvid3d(
        target, visible, target, visible, K, scaling=scaling, query_frame=np.zeros(6), official=True
    )
    assert found["average_jaccard"] == 1.0 and found["average_jaccard_official"] == 0.0
    usual = tapvid3d(target, visible, target, visible, K, official=True)
    assert usual["average_jaccard_official"] == 1.0


def test_bad_input_is_named():
    arrays = clip()
    with pytest.raises(UsageError, match="queries"):
        tapvid3d(*arrays, K, scaling="per_trajectory")
    with pytest.raises(UsageError, match="Query frames"):
        tapvid3d(*arrays, K, scaling="per_trajectory", query_frame=np.full(6, 5))
    with pytest.raises(UsageError, match="Unknown scaling"):
        tapvid3d(*arrays, K, scaling="best")
    with pytest.raises(UsageError, match="fit"):
        tapvid3d(arrays[0][:1], *arrays[1:], K)
