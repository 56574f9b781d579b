"""Photos split into windows that show one place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datakit.covisibility import split_photos
from datakit.errors import UsageError


def clusters(of: np.ndarray, code: int = 100) -> np.ndarray:
    """Link photos of one cluster, all alike."""
    return np.where(of[:, None] == of, code, 0).astype(np.uint8)


def chain(count: int, order: np.ndarray | None = None) -> np.ndarray:
    """Link photos at neighbouring places of a line; photo order[k] stands at place k."""
    order = np.arange(count) if order is None else order
    links = np.zeros((count, count), np.uint8)
    for a, b in pairwise(order.tolist()):
        links[a, b] = links[b, a] = 90
    return links


def is_linked(links: np.ndarray) -> bool:
    reached = np.arange(len(links)) == 0
    for _ in links:
        reached |= (links[reached] > 0).any(axis=0)
    return bool(reached.all())


def test_two_clusters_that_alternate_by_number_are_separated() -> None:
    links = clusters(np.arange(12) % 2)
    assert split_photos(links, 6, 6) == [(0, (0, 2, 4, 6, 8, 10)), (1, (1, 3, 5, 7, 9, 11))]
    # Twice as many windows as photos fit: every photo once, none with one of the other cluster.
    windows = split_photos(links, 3, 3)
    assert sorted(t for _, photos in windows for t in photos) == list(range(12))
    assert all(len({t % 2 for t in photos}) == 1 for _, photos in windows)


def test_clusters_with_a_weak_tie_are_parted_at_it() -> None:
    links = clusters(np.arange(12) % 2)
    links[0, 1] = links[1, 0] = 26
    found = {photos for _, photos in split_photos(links, 6, 6)}
    assert found == {tuple(range(0, 12, 2)), tuple(range(1, 12, 2))}


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffled_chain_is_cut_into_stretches(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(24)
    place = np.argsort(order)
    windows = split_photos(chain(24, order), 6, 6)
    found = sorted(sorted(place[list(photos)].tolist()) for _, photos in windows)
    assert found == [list(range(first, first + 6)) for first in range(0, 24, 6)]


def test_overlapping_windows_share_what_the_stride_leaves() -> None:
    order = np.random.default_rng(1).permutation(24)
    place = np.argsort(order)
    windows = split_photos(chain(24, order), 6, 3)
    found = sorted(sorted(place[list(photos)].tolist()) for _, photos in windows)
    assert found == [list(range(first, first + 6)) for first in range(0, 19, 3)]


def test_a_rest_is_filled_with_its_neighbours() -> None:
    found = [photos for _, photos in split_photos(chain(10), 4, 4)]
    assert found == [(0, 1, 2, 3), (4, 5, 6, 7), (6, 7, 8, 9)]


def test_pieces_that_fit_are_never_cut_and_share_windows() -> None:
    of = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3, 0])  # 4 + 3 + 2 + 1
    assert split_photos(clusters(of), 5, 5) == [(0, (0, 3, 6, 8, 9)), (1, (1, 2, 4, 5, 7))]


def test_a_set_that_fits_one_window_is_one_window() -> None:
    assert split_photos(clusters(np.arange(6) % 2), 6, 3) == [(0, tuple(range(6)))]


def test_nothing_is_linked() -> None:
    assert split_photos(np.zeros((5, 5), np.uint8), 2, 2) == [(0, (0, 1)), (2, (2, 3)), (4, (4,))]
    assert split_photos(np.zeros((0, 0), np.uint8), 2, 2) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_field_of_photos_is_cut_without_leaving_any_behind(seed: int) -> None:
    """On a grid where each photo sees its 24 neighbours, growing by weight alone takes 17 or 18 windows, not 16."""
    at = np.stack(np.divmod(np.random.default_rng(seed).permutation(256), 16), axis=1)
    steps = np.abs(at[:, None] - at).max(axis=-1)
    windows = split_photos(np.select([steps <= 1, steps == 2], [115, 30]).astype(np.uint8), 16, 16)
    assert len(windows) == 16
    assert sorted(t for _, photos in windows for t in photos) == list(range(256))


@given(
    count=st.integers(1, 40),
    share=st.floats(0, 0.4),
    most=st.integers(1, 12),
    new=st.integers(1, 15),
    seed=st.integers(0, 1 << 30),
)
def test_what_holds_for_any_photos(count: int, share: float, most: int, new: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = np.triu(rng.integers(1, 256, (count, count)) * (rng.uniform(size=(count, count)) < share), 1)
    links = (drawn + drawn.T).astype(np.uint8)
    before = links.copy()
    windows = split_photos(links, most, new)
    np.testing.assert_array_equal(links, before)
    np.fill_diagonal(links, 255)
    assert windows == split_photos(links, most, new)  # the diagonal is not read
    np.fill_diagonal(links, 0)
    assert set().union(*(photos for _, photos in windows)) == set(range(count))
    names = [name for name, _ in windows]
    assert names == sorted(set(names)) and all(name in photos for name, photos in windows)
    for _, photos in windows:
        assert len(photos) <= most and list(photos) == sorted(set(photos))
        piece = reach(links, photos[0])
        if len(piece) > most:
            assert len(photos) == most and is_linked(links[np.ix_(photos, photos)])
        else:  # whole pieces
            assert all(reach(links, t) <= set(photos) for t in photos)


def reach(links: np.ndarray, photo: int) -> set[int]:
    reached = np.arange(len(links)) == photo
    for _ in links:
        reached |= (links[reached] > 0).any(axis=0)
    return set(np.flatnonzero(reached).tolist())


@pytest.mark.parametrize(
    ("shape", "most", "new"), [((3, 2), 2, 2), ((3, 3), 0, 1), ((3, 3), 2, 0), ((3,), 2, 2)]
)
def test_what_cannot_be_split(shape: tuple[int, ...], most: int, new: int) -> None:
    with pytest.raises(UsageError, match="split"):
        split_photos(np.zeros(shape, np.uint8), most, new)
