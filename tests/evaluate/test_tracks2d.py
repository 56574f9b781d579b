"""TAP-Vid 2D and re-detection against hand-worked cases and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate.tracks2d import (
    queries_first,
    queries_strided,
    redetection,
    tapvid2d,
    tapvid2d_tracks,
    to_raster,
)

PX = (1, 2, 4, 8, 16)


def clip(seed: int = 0, tracks: int = 7, frames: int = 6) -> tuple:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 256, (tracks, frames, 2))
    predicted = target + rng.normal(scale=4, size=target.shape)
    visible = rng.random((tracks, frames)) < 0.6
    claimed = np.where(rng.random((tracks, frames)) < 0.8, visible, ~visible)
    return predicted, claimed, target, visible


def slow(predicted, claimed, target, visible, points) -> dict[str, float]:
    out = {"occlusion_accuracy": sum(claimed[p] == visible[p] for p in points) / len(points)}
    for k in PX:
        near = {p: math.dist(predicted[p], target[p]) < k for p in points}
        seen = [p for p in points if visible[p]]
        hits = [p for p in seen if near[p] and claimed[p]]
        false = [p for p in points if claimed[p] and not (visible[p] and near[p])]
        out[f"pts_within_{k}"] = sum(near[p] for p in seen) / len(seen)
        out[f"jaccard_{k}"] = len(hits) / (len(seen) + len(false))
    out["average_jaccard"] = np.mean([out[f"jaccard_{k}"] for k in PX])
    out["average_pts_within_thresh"] = np.mean([out[f"pts_within_{k}"] for k in PX])
    return out


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_modes_are_the_definition(mode):
    arrays = clip()
    query = np.array([0, 1, 2, 0.5, 1.5, 2.5, 4.6])
    at = [0, 1, 2, 0, 2, 2, 5]  # halves to even
    points = [(n, t) for n in range(7) for t in range(6) if (t > at[n] if mode == "first" else t != at[n])]
    assert tapvid2d(*arrays, query, mode=mode) == pytest.approx(slow(*arrays, points), abs=1e-12)
    tracks = tapvid2d_tracks(*arrays, query, mode=mode)
    assert tracks["occlusion_accuracy"].shape == (7,)
    if mode == "first":
        assert np.isnan(tracks["average_jaccard"][6])  # nothing after the last frame


def test_strict_and_on_the_raster():
    target = np.zeros((1, 2, 2))
    seen = np.ones((1, 2), bool)
    found = tapvid2d(target + [2.0, 0.0], seen, target, seen, [0])
    assert found["pts_within_2"] == 0.0 and found["pts_within_4"] == 1.0
    wide = tapvid2d(target + [4.0, 0.0], seen, target, seen, [0], size=(512, 256))
    assert wide == found
    assert to_raster([512.0, 100.0], (512, 200)).tolist() == [256.0, 128.0]


def test_official_query_sampling():
    target = np.arange(3 * 12 * 2, dtype=float).reshape(3, 12, 2)
    visible = np.zeros((3, 12), bool)
    visible[0, [0, 5, 6]] = visible[2, [3, 5, 10]] = True
    queries, tracks = queries_first(target, visible)
    assert tracks.tolist() == [0, 2]
    assert queries.tolist() == [[0, *target[0, 0, ::-1]], [3, *target[2, 3, ::-1]]]
    queries, tracks = queries_strided(target, visible)
    assert tracks.tolist() == [0, 0, 2, 2]
    assert queries[:, 0].tolist() == [0, 5, 5, 10]
    assert queries[3].tolist() == [10, *target[2, 10, ::-1]]


def test_undefined_missing_and_wrong():
    predicted, claimed, target, visible = clip()
    one = (slice(None), slice(0, 1))
    found = tapvid2d(*(a[one] for a in (predicted, claimed, target, visible)), np.zeros(7))
    assert all(math.isnan(value) for value in found.values())
    gone = tapvid2d(np.full_like(target, np.nan), visible, target, visible, np.zeros(7))
    assert gone["average_pts_within_thresh"] == 0.0 and gone["occlusion_accuracy"] == 1.0
    none = np.zeros_like(visible)
    assert math.isnan(tapvid2d(predicted, none, target, none, np.zeros(7))["average_jaccard"])
    with pytest.raises(UsageError, match="mode"):
        tapvid2d(predicted, claimed, target, visible, np.zeros(7), mode="last")
    with pytest.raises(UsageError, match="Query frames"):
        tapvid2d(predicted, claimed, target, visible, np.full(7, 6))
    with pytest.raises(UsageError, match="fit"):
        tapvid2d(predicted[:2], claimed, target, visible, np.zeros(7))


def slow_redetection(predicted, claimed, target, visible, late_first: bool) -> tuple[float, int]:
    events = []
    num_frames = visible.shape[1]
    for n in range(len(visible)):
        longest, gap, before = -1, 0, late_first
        for t in range(num_frames):
            if visible[n, t]:
                if gap and t > 0 and before:
                    if gap > longest:
                        events.append((n, t, gap))
                    longest = max(longest, gap)
                gap, before = 0, True
            else:
                gap += 1
    means = []
    for least in (1, 4, 16, 64, 256):
        scores = []
        for k in PX:
            jaccards = []
            for n, t, gap in events:
                if gap >= least:
                    tail = range(t, num_frames)
                    near = [math.dist(predicted[n, u], target[n, u]) <= k for u in tail]
                    hits = sum(near[u - t] and visible[n, u] and claimed[n, u] for u in tail)
                    false = sum(claimed[n, u] and not (near[u - t] and visible[n, u]) for u in tail)
                    jaccards.append(hits / (sum(visible[n, u] for u in tail) + false))
            if jaccards:
                scores.append(np.mean(jaccards))
        if scores:
            means.append(np.mean(scores))
    return (float(np.mean(means)) if means else float("nan")), len(events)


@pytest.mark.parametrize("seed", range(3))
def test_redetection_is_the_definition(seed):
    predicted, claimed, target, visible = arrays = clip(seed, 9, 40)
    visible[:, 10:20] = False
    visible[:3, :5] = False
    found = redetection(*arrays, official=True)
    value, events = slow_redetection(*arrays, late_first=False)
    assert found["AJ_RD"] == pytest.approx(value) and found["num_events"] == events
    value, events = slow_redetection(*arrays, late_first=True)
    assert found["AJ_RD_official"] == pytest.approx(value) and found["num_events_official"] == events


def test_redetection_by_hand():
    target = np.zeros((1, 6, 2))
    visible = np.array([[1, 0, 1, 0, 1, 1]], bool)  # the second gap is no longer than the first
    predicted = target + [2.0, 0.0]
    found = redetection(predicted, visible, target, visible)
    assert found["num_events"] == 1 and found["AJ_RD_D2_dmin1"] == 1.0 and found["AJ_RD_D1_dmin1"] == 0.0
    assert found["AJ_RD"] == pytest.approx(0.8) and math.isnan(found["AJ_RD_dmin4"])
    late = np.array([[0, 0, 1, 1, 1, 1]], bool)
    found = redetection(target, late, target, late, official=True)
    assert math.isnan(found["AJ_RD"]) and found["AJ_RD_official"] == 1.0
