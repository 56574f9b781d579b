"""Traps of the bytes of .sens files: head, frames, IMU block, counts and sizes that lie.

Each test fails without its handling.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import converters.scannet as scannet
from converters.scannet import sens
from converters.scannet.write_sens import record
from datakit.errors import FormatError

from .scans import HEAD, PARAMS, codes, drain, hand_frames, jpeg, k4, open_scan, png, sens_file, write_hand


def test_trap_header_is_packed_304_bytes_and_the_name(tmp_path: Path) -> None:
    """Byte for byte against offsets written down by hand, with no struct of the reader or the writer."""
    path = write_hand(tmp_path, num_imu=0)
    data = path.read_bytes()
    assert data[:27] == b"\x04\0\0\0" + b"\x0f\0\0\0\0\0\0\0" + b"StructureSensor"
    assert np.frombuffer(data, "<f4", 16, 27).tolist() == np.asarray(HEAD.intrinsic_color).ravel().tolist()
    assert (
        np.frombuffer(data, "<f4", 16, 27 + 128).tolist() == np.asarray(HEAD.intrinsic_depth).ravel().tolist()
    )
    assert data[283:291] == b"\x02\0\0\0" + b"\x01\0\0\0"
    assert np.frombuffer(data, "<u4", 4, 291).tolist() == [16, 12, 8, 6]
    assert np.frombuffer(data, "<f4", 1, 307)[0] == 1000 and data[311:319] == b"\x03" + bytes(7)
    frame = hand_frames()[0]
    assert np.frombuffer(data, "<u8", 4, 319 + 64).tolist() == [
        1000,
        1000,
        len(frame.colour),
        len(frame.depth),
    ]
    assert data[319 + 96 :].startswith(frame.colour + frame.depth)
    assert data.endswith(bytes(8))  # no IMU records
    assert drain(tmp_path) == 3


@pytest.mark.parametrize("name", [b"", b"Kinect", b"x" * 300])
def test_trap_sensor_name_has_any_length_and_no_nul(tmp_path: Path, name: bytes) -> None:
    write_hand(tmp_path, sensor=name)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert scene.metadata["sensor"] == name.decode() and scene.views["camera"].num_frames == 3


@pytest.mark.parametrize(
    ("version", "words"), [(3, "no IMU block"), (0, "old .sensor"), (2, "old .sensor"), (5, "5")]
)
def test_trap_other_versions_are_refused_by_name(tmp_path: Path, version: int, words: str) -> None:
    write_hand(tmp_path, version=version)
    with pytest.raises(FormatError, match="version") as caught:
        drain(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("field", "code", "words"),
    [
        ("depth_compression", 2, "occi_ushort"),
        ("depth_compression", -1, "unknown"),
        ("depth_compression", 9, "undefined"),
        ("colour_compression", 0, "raw"),
        ("colour_compression", -1, "unknown"),
    ],
)
def test_trap_other_compressions_are_refused_by_name(
    tmp_path: Path, field: str, code: int, words: str
) -> None:
    write_hand(tmp_path, **{field: code})
    with pytest.raises(FormatError) as caught:
        drain(tmp_path)
    assert field.split("_")[0] in str(caught.value) and f"{code} ({words})" in str(caught.value)
    assert words in scannet.probe(tmp_path).problems[0].what


def test_png_colour_and_raw_depth_are_read(tmp_path: Path) -> None:
    frames = hand_frames(2, colour=png(), depth=codes(1234))
    write_hand(tmp_path, frames, colour_compression=1, depth_compression=0)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.encoded("rgb", 1) == png() and (view.rgb(0) == 7).all()
        assert (view.z_depth(1) == np.float32(1.234)).all()


def test_trap_frames_are_found_by_one_walk_and_read_in_any_order(tmp_path: Path) -> None:
    frames = hand_frames(7)
    path = write_hand(tmp_path, frames)
    with open(path, "rb") as file:
        index = sens.read_index(file, "x")
        for t in (5, 0, 6, 2):
            head, colour, depth = sens.read_payloads(file, index, t, "x")
            assert head + colour + depth == record(frames[t])
    assert index.offsets[0] == 319 and index.num_imu == 1


def test_trap_a_scan_of_gigabytes_is_streamed(tmp_path: Path) -> None:
    """Memory does not grow with the payloads, only by the index."""
    import tracemalloc

    size = (160, 120)
    head = {"colour_size": size, "intrinsic_color": k4(160, 160, 79.5, 59.5)}
    for name, count in (("short", 20), ("long", 200)):
        write_hand(tmp_path / name, hand_frames(1, colour=jpeg(size)) * count, **head)
    peaks = []
    for name in ("short", "short", "long"):  # the first run fills caches
        tracemalloc.start()
        drain(tmp_path / name)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sens_file(tmp_path / "long").stat().st_size > 2_500_000
    assert peaks[2] - peaks[1] < 400_000


@pytest.mark.parametrize("num_imu", [0, 1, 5])
def test_trap_imu_block_follows_the_frames(tmp_path: Path, num_imu: int) -> None:
    write_hand(tmp_path, num_imu=num_imu)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert scene.metadata["num_imu"] == num_imu


@pytest.mark.parametrize(
    "part", ["head", "name", "frame head", "colour", "depth", "imu count", "imu", "last byte"]
)
def test_trap_truncated_files_are_refused_before_any_frame(tmp_path: Path, part: str) -> None:
    path = write_hand(tmp_path)
    data = path.read_bytes()
    with open(path, "rb") as file:
        index = sens.read_index(file, "x")
    start, end = int(index.offsets[1]), int(index.offsets[-1])
    cut = {
        "head": 100,
        "name": 15,
        "frame head": start + 40,
        "colour": start + 100,
        "depth": int(index.offsets[2]) - 3,
        "imu count": end + 4,
        "imu": end + 8 + 60,
        "last byte": len(data) - 1,
    }[part]
    path.write_bytes(data[:cut])
    (ref,) = scannet.scenes(tmp_path, PARAMS)
    with pytest.raises(FormatError, match=r"truncated|IMU") as caught:
        scannet.read(tmp_path, ref, PARAMS)
    assert "scene0001_00.sens" in str(caught.value) and "Download the scan again" in str(caught.value)
    assert scannet.probe(tmp_path).problems[0].severity == "error"


def test_trap_bytes_after_the_imu_block_are_refused(tmp_path: Path) -> None:
    path = write_hand(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(FormatError, match="IMU block"):
        drain(tmp_path)


@pytest.mark.parametrize("count", [2, 4, 2**40, 2**64 - 1])
def test_trap_a_wrong_number_of_frames_is_refused(tmp_path: Path, count: int) -> None:
    path = write_hand(tmp_path)
    data = bytearray(path.read_bytes())
    data[311:319] = struct.pack("<Q", count)
    path.write_bytes(data)
    with pytest.raises(FormatError):
        drain(tmp_path)


def test_trap_no_frames_is_refused(tmp_path: Path) -> None:
    write_hand(tmp_path, [])
    with pytest.raises(FormatError, match="without frames"):
        drain(tmp_path)


@pytest.mark.parametrize("at", [80, 88])  # of the frame head: sizes of colour and depth
def test_trap_a_payload_size_beyond_the_file_is_refused(tmp_path: Path, at: int) -> None:
    path = write_hand(tmp_path)
    data = bytearray(path.read_bytes())
    data[319 + at : 319 + at + 8] = struct.pack("<Q", 2**63)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="truncated") as caught:
        drain(tmp_path)
    assert str(2**63) in str(caught.value)
