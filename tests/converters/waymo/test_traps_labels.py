"""Traps of the labelled boxes: their times, speeds, headings, sizes, and the points that are theirs.

Each test fails without its handling.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import assemble, lidar, motion, v1
from converters.waymo.proto import message_class
from converters.waymo.segment import Box, FrameHead, Image, Labelled

from .conftest import convert, drop, edited_segment


def test_labels_without_speed_or_synced_box(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        for label in frame.laser_labels:
            label.ClearField("metadata")
            label.ClearField("camera_synced_box")

    root = edited_segment(natives, tmp_path / "n", edit)
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        rigid = scene.motion.instance_motion == 2
        assert np.isfinite(scene.motion.world_from_instance[:, rigid]).all()
    assert any("synced" in problem.what for problem in waymo.probe(root).problems)


def test_an_object_is_unknown_while_it_is_not_labelled(natives: dict[str, Path], tmp_path: Path) -> None:
    def edit(frame: Any, number: int) -> None:
        if number >= 3:
            drop(frame.laser_labels, lambda label: "lead" in label.id)

    with datakit.open_scene(
        convert(edited_segment(natives, tmp_path / "n", edit), tmp_path / "out.h5")
    ) as scene:
        motion_record = scene.motion
        (row,) = [k for k, name in enumerate(motion_record.instance_names) if "lead" in name]
        known = np.isfinite(motion_record.world_from_instance[:, row]).all(axis=(1, 2))
        # Last label at 0.25 s of the scene's clock; half a gap of 0.125 s is carried on.
        np.testing.assert_array_equal(known, motion_record.times <= 0.25 + motion.MAX_GAP / 2)


def test_headings_turn_through_pi() -> None:
    labels = [Labelled("a", 1, Box(np.zeros(3), np.ones(3), heading), np.zeros(3)) for heading in (3.1, -3.1)]
    heads = [FrameHead(k, np.eye(4), {}, (label,)) for k, label in enumerate(labels)]
    path, _ = motion.object_paths(heads, np.array([0.0, 0.1]), np.tile(np.eye(4), (2, 1, 1)))["a"]
    middle = path.at(np.array([0.05]))[0]
    np.testing.assert_allclose(middle[:2, 0], [-1.0, 0.0], atol=1e-12)


def test_speeds_are_in_the_global_frame() -> None:
    """A car that drives along global y, seen from a vehicle that looks along it: one label tells both ways."""
    world_from_vehicle = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    label = Labelled("a", 1, Box(np.array([10.0, 0, 0]), np.ones(3), 0.0), np.array([0.0, 8.0, 0.0]))
    head = FrameHead(0, world_from_vehicle, {}, (label,))
    path, _ = motion.object_paths([head], np.array([0.0]), world_from_vehicle[None])["a"]
    np.testing.assert_allclose(path.at(np.array([0.05]))[0, :3, 3], [0.0, 10.4, 0.0], atol=1e-12)


def test_length_lies_along_the_heading() -> None:
    box = message_class("Label")()
    box.box.length, box.box.width, box.box.height = 4.0, 2.0, 1.5
    np.testing.assert_array_equal(v1._labelled(box, "x").box.size, [4.0, 2.0, 1.5])
    # label.proto: width is field 4, length field 5.
    wire = message_class("Box")()
    wire.ParseFromString(b"\x21" + struct.pack("<d", 2.0) + b"\x29" + struct.pack("<d", 4.0))
    assert (wire.width, wire.length) == (2.0, 4.0)


def test_the_frames_time_is_found_from_the_vehicles_path() -> None:
    """Poses 60 ms after the start of the sweep, not the usual 50; a standing vehicle tells nothing."""

    def head(k: int, speed: float) -> FrameHead:
        def pose(t: float) -> np.ndarray:
            out = np.eye(4)
            out[0, 3] = speed * t + 1e4
            return out

        start = 0.1 * k
        times = [start + dt for dt in (0.022, 0.042, 0.052, 0.062, 0.082)]
        images = {c: Image(b"", pose(t), t, 0, 0, 0) for c, t in enumerate(times, start=1)}
        return FrameHead(round(start * 1e6), pose(start + 0.06), images, ())

    _, offset = motion.label_times([head(k, 9.0) for k in range(5)])
    assert offset == pytest.approx(0.06, abs=1e-4)
    _, offset = motion.label_times([head(k, 0.0) for k in range(5)])
    assert offset == motion.HALF_SWEEP


def test_the_smallest_box_that_holds_a_point_owns_it() -> None:
    def label(name: str, centre: list[float], size: list[float], heading: float) -> Labelled:
        return Labelled(name, 1, Box(np.array(centre), np.array(size), heading), np.zeros(3))

    head = FrameHead(
        0,
        np.eye(4),
        {},
        (
            label("long, turned", [0.0, 0, 0], [6.0, 2, 2], np.pi / 2),
            label("small, inside", [0.0, 2, 0], [1.0, 1, 1], 0.3),
            label("far", [50.0, 0, 0], [1.0, 1, 1], 0.0),
            label("slanted", [20.0, 0, 0], [6.0, 1, 1], 0.5),
        ),
    )
    places = np.array([[0.0, 2.0, 0], [0, 2.9, 0], [2.9, 0, 0], [50.54, 0, 0], [0, 0, 1.2], [22.2, 1.2, 0]])
    points = lidar.Points(places, np.zeros((6, 6), np.int32), np.zeros(6, bool))
    np.testing.assert_array_equal(assemble._owners(points, head, 0.05), [1, 0, -1, 2, -1, 3])
    np.testing.assert_array_equal(assemble._owners(points, head, 0.0), [1, 0, -1, -1, -1, 3])
    np.testing.assert_array_equal(assemble._owners(points, replace(head, objects=()), 0.05), [-1] * 6)
