from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datakit.errors import UsageError
from datakit.stream import AugmentParams, ClipParams, Order
from datakit.stream.order import Census, choose_frames, choose_photos, next_hash
from datakit.stream.shares import RESOLUTION, WINDOW, Shares, parts_of
from datakit.stream.shuffle import shuffled


def census(clips: dict[str, int], num_frames: int = 60, manifest: str = "a" * 64) -> Census:
    dataset = np.repeat(np.arange(len(clips)), list(clips.values()))
    count = len(dataset)
    return Census(
        manifests=(manifest,),
        datasets=tuple(clips),
        dataset=dataset,
        set_index=np.zeros(count, np.int64),
        clip_index=np.arange(count),
        num_frames=np.full(count, num_frames),
        is_unordered=np.zeros(count, bool),
    )


def order(**changes: object) -> Order:
    values = {"mixture": {"x": 0.5, "y": 0.3, "z": 0.2}, "seed": 7, "batch_size": 8, "clip": ClipParams()}
    return Order(census({"x": 50, "y": 11, "z": 3}), **(values | changes))  # type: ignore[arg-type]


def worst_window(shares: Shares, parts: list[int], length: int) -> float:
    """Largest deviation from the share of any dataset over any window of WINDOW."""
    at = np.array([shares.dataset_at(place) for place in range(length)])
    worst = 0.0
    for index, part in enumerate(parts):
        count = np.concatenate([[0], np.cumsum(at == index)])
        in_window = count[WINDOW:] - count[:-WINDOW]
        worst = max(worst, float(np.abs(in_window - part * WINDOW / RESOLUTION).max()))
    return worst


@pytest.mark.parametrize(
    "weights",
    [(0.5, 0.3, 0.2), (1, 1, 1), (0.617, 0.2, 0.183), (97.123, 2.001, 0.876), (0.00013, 0.4, 0.59987)],
)
def test_delivered_shares_are_exact_to_one_sample_in_every_window(weights: tuple[float, ...]) -> None:
    parts = list(parts_of(dict(zip("abc", weights, strict=True)), "abc").values())
    assert worst_window(Shares(parts, 12345), parts, 60_000) <= 1


@settings(max_examples=20)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=9), st.integers(0, 10**9))
def test_shares_hold_for_any_weights(weights: list[int], start: int) -> None:
    named = {f"d{i}": float(w) for i, w in enumerate(weights)}
    if min(weights) / sum(weights) < 2 / RESOLUTION:
        return
    parts = list(parts_of(named, list(named)).values())
    assert worst_window(Shares(parts, start), parts, 5000) <= 1


def test_shares_come_true_in_the_long_run() -> None:
    parts = list(parts_of({"a": 2, "b": 1, "c": 0.017}, "abc").values())
    counts = Shares(parts).counts_before(10 * RESOLUTION)
    assert np.abs(np.array(counts) - 10 * np.array(parts)).max() <= 30
    # Over the whole circle they are exact.
    assert Shares(parts).counts_before(10**8) == [part * 10**8 // RESOLUTION for part in parts]


@given(st.integers(0, 3000), st.integers(0, 10**8))
def test_counts_before_agree_with_counting(place: int, start: int) -> None:
    shares = Shares([61_234, 30_000, 8_766], start)
    counted = [0, 0, 0]
    for at in range(place):
        counted[shares.dataset_at(at)] += 1
    assert shares.counts_before(place) == counted


def test_a_mixture_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean kubric"):
        parts_of({"kubrik": 1}, ["kubric", "waymo"])
    with pytest.raises(UsageError, match="too small"):
        parts_of({"a": 1, "b": 1e-9}, "ab")
    for bad in ({"a": -1.0}, {"a": float("nan")}, {"a": 0.0}, {}):
        with pytest.raises(UsageError):
            parts_of(bad, "a")


@given(st.integers(1, 700), st.text(max_size=4))
def test_shuffled_is_a_permutation(count: int, key: str) -> None:
    assert sorted(shuffled(place, count, key) for place in range(count)) == list(range(count))


def test_shuffles_of_other_keys_differ_and_scatter() -> None:
    one, two = ([shuffled(place, 1000, key) for place in range(1000)] for key in "ab")
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 20
    assert abs(np.corrcoef(one, np.arange(1000))[0, 1]) < 0.15


def test_every_clip_of_a_dataset_comes_once_an_epoch() -> None:
    seen: dict[str, list[int]] = {"x": [], "y": [], "z": []}
    plan = order()
    for step in range(60):
        for sample in plan.batch(step):
            seen[sample.dataset].append(sample.clip_index)
    for name, size in (("x", 50), ("y", 11), ("z", 3)):
        assert len(seen[name]) > 2 * size
        for start in range(0, len(seen[name]) - size + 1, size):
            assert len(set(seen[name][start : start + size])) == size
    assert seen["x"][:50] != seen["x"][50:100]


def test_any_step_can_be_asked_for_alone() -> None:
    steps = list(range(20))
    forward = {step: order().batch(step) for step in steps}
    random.Random(1).shuffle(steps)
    plan = order()
    assert {step: plan.batch(step) for step in steps} == forward


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"mixture": {"x": 0.5, "y": 0.29, "z": 0.21}},
        {"clip": ClipParams(clip_frames=47)},
        {"clip": ClipParams(augment=AugmentParams(crop_area=(0.31, 1.0)))},
    ],
)
def test_the_hash_tells_orders_apart(change: dict[str, object]) -> None:
    def run(plan: Order) -> str:
        now = plan.first_hash
        for step in range(5):
            now = next_hash(now, plan.batch(step))
        return now

    assert run(order()) == run(order())
    assert run(order(**change)) != run(order())
    assert order(**change).identity != order().identity


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_part_a_batch_without_overlap(world_size: int) -> None:
    plan = order()
    for step in range(5):
        dealt = [plan.slots_of(step, rank, world_size) for rank in range(world_size)]
        assert sorted(itertools.chain(*dealt)) == list(range(8))


def test_a_rank_is_not_given_the_same_places_each_step() -> None:
    assert len({tuple(order().slots_of(step, 0, 4)) for step in range(20)}) > 10


@settings(max_examples=200)
@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(1, 12),
    st.floats(0, 0.999999),
    st.floats(0, 0.999999),
)
def test_frames_are_distinct_ascending_and_inside(
    num_frames: int, wanted: int, max_stride: int, a: float, b: float
) -> None:
    frames = choose_frames(num_frames, wanted, max_stride, (a, b))
    assert len(frames) == min(num_frames, wanted)
    assert len(set(np.diff(frames))) <= 1
    assert frames[0] >= 0 and frames[-1] < num_frames
    assert all(1 <= step <= max_stride for step in np.diff(frames))


def test_all_strides_and_starts_are_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = {choose_frames(30, 8, 3, rng.random(2)) for _ in range(2000)}
    assert {frames[1] - frames[0] for frames in drawn} == {1, 2, 3}
    assert min(frames[0] for frames in drawn) == 0 and max(frames[-1] for frames in drawn) == 29


def test_photos_without_an_order_are_drawn_freely() -> None:
    drawn = {choose_photos(20, 6, key) for key in range(50)}
    assert len(drawn) == 50
    assert all(len(set(photos)) == 6 and list(photos) == sorted(photos) for photos in drawn)
    assert any(len(set(np.diff(photos))) > 1 for photos in drawn)
    assert choose_photos(4, 6, 1) == (0, 1, 2, 3)


def test_looks_follow_their_probabilities() -> None:
    looks = [sample.look for step in range(400) for sample in order().batch(step)]
    assert abs(np.mean([look.area < 0.3 for look in looks]) - 0.05) < 0.015
    assert abs(np.mean([look.saturation == 0 for look in looks]) - 0.2) < 0.03
    assert abs(np.mean([look.blur_sigma > 0 for look in looks]) - 0.4) < 0.04
    plain = order(clip=ClipParams(augment=AugmentParams.none())).batch(0)[0].look
    assert (plain.area, plain.brightness, plain.saturation, plain.blur_sigma) == (1.0, 1.0, 1.0, 0.0)
