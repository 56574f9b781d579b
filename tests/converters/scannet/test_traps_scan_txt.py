"""Traps of <id>.txt: CRLF, lines that are missing or broken, and numbers that are not to be used.

Each test fails without its handling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.scannet as scannet
from converters.scannet.texts import scan_metadata
from datakit.errors import FormatError

from .scans import drain, open_scan, sens_file, write_hand, write_scan


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
