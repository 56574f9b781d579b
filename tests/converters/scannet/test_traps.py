"""One test for every trap of the .sens format and of ScanNet's release, each of which fails without its handling."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

import converters.scannet as scannet
from converters.scannet import assemble, sens
from converters.scannet.splits import VAL_SPACES, official_split
from converters.scannet.texts import scan_metadata
from converters.scannet.write_sens import record
from datakit import geometry as g
from datakit.errors import ConventionError, FormatError, LayoutError

from .scans import (
    HEAD,
    PARAMS,
    SIZE,
    codes,
    drain,
    hand_frames,
    jpeg,
    k4,
    open_scan,
    png,
    sens_file,
    small_world,
    write_hand,
    write_scan,
)

LOST = np.full((4, 4), -np.inf)


# --- section 2: the bytes ---------------------------------------------------------------------------------------------


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


# --- depth ------------------------------------------------------------------------------------------------------------


def test_trap_depth_is_divided_by_depth_shift_and_unsigned(tmp_path: Path) -> None:
    values = np.array([[0, 1, 999, 1000], [32767, 32768, 40000, 65535]], "<u2")
    frames = hand_frames(2, depth=zlib.compress(values.tobytes()))
    write_hand(tmp_path, frames, depth_size=(4, 2), intrinsic_depth=k4(4, 4, 1.5, 0.5), depth_shift=500.0)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        z = scene.views["camera"].z_depth(0)
    assert np.isnan(z[0, 0])
    want = (values / 500).astype(np.float32)
    assert np.array_equal(z.ravel()[1:], want.ravel()[1:])


def test_trap_depth_stream_too_short_too_long_or_corrupt(tmp_path: Path) -> None:
    good = zlib.compress(codes())
    flipped = bytearray(good)
    flipped[-1] ^= 1  # of the checksum
    cases = {
        "short": (zlib.compress(codes()[:-2]), "wrong size"),
        "long": (zlib.compress(codes() + b"\0\0"), "wrong size"),
        "checksum": (bytes(flipped), "corrupt"),
        "cut": (good[:-2], "truncated"),
        "no zlib": (b"not zlib at all", "corrupt"),
        "empty": (b"", "too short"),
    }
    for name, (depth, words) in cases.items():
        frames = hand_frames(3)
        write_hand(tmp_path / name, [*frames[:2], hand_frames(1, depth=depth)[0]])
        with pytest.raises(FormatError, match=words) as caught:
            drain(tmp_path / name)
        assert "frame 2: depth" in str(caught.value)


def test_trap_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    """1 kB that claims to be, or inflates to, far more is refused without the memory for it."""
    import tracemalloc

    bomb = zlib.compress(bytes(50_000_000))
    for name, head in (
        ("bomb", {}),
        ("claim", {"depth_size": (16000, 12000), "intrinsic_depth": k4(9, 9, 8e3, 6e3)}),
    ):
        write_hand(tmp_path / name, hand_frames(1, depth=bomb), **head)
        tracemalloc.start()
        with pytest.raises(FormatError):
            drain(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


def test_trap_an_all_zero_depth_image_is_unknown_everywhere(tmp_path: Path) -> None:
    write_hand(
        tmp_path, [hand_frames(1)[0], hand_frames(1, depth=zlib.compress(codes(0)), timestamp=9000)[0]]
    )
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert (
            np.isnan(scene.views["camera"].z_depth(1)).all()
            and np.isfinite(scene.views["camera"].z_depth(0)).all()
        )


def test_trap_depth_is_z_and_not_distance_along_the_ray(tmp_path: Path) -> None:
    world = small_world(1)
    with open_scan(write_scan(tmp_path / "raw", "sens", world), tmp_path / "out") as scene:
        view = scene.views["camera"]
        truth = world.render(1, intrinsics=view.depth_intrinsics[1], size=view.depth_size)
        z = view.z_depth(1)
        assert np.nanmax(np.abs(z - truth.z_depth)) < 6e-4 < np.nanmedian(np.abs(z - truth.ray_distance))


# --- poses and times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [LOST, np.full((4, 4), np.nan), np.where(np.eye(4) > 0, np.inf, 0)])
def test_trap_a_lost_pose_is_unknown_and_the_frame_stays(tmp_path: Path, lost: np.ndarray) -> None:
    frames = hand_frames(4)
    frames[2] = hand_frames(3, camera_to_world=lost)[2]
    write_hand(tmp_path, frames)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.pose_is_known.tolist() == [True, True, False, True]
        assert np.isnan(view.world_from_cam[2]).all() and view.frame_names == ("0", "1", "2", "3")
        assert view.world_from_cam[3, 0, 3] == pytest.approx(0.3) and view.z_depth(2) is not None


def test_trap_single_precision_rotations_become_exact_ones(tmp_path: Path) -> None:
    pose = g.rigid_from(g.rotation_from_axis_angle([0.4, -1.1, 0.7]), [1, 2, 3])
    rounded = np.round(pose, 6)  # as exported; the contract asks for 1e-6 of orthonormality
    write_hand(tmp_path, hand_frames(1, camera_to_world=rounded))
    with open_scan(tmp_path, tmp_path / "out") as scene:
        found = scene.views["camera"].world_from_cam[0]
    assert np.abs(found[:3, :3].T @ found[:3, :3] - np.eye(3)).max() < 1e-12
    assert np.abs(found - pose).max() < 2e-6


@pytest.mark.parametrize(
    "pose",
    [np.zeros((4, 4)), np.diag([1, 1, -1, 1]), np.diag([2, 2, 2, 1]), np.eye(4) * [1, 1, 1, 0.5]],
    ids=["zero", "mirror", "scaled", "bottom"],
)
def test_trap_a_finite_pose_that_is_not_rigid_is_refused(tmp_path: Path, pose: np.ndarray) -> None:
    write_hand(tmp_path, [hand_frames(1)[0], hand_frames(1, camera_to_world=pose)[0]])
    with pytest.raises(ConventionError, match="not rigid") as caught:
        drain(tmp_path)
    assert "frame 1" in str(caught.value)


@pytest.mark.parametrize(
    ("stamps", "how"),
    [
        ([0, 0, 0, 0], "all time stamps are 0"),
        ([5, 5, 5, 5], "do not increase"),
        ([1000, 34000, 33000, 99000], "do not increase"),
        ([1000, 34000, 2**64 - 1, 99000], "do not increase"),
        ([2**64 - 1] * 4, "do not increase"),
        ([0, 33_333, 66_666, 90_000_000], "do not increase"),
        ([1, 2, 3, 4], "e-06 s apart"),
        ([0, 3_000_000, 6_000_000, 9_000_000], "3 s apart"),
    ],
)
def test_trap_time_stamps_that_cannot_be_believed(tmp_path: Path, stamps: list[int], how: str) -> None:
    write_hand(tmp_path, [hand_frames(1, timestamp=stamp)[0] for stamp in stamps])
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert np.allclose(scene.views["camera"].times, np.arange(4) / 30)
        assert how in scene.metadata["times"] and "30 Hz" in scene.metadata["times"]


def test_good_time_stamps_are_microseconds_from_the_first(tmp_path: Path) -> None:
    write_hand(tmp_path, [hand_frames(1, timestamp=stamp)[0] for stamp in (7_000_000, 7_033_000, 7_066_000)])
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert np.allclose(scene.views["camera"].times, [0, 0.033, 0.066], atol=1e-12)
        assert scene.metadata["times"] == "timestamp_color" and scene.metadata["first_timestamp"] == 7_000_000
    with open_scan(tmp_path, tmp_path / "2", scannet.Params(timestamps="never", frame_rate=10)) as scene:
        assert np.allclose(scene.views["camera"].times, [0, 0.1, 0.2])


# --- section 3: sizes, intrinsics, alignment --------------------------------------------------------------------------


def test_trap_pixel_centres_are_integers_in_the_source(tmp_path: Path) -> None:
    write_hand(tmp_path)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.intrinsics[0, :2, 2].tolist() == [8, 6] and view.depth_intrinsics[0, :2, 2].tolist() == [
            4,
            3,
        ]


def test_trap_sizes_and_k_come_from_the_head_and_may_be_anything(tmp_path: Path) -> None:
    """scene0711_00 has fx != fy; scene0704_* and scene0705_* have colour and depth of one size."""
    head = {
        "colour_size": (8, 6),
        "intrinsic_color": k4(7.1, 7.3, 3.7, 2.4),
        "intrinsic_depth": k4(7.1, 7.3, 3.7, 2.4),
    }
    write_hand(tmp_path, hand_frames(2, colour=jpeg((8, 6))), **head)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.size == view.depth_size == (8, 6)
        assert np.allclose(view.intrinsics[0], [[7.1, 0, 4.2], [0, 7.3, 2.9], [0, 0, 1]], atol=1e-6)


def test_trap_a_jpeg_of_another_size_than_the_head_says(tmp_path: Path) -> None:
    write_hand(tmp_path, hand_frames(1, colour=jpeg((8, 6))))
    with pytest.raises(FormatError, match="another size") as caught:
        drain(tmp_path)
    assert "frame 0: colour" in str(caught.value)


def test_trap_raw_calibration_of_the_text_file_is_not_used(tmp_path: Path) -> None:
    root = write_scan(tmp_path / "raw", "sens")
    text = sens_file(root).with_suffix(".txt")
    assert "fx_depth = 28.58" in text.read_text() and "colorToDepthExtrinsics" in text.read_text()
    with open_scan(root, tmp_path / "with") as scene:
        with_text = scene.views["camera"].depth_intrinsics
        kept = dict(scene.metadata)
    text.unlink()
    with open_scan(root, tmp_path / "without") as scene:
        view = scene.views["camera"]
        assert np.array_equal(view.depth_intrinsics, with_text)
        assert abs(with_text[0, 0, 0] - view.intrinsics[0, 0, 0] * 32 / 65) < 1e-5
    assert not any("fx" in key or "Extrinsics" in key for key in kept)


@pytest.mark.parametrize("which", ["extrinsic_color", "extrinsic_depth"])
def test_trap_a_head_with_extrinsics_is_refused(tmp_path: Path, which: str) -> None:
    moved = np.eye(4)
    moved[0, 3] = -0.038
    write_hand(tmp_path, **{which: moved})
    with pytest.raises(ConventionError, match="not registered") as caught:
        drain(tmp_path)
    assert which in str(caught.value)


def test_trap_resized_exports_are_refused(tmp_path: Path) -> None:
    """The exporter's image_size option scales images and leaves K: then 647.75 is the middle of a 640 px image."""
    with pytest.raises(ConventionError, match="resized"):
        assemble.corner_k(k4(1170.19, 1170.19, 647.75, 483.75), (640, 480), "x")
    root = write_scan(tmp_path, "export")
    for path in (root / "scans" / "scene0000_00" / "color").iterdir():
        path.write_bytes(jpeg((32, 24)))
    with pytest.raises(ConventionError, match="intrinsics of colour"):
        drain(root)


@pytest.mark.parametrize(
    "matrix",
    [
        k4(0, 1, 7.5, 5.5),
        k4(16, np.nan, 7.5, 5.5),
        k4(16, 16, 7.5, 5.5).T,
        k4(16, 16, 7.5, 5.5) + np.eye(4, k=3),
        k4(16, 16, 7.5, 5.5) + np.diag([0, 0, 0.02, 0]),
        k4(16, 16, 7.5, 5.5) * 2,
        np.zeros((4, 4)),
    ],
)
def test_trap_an_intrinsic_matrix_that_is_none(tmp_path: Path, matrix: np.ndarray) -> None:
    write_hand(tmp_path, intrinsic_color=matrix)
    with pytest.raises(ConventionError, match="intrinsic_color"):
        drain(tmp_path)


@pytest.mark.parametrize("shift", [0.0, -1000.0, np.nan, np.inf, 1e-30])
def test_trap_depth_without_a_unit(tmp_path: Path, shift: float) -> None:
    write_hand(tmp_path, depth_shift=shift)
    with pytest.raises(ConventionError, match="depthShift"):
        drain(tmp_path)


# --- section 4: <id>.txt ----------------------------------------------------------------------------------------------


def test_trap_text_file_has_crlf_and_trailing_blanks(tmp_path: Path) -> None:
    path = write_hand(tmp_path)
    text = "axisAlignment = 1 0 0 2 0 1 0 3 0 0 1 4 0 0 0 1 \r\nsceneType = Misc.\r\nnumColorFrames = 4\r\n"
    path.with_suffix(".txt").write_bytes(text.encode())
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert scene.metadata["axis_alignment"] == [[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4], [0, 0, 0, 1]]
        assert scene.metadata["scene_type"] == "Misc." and scene.metadata["num_color_frames"] == 4
        # kept, and not applied
        assert scene.views["camera"].world_from_cam[0, :3, 3].tolist() == [0, 0, 0]


def test_trap_text_file_without_axis_alignment_or_without_text_file(tmp_path: Path) -> None:
    path = write_hand(tmp_path)
    with open_scan(tmp_path, tmp_path / "none") as scene:
        assert "axis_alignment" not in scene.metadata
    path.with_suffix(".txt").write_text("colorHeight = 968\n")  # as the v1 release
    with open_scan(tmp_path, tmp_path / "v1") as scene:
        assert "axis_alignment" not in scene.metadata


def test_counts_of_thousands_of_digits_are_left_out(tmp_path: Path) -> None:
    """Found by fuzzing: Python refuses to read such integers."""
    (tmp_path / "x.txt").write_text("numColorFrames = " + "9" * 5000 + "\nnumDepthFrames = 7\n")
    assert scan_metadata(tmp_path, Path("x.txt"), []) == {"num_depth_frames": 7}


@pytest.mark.parametrize(
    "text", ["axisAlignment = 1 0 0\r\n", "axisAlignment = " + "nan " * 16, "axisAlignment = a\n"]
)
def test_trap_a_broken_axis_alignment_is_refused(tmp_path: Path, text: str) -> None:
    write_hand(tmp_path).with_suffix(".txt").write_text(text)
    with pytest.raises(FormatError, match="axisAlignment"):
        drain(tmp_path)


def test_trap_num_color_frames_is_one_too_many(tmp_path: Path) -> None:
    root = write_scan(tmp_path / "raw", "sens")
    with open_scan(root, tmp_path / "out") as scene:
        assert scene.metadata["num_color_frames"] == scene.views["camera"].num_frames + 1
    (problem,) = scannet.probe(root).problems
    assert problem.severity == "warning" and "the .sens is right" in problem.what


# --- section 5 and 6: exported forms ----------------------------------------------------------------------------------


def test_trap_export_is_sorted_by_number(tmp_path: Path) -> None:
    root = write_scan(tmp_path / "raw", "export", small_world(1, num_frames=11, size=(16, 12)))
    with open_scan(root, tmp_path / "out") as scene:
        assert scene.views["camera"].frame_names[9:] == ("9", "10")


@pytest.mark.parametrize(("form", "name"), [("export", "2.jpg"), ("export-cpp", "frame-000002.color.jpg")])
def test_trap_one_image_of_an_export_has_another_size(tmp_path: Path, form: str, name: str) -> None:
    root = write_scan(tmp_path, form, small_world(1, num_frames=3, size=(16, 12)))
    next(root.rglob(name)).write_bytes(jpeg((16, 10)))
    with pytest.raises(FormatError, match="another size than the first") as caught:
        drain(root)
    assert name in str(caught.value)


def test_trap_export_with_skipped_frames_keeps_their_times(tmp_path: Path) -> None:
    root = write_scan(tmp_path / "raw", "export", small_world(1, num_frames=5, size=(16, 12)))
    for part, ext in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
        (root / "scans" / "scene0000_00" / part / f"1.{ext}").unlink()
    with open_scan(root, tmp_path / "out") as scene:
        assert np.allclose(scene.views["camera"].times, np.array([0, 2, 3, 4]) / 30)


@pytest.mark.parametrize("form", ["export", "export-cpp", "frames-25k"])
@pytest.mark.parametrize("part", ["color", "depth", "pose"])
def test_trap_a_frame_of_an_export_lacks_a_file(tmp_path: Path, form: str, part: str) -> None:
    root = write_scan(tmp_path, form, small_world(1, num_frames=3, size=(16, 12)))
    victims = [
        path for path in sorted(root.rglob("*")) if path.is_file() and part in str(path.relative_to(root))
    ]
    [path for path in victims if "intrins" not in path.name and "extrins" not in path.name][1].unlink()
    with pytest.raises(LayoutError, match=f"no {part} file"):
        drain(root)
    assert scannet.probe(root).problems[0].severity == "error"


@pytest.mark.parametrize("form", ["export", "export-cpp", "frames-25k"])
def test_trap_minus_inf_is_a_word_in_exports(tmp_path: Path, form: str) -> None:
    root = write_scan(tmp_path / "raw", form, small_world(1, num_frames=3, size=(16, 12)))
    poses = [path for path in sorted(root.rglob("*.txt")) if "pose" in str(path.relative_to(root))]
    poses[1].write_text("-inf -inf -inf -inf\n" * 4)
    with open_scan(root, tmp_path / "out") as scene:
        assert scene.views["camera"].pose_is_known.tolist() == [True, False, True]


def test_trap_pgm_is_big_endian(tmp_path: Path) -> None:
    world = small_world(1, num_frames=2, size=(16, 12))
    root = write_scan(tmp_path / "raw", "export-cpp", world)
    path = next(root.rglob("*000001.depth.pgm"))
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\x02")
    with open_scan(root, tmp_path / "out") as scene:
        assert scene.views["camera"].z_depth(1)[-1, -1] == np.float32(0.258)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P5\n8 6\n255\n" + bytes(48), "16-bit PGM"),
        (b"P2\n8 6\n65535\n" + b"0 " * 48, "Not a PNG"),
        (b"P5\n8 6\n65535\n" + bytes(95), "wrong size"),
        (b"P5\n8 7\n65535\n" + bytes(112), "wrong size"),
        (b"", "Not a PNG"),
    ],
)
def test_trap_pgm_of_another_kind(tmp_path: Path, data: bytes, words: str) -> None:
    root = write_scan(tmp_path, "export-cpp", small_world(1, num_frames=3, size=(16, 12)))
    next(root.rglob("*000002.depth.pgm")).write_bytes(data)
    with pytest.raises(FormatError, match=words):
        drain(root)


def test_trap_info_of_the_cpp_export_must_fit_the_images(tmp_path: Path) -> None:
    root = write_scan(tmp_path, "export-cpp", small_world(1, num_frames=2, size=(16, 12)))
    info = next(root.rglob("_info.txt"))
    text = info.read_text()
    for old, new, words in (
        ("m_colorWidth = 16", "m_colorWidth = 17", "another size"),
        ("m_calibrationDepthIntrinsic", "m_calibration", "m_calibrationDepthIntrinsic"),
        ("m_depthShift = 1000", "m_depthShift = x", "m_depthShift"),
        ("m_calibrationColorExtrinsic = 1 0 0 0", "m_calibrationColorExtrinsic = 1 0 0 1", "not registered"),
    ):
        info.write_text(text.replace(old, new))
        with pytest.raises((FormatError, ConventionError), match=words):
            drain(root)


def test_trap_frames_25k_has_its_matrices_in_the_scene_folder(tmp_path: Path) -> None:
    root = write_scan(tmp_path / "raw", "frames-25k", small_world(1, num_frames=2, size=SIZE))
    folder = root / "scannet_frames_25k" / "scene0000_00"
    assert not (folder / "intrinsic").exists() and (folder / "instance" / "000100.png").is_file()
    assert "scannet_frames_25k (1)" in scannet.probe(root).variant
    with open_scan(root, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.frame_names == ("0", "100") and not np.array_equal(view.intrinsics, view.depth_intrinsics)
    (folder / "intrinsics_depth.txt").unlink()
    with pytest.raises(LayoutError, match="intrinsics_depth"):
        drain(root)


def test_trap_sens_wins_over_an_export_beside_it(tmp_path: Path) -> None:
    world = small_world(1, num_frames=2, size=(16, 12))
    root = write_scan(tmp_path, "sens", world)
    write_scan(root, "export", world)
    (ref,) = scannet.scenes(root, PARAMS)
    assert ref.location["form"] == "sens" and ref.num_frames == 2


def test_a_scan_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    world = small_world(1, num_frames=2, size=(16, 12))
    write_scan(tmp_path, "sens", world)
    write_scan(tmp_path, "frames-25k", world)
    with pytest.raises(LayoutError, match="twice"):
        drain(tmp_path)


def test_an_export_in_a_subfolder_is_named_after_its_scan(tmp_path: Path) -> None:
    root = write_scan(tmp_path, "export", small_world(1, num_frames=2, size=(16, 12)))
    scan = root / "scans" / "scene0000_00"
    shutil.move(scan, root / "exported")
    shutil.move(root / "exported", scan / "exported")
    (ref,) = scannet.scenes(root, PARAMS)
    assert ref.id == "scene0000_00" and ref.split == "train"
    (ref,) = scannet.scenes(scan / "exported", PARAMS)
    assert ref.id == "scene0000_00"
    assert drain(root) == 2


# --- section 7: splits ------------------------------------------------------------------------------------------------


def test_trap_split_is_by_space_as_the_official_lists() -> None:
    """Counts of scannetv2_{train,val,test}.txt; every scan of a space is in one list."""
    splits = [official_split(f"scene{space:04d}_00") for space in range(900)]
    assert [splits.count(name) for name in ("train", "val", "test", "none")] == [565, 142, 100, 93]
    digest = hashlib.sha256(",".join(map(str, sorted(VAL_SPACES))).encode()).hexdigest()
    assert digest[:16] == VAL_DIGEST
    assert official_split("scene0011_01") == official_split("scene0011_00") == "val"


VAL_DIGEST = "18fe02f6eeea09e0"


def test_split_of_a_tree(tmp_path: Path) -> None:
    for name in ("scene0011_00", "scene0012_00", "scene0800_00"):
        write_hand(tmp_path, name=name)
    found = {ref.id: ref.split for ref in scannet.scenes(tmp_path, PARAMS)}
    assert found == {"scene0011_00": "val", "scene0012_00": "train", "scene0800_00": "test"}
    assert scannet.probe(tmp_path).num_scenes == {"val": 1, "train": 1, "test": 1}
    kitchen = Path(shutil.move(tmp_path / "scans" / "scene0800_00", tmp_path / "scans_test" / "kitchen"))
    (kitchen / "scene0800_00.sens").rename(kitchen / "kitchen.sens")
    assert {ref.id: ref.split for ref in scannet.scenes(tmp_path, PARAMS)}["kitchen"] == "test"
    shutil.move(kitchen, tmp_path / "scans" / "kitchen")
    assert {ref.id: ref.split for ref in scannet.scenes(tmp_path, PARAMS)}["kitchen"] == "none"
