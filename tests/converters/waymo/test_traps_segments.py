"""Traps of v1's files: TFRecords, protobuf messages, names and roots.

Each test fails without its handling.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import v1
from converters.waymo.proto import message_class, parse
from converters.waymo.write_v1 import _masked, _record
from datakit.errors import ConventionError, DatakitError, FormatError, LayoutError, UsageError

from .conftest import convert, only_scene, segment_file


def test_a_flipped_payload_byte_fails_its_crc(natives: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(segment_file(natives["v1"]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "segment-1_with_camera_labels.tfrecord").write_bytes(data)
    with pytest.raises(FormatError, match="CRC"):
        convert(tmp_path, tmp_path / "out.h5")


def test_a_truncated_segment_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    data = segment_file(natives["v1"]).read_bytes()
    (tmp_path / "segment-1.tfrecord").write_bytes(data[:-100])
    with pytest.raises(FormatError, match="truncated"):
        convert(tmp_path, tmp_path / "out.h5")
    assert any("truncated" in problem.what for problem in waymo.probe(tmp_path).problems)


def test_a_length_that_lies_is_not_believed(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 60)
    (tmp_path / "segment-1.tfrecord").write_bytes(length + _masked(length) + b"x" * 64)
    with pytest.raises(FormatError, match="truncated"):
        convert(tmp_path, tmp_path / "out.h5")


def test_unknown_fields_are_skipped(
    natives: dict[str, Path], tmp_path: Path, scene_files: dict[str, Path]
) -> None:
    source = segment_file(natives["v1"])
    target = tmp_path / source.relative_to(natives["v1"])
    target.parent.mkdir(parents=True)
    extra = b"\xfa\x07\x04abcd"  # field 127, length-delimited
    with open(target, "wb") as file:
        for frame, _, _ in v1.frames(source, check_crc=True):
            file.write(_record(frame.SerializeToString() + extra))
    with datakit.open_scene(convert(tmp_path, tmp_path / "out.h5")) as scene:
        assert scene.views["front"].num_frames == 5


def test_repeated_doubles_may_be_packed_or_not() -> None:
    values = np.arange(16.0)
    packed = b"\x0a\x80\x01" + values.tobytes()
    loose = b"".join(b"\x09" + struct.pack("<d", value) for value in values)
    for wire in (packed, loose):
        message = message_class("Transform")()
        message.ParseFromString(wire)
        np.testing.assert_array_equal(message.transform, values)


def test_texts_that_are_no_utf8_are_refused(natives: dict[str, Path]) -> None:
    """Found by fuzzing: the runtime gives their bytes, which cannot be sorted among texts, or stored as one."""
    frame, where, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    wire = frame.SerializeToString()
    for text, read in ((frame.laser_labels[0].id, v1.head), (frame.context.stats.weather, v1.calibration)):
        assert text.encode() in wire
        bad = parse("Frame", wire.replace(text.encode(), b"\xff" * len(text)), where)
        with pytest.raises(FormatError, match="UTF-8"):
            read(bad, where)


def test_garbage_gives_typed_errors(natives: dict[str, Path], tmp_path: Path) -> None:
    """Whatever a frame's bytes are, its record's CRCs being right, only typed errors come out."""
    rng = np.random.default_rng(0)
    frame, _, _ = next(v1.frames(segment_file(natives["v1"]), check_crc=True))
    good = frame.SerializeToString()
    root = tmp_path / "n"
    root.mkdir()
    outcomes = set()
    for _ in range(40):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(0, 4000)] = rng.integers(0, 256)
        (root / "segment-1.tfrecord").write_bytes(_record(bytes(data)))
        try:
            for _ in waymo.read(root, only_scene(root), waymo.Params()).frames:
                outcomes.add("read")
        except DatakitError as err:
            outcomes.add(type(err).__name__)
    assert {"FormatError", "ConventionError"} & outcomes


def test_two_segments_of_one_name_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    data = segment_file(natives["v1"]).read_bytes()
    for split in ("training", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "segment-7_with_camera_labels.tfrecord").write_bytes(data)
    with pytest.raises(LayoutError, match="same id"):
        list(waymo.scenes(tmp_path, waymo.Params()))


def test_wrong_roots_and_forms(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="No Waymo"):
        list(waymo.scenes(tmp_path, waymo.Params()))
    with pytest.raises(LayoutError, match="folder"):
        list(waymo.scenes(tmp_path / "none", waymo.Params()))
    with pytest.raises(UsageError, match="form"):
        waymo.write_native(iter([]), tmp_path, "v3")
    from datakit.worlds import random_world

    with pytest.raises(ConventionError, match="vehicle"):
        waymo.write_native(iter([random_world(0, num_frames=2, size=(16, 16))]), tmp_path, "v1")
