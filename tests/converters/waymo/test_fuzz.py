"""Any bytes at all: a typed error or a sound value, in memory that the input bounds. DATAKIT_FUZZ sets how many."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import waymo
from converters.native.tfrecord import read_record, walk_records
from converters.waymo import lidar, v1, v2
from converters.waymo.proto import message_class, parse
from converters.waymo.write_v1 import _record
from datakit.errors import DatakitError, FormatError
from tests.converters.damage import COUNT, FUZZ, PROTOBUF, damaged

from .conftest import only_scene


def _matrix(values: np.ndarray, kind: str) -> bytes:
    message = message_class(kind)()
    message.data.extend(values.ravel().tolist())
    message.shape.dims.extend(values.shape)
    return message.SerializeToString()


FLOATS = _matrix(np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 3, "MatrixFloat")
INTS = _matrix(np.arange(36).reshape(2, 3, 6) * 40 - 7, "MatrixInt32")


@FUZZ
@given(damaged(FLOATS, PROTOBUF) | st.binary(max_size=100), damaged(INTS, PROTOBUF) | st.binary(max_size=100))
def test_range_images(floats: bytes, ints: bytes) -> None:
    for wire, kind, dtype, channels in (
        (floats, "MatrixFloat", np.float32, 4),
        (ints, "MatrixInt32", np.int32, 6),
    ):
        try:
            values = v1._matrix(zlib.compress(wire), kind, dtype, channels, "x")
        except DatakitError:
            continue
        assert values.dtype == dtype and values.ndim == 3 and values.size <= len(wire)
        if not parse("PackedMatrix", wire, "x").data:
            continue
        # Where the runtime reads the same bytes, it reads the same numbers.
        want = np.array(parse(kind, wire, "x").data, dtype=dtype)
        if want.size == values.size:
            np.testing.assert_array_equal(values.ravel(), want)


@FUZZ
@given(damaged(zlib.compress(FLOATS)) | st.binary(max_size=60))
def test_compressed_range_images(data: bytes) -> None:
    try:
        values = v1._matrix(data, "MatrixFloat", np.float32, 4, "x")
    except DatakitError:
        return
    assert values.shape[2] == 4


@FUZZ
@given(damaged(_record(b"abcdef") + _record(b"") + _record(bytes(40))) | st.binary(max_size=80))
def test_framing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.tfrecord"
    path.write_bytes(data)
    try:
        payloads = [read_record(path, span, check_crc=True)[0] for span in walk_records(path)]
    except DatakitError:
        return
    assert b"".join(_record(payload) for payload in payloads) == data


@pytest.fixture(scope="module")
def frame(natives: dict[str, Path]) -> bytes:
    """A whole Frame whose range images are three pixels wide, so that damage reaches every field."""
    message, _, _ = next(v1.frames(next(natives["v1"].rglob("*.tfrecord")), check_crc=True))
    for image in message.images:
        image.image = b"\xff\xd8"
    for laser in message.lasers:
        for each in (laser.ri_return1, laser.ri_return2):
            each.range_image_compressed = zlib.compress(FLOATS)
            each.camera_projection_compressed = zlib.compress(INTS)
            each.ClearField("range_image_pose_compressed")
    for calibration in message.context.laser_calibrations:
        calibration.ClearField("beam_inclinations")
    return bytes(message.SerializeToString())


@FUZZ
@given(st.data())
def test_frames(frame: bytes, data: st.DataObject) -> None:
    wire = data.draw(damaged(frame, PROTOBUF))
    try:
        message = parse("Frame", wire, "x")
        head, constant = v1.head(message, "x"), v1.calibration(message, "x")
        points = lidar.points_of_frame(
            v1.range_images(message, "x"), constant.lasers, head.global_from_vehicle, "x"
        )
    except DatakitError:
        return
    assert np.isfinite(head.global_from_vehicle).all()
    assert points.points_vehicle.shape == (len(points.projection), 3)


@pytest.fixture(scope="module")
def tables(natives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    pytest.importorskip("pyarrow")
    root = tmp_path_factory.mktemp("fuzzed") / "n"
    shutil.copytree(natives["v2"], root)
    return root, sorted(root.rglob("*.parquet"))


@settings(FUZZ, max_examples=max(20, COUNT // 10))
@given(st.data())
def test_tables(tables: tuple[Path, list[Path]], data: st.DataObject) -> None:
    root, paths = tables
    path = data.draw(st.sampled_from([p for p in paths if p.stat().st_size < 100_000]))
    good = path.read_bytes()
    # The footer at the end says what the pages before it are.
    tail = data.draw(damaged(good[-3000:]))
    path.write_bytes(data.draw(damaged(good[:-3000])) + tail)
    try:
        ref = only_scene(root)
        opened = v2.open_tables(root, Path(ref.location["path"]), ref.location["context"])
        heads = v2.heads(opened)
        v2.calibration(opened, ref.id)
        for _ in v2.rasters(opened, [head.timestamp_micros for head in heads[:1]]):
            break
    except DatakitError:
        pass
    finally:
        path.write_bytes(good)


def test_claimed_sizes_take_no_memory() -> None:
    bomb = zlib.compress(bytes(400 << 20), 9)
    with pytest.raises(FormatError, match="wrong size"):
        v1._inflate(bomb, "x")


def test_varints_that_do_not_end_are_refused() -> None:
    for data in (b"\x80", b"\xff" * 11 + b"\x01"):
        wire = b"\x0a" + bytes([len(data)]) + data
        with pytest.raises(FormatError):
            v1.read_matrix(wire, "MatrixInt32", np.int32, "x")


def test_the_scene_reader_raises_typed_errors_only(natives: dict[str, Path], tmp_path: Path) -> None:
    """Whole segments with damaged frames, their CRCs right, from the first record to the last raster."""
    rng = np.random.default_rng(0)
    source = next(natives["v1"].rglob("*.tfrecord"))
    records = [read_record(source, span, True)[0] for span in walk_records(source)][:2]
    kinds: set[Any] = set()
    for _ in range(max(20, COUNT // 10)):
        wires = [bytearray(record) for record in records]
        for wire in wires:
            for at in rng.integers(0, len(wire), rng.integers(0, 6)):
                wire[at] = rng.integers(0, 256)
        (tmp_path / "segment-1.tfrecord").write_bytes(b"".join(_record(bytes(wire)) for wire in wires))
        try:
            for _ in waymo.read(tmp_path, only_scene(tmp_path), waymo.Params()).frames:
                kinds.add("frame")
        except DatakitError as err:
            kinds.add(type(err))
    assert "frame" in kinds and len(kinds) > 1
