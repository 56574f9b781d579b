"""Traps of depth: which point a pixel has, and which points a nearer surface hides.

Each test fails without its handling.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.waymo import assemble, kernels


def test_the_second_slot_of_the_projections_is_used() -> None:
    projection = np.array([[1, 3, 4, 2, 7, 8], [2, 5, 6, 0, 0, 0]], np.int32)
    points = np.array([[1.0, 0, 0], [2.0, 0, 0]])
    owner = np.array([-1, 0])
    z_rows = np.array([[1.0, 0, 0, 0.5], [10.0, 0, 0, 0.25]])
    at, uv, z = kernels.see_points(points, projection, owner, z_rows, 2)
    np.testing.assert_array_equal(at, [1, 0])
    np.testing.assert_array_equal(uv, [[5.5, 6.5], [7.5, 8.5]])
    np.testing.assert_array_equal(z, [20.25, 1.5])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_the_nearest_point_of_a_pixel_wins(dtype: Any) -> None:
    uv = np.array([[1.5, 0.5], [1.2, 0.9], [1.9, 0.1], [9.0, 0.5], [-0.1, 0.5], [2.5, 1.5], [0.5, 0.5]])
    z = np.array([5.0, 3.0, 4.0, 1.0, 1.0, 2.0, -1.0])
    depth, ids, rows, cols = assemble._nearest(uv, z, np.arange(1, 8, dtype=dtype), (3, 2))
    assert depth[0, 1] == 3.0 and ids[0, 1] == 2 and ids.dtype == dtype
    assert depth[1, 2] == 2.0 and ids[1, 2] == 6
    assert np.isfinite(depth).sum() == 2 and np.count_nonzero(ids) == 2
    assert sorted(zip(rows, cols, strict=True)) == [(0, 1), (1, 2)]


def test_of_equally_near_points_the_last_wins() -> None:
    uv, ids = np.full((3, 2), 0.5), np.array([7, 8, 9], np.uint16)
    _, drawn, _, _ = assemble._nearest(uv, np.array([2.0, 2.0, 3.0]), ids, (1, 1))
    assert drawn[0, 0] == 8


def _shadowed(z_depth: np.ndarray, spacing: tuple[int, int]) -> np.ndarray:
    rows, cols = np.nonzero(np.isfinite(z_depth))
    out = np.zeros(z_depth.shape, bool)
    out[rows, cols] = assemble.shadowed(z_depth, rows, cols, spacing)
    return out


def test_points_behind_a_surface_are_shadowed_and_slanted_ground_is_not() -> None:
    rows = np.arange(40)[:, None] + np.zeros((1, 40))
    ground = (400.0 / (rows + 5)).astype(np.float32)  # 1/z is linear in the image
    sparse = np.where((np.arange(40) % 3 == 0)[:, None], ground, np.nan).astype(np.float32)
    assert not _shadowed(sparse, (1, 3)).any()
    wall = np.full((40, 40), 10.0, np.float32)
    wall[::2] = np.nan
    wall[21, 20] = 30.0
    found = _shadowed(wall, (1, 2))
    assert found[21, 20] and found.sum() == 1


def test_shadowed_points_are_those_of_the_plain_rule() -> None:
    """Windows cross the blocks in which the kernel looks first, and the raster's borders."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        height, width = rng.integers(5, 40, 2)
        z = np.where(rng.random((height, width)) < 0.15, rng.choice([2.0, 10.0], (height, width)), np.nan)
        z = (z * rng.uniform(0.95, 1.05, z.shape)).astype(np.float32)
        spacing = tuple(rng.integers(1, 7, 2))
        across, down = 2 * spacing[0], 2 * spacing[1]
        wide, tall = across // 4, down // 4

        def nearer(limit: float, top: int, bottom: int, left: int, right: int, z: np.ndarray = z) -> np.bool_:
            window = z[max(top, 0) : max(bottom + 1, 0), max(left, 0) : max(right + 1, 0)]
            return (window < limit).any()

        want = np.zeros(z.shape, bool)
        for r, c in zip(*np.nonzero(np.isfinite(z)), strict=True):
            limit = float(z[r, c]) * 0.9
            want[r, c] = (
                nearer(limit, r - down, r - 1, c - wide, c + wide)
                and nearer(limit, r + 1, r + down, c - wide, c + wide)
            ) or (
                nearer(limit, r - tall, r + tall, c - across, c - 1)
                and nearer(limit, r - tall, r + tall, c + 1, c + across)
            )
        np.testing.assert_array_equal(_shadowed(z, spacing), want)
