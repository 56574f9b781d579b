"""Traps of exported forms: names, numbers, PGM, _info.txt, frames_25k, one scan in two forms.

Each test fails without its handling.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import converters.scannet as scannet
from converters.scannet import assemble
from datakit.errors import ConventionError, FormatError, LayoutError

from .scans import PARAMS, SIZE, drain, jpeg, k4, open_scan, small_world, write_scan


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


def test_trap_resized_exports_are_refused(tmp_path: Path) -> None:
    """The exporter's image_size option scales images and leaves K: then 647.75 is the middle of a 640 px image."""
    with pytest.raises(ConventionError, match="resized"):
        assemble.corner_k(k4(1170.19, 1170.19, 647.75, 483.75), (640, 480), "x")
    root = write_scan(tmp_path, "export")
    for path in (root / "scans" / "scene0000_00" / "color").iterdir():
        path.write_bytes(jpeg((32, 24)))
    with pytest.raises(ConventionError, match="intrinsics of colour"):
        drain(root)


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
