"""A synthetic segment as the official package reads it (`make oracle-waymo`), against our reading of the same bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.waymo import assemble, lidar, v1
from converters.waymo.segment import Calibration, FrameHead, RangeImage

FOLDER = Path(__file__).parents[2] / "oracle" / "waymo"
#: As in official.py.
STEP, MARGIN = 20, 0.05
#: Metres. The official code works in float32, and TOP's points go through global coordinates of 5e4 m.
TOLERANCE = {1: 0.02, 2: 1e-4, 3: 1e-4, 4: 1e-4, 5: 1e-4}

Lasers = dict[int, tuple[RangeImage | None, RangeImage | None]]


@pytest.fixture(scope="module")
def golden() -> Iterator[Any]:
    with np.load(FOLDER / "golden.npz") as numbers:
        yield numbers


@pytest.fixture(scope="module")
def frames() -> list[tuple[FrameHead, Calibration, Lasers]]:
    read = v1.frames(FOLDER / "segment.tfrecord", check_crc=True)
    return [(v1.head(f, where), v1.calibration(f, where), v1.range_images(f, where)) for f, where, _ in read]


def _alone(pair: tuple[RangeImage | None, RangeImage | None], number: int) -> Any:
    """Leave out the other return's points, but not the first return's poses, which both need."""
    if number == 1:
        return pair[0], None
    assert pair[0] is not None
    return RangeImage(np.full_like(pair[0].values, -1), pair[0].projection, pair[0].pose), pair[1]


def test_points_masks_and_projections(golden: Any, frames: Any) -> None:
    worst: dict[int, float] = {}
    for k, (head, constant, lasers) in enumerate(frames):
        np.testing.assert_allclose(head.global_from_vehicle, golden[f"f{k}_pose"], atol=1e-11)
        assert sorted(lasers) == [1, 2, 3, 4, 5]
        for laser, pair in lasers.items():
            for number, image in enumerate(pair, start=1):
                name = f"f{k}_l{laser}_r{number}"
                mask = image.values[..., 0] > 0
                assert (mask.any() or number == 2) and mask.shape == tuple(golden[f"{name}_shape"])
                np.testing.assert_array_equal(np.packbits(mask), golden[f"{name}_mask"])
                points = lidar.points_of_frame(
                    {laser: _alone(pair, number)}, constant.lasers, head.global_from_vehicle, name
                )
                assert len(points.points_vehicle) == mask.sum()
                pixels = np.ascontiguousarray(points.projection, "<i4")
                assert zlib.crc32(pixels.tobytes()) == golden[f"{name}_crc"]
                np.testing.assert_array_equal(pixels[::STEP], golden[f"{name}_pixels"])
                gap = np.abs(points.points_vehicle[::STEP] - golden[f"{name}_points"])
                worst[laser] = max(worst.get(laser, 0.0), float(gap.max(initial=0.0)))
    assert all(worst[laser] <= TOLERANCE[laser] for laser in TOLERANCE), worst
    # The wide tolerance of TOP is the official rounding, not ours: the others hardly round.
    assert max(worst[laser] for laser in (2, 3, 4, 5)) < 5e-5, worst


def test_shipped_pixels_are_where_the_official_camera_puts_the_points(golden: Any, frames: Any) -> None:
    """The writer's rolling shutter, lens and rates are the official ones: what both slots say is the same pixel."""
    gaps = []
    for k, (_, constant, _) in enumerate(frames):
        pixels = golden[f"f{k}_l1_r1_pixels"]
        for camera in constant.cameras:
            uvok = golden[f"f{k}_c{camera}_uvok"]
            for slot in (0, 3):
                mine = pixels[:, slot] == camera
                centres = pixels[mine, slot + 1 : slot + 3] + 0.5
                assert uvok[mine, 2].all()
                gaps.append(np.abs(uvok[mine, :2] - centres).max(axis=1))
    gap = np.concatenate(gaps)
    assert len(gap) > 800
    # Half a pixel is that of whole numbers. The official model turns the vehicle to first order, and golden points
    # are rounded by up to a centimetre.
    assert np.quantile(gap, 0.97) < 0.5 and gap.max() < 0.6


def test_points_in_boxes(golden: Any, frames: Any) -> None:
    """Length, width and heading of boxes are the official ones."""
    for k, (head, constant, lasers) in enumerate(frames):
        points = lidar.points_of_frame(lasers, constant.lasers, head.global_from_vehicle, "x")
        # One box at a time, for where boxes overlap a point is counted in both.
        mine = [
            int((assemble._owners(points, replace(head, objects=(label,)), MARGIN) == 0).sum())
            for label in head.objects
        ]
        assert sum(count > 30 for count in mine) >= 4
        # Rounding of TOP's points by a centimetre carries some over the border.
        np.testing.assert_allclose(mine, golden[f"f{k}_inside"], atol=3, rtol=0.02)


def test_the_official_classes_read_our_v2_tables(golden: Any, frames: Any) -> None:
    """The official v2 code got the same points from the tables of the same world as the v1 code from its records."""
    assert all(golden[f"f{k}_v2_gap"] < 1e-6 for k in range(len(frames)))
