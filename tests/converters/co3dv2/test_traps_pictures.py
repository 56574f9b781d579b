"""Traps of photos, depth maps and masks.

Each test fails without its handling.
"""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import converters.co3dv2 as co3dv2
from converters.co3dv2.images import depth_codes
from converters.co3dv2.write import ODD_CODES
from converters.native.halves import z_of_code
from datakit.errors import FormatError, LayoutError, QualityError
from datakit.scene import encode_png, validate_scene, write_scene

from .takes import FRAMES, PARAMS, SIZE, category, drain, open_take, sequence, write_take

# --- redacted frames --------------------------------------------------------------------------------------------------


def test_trap_redacted_frames_are_missing_not_data(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", "challenge")
    with open_take(root, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert scene.metadata["redacted_frames"] == ["frame000002", "frame000008"]
        assert scene.metadata["frame_numbers"] == [0, 2, 3] and view.num_frames == 3
        assert min(view.rgb(t).max() for t in range(3)) > 50
        assert "foreground" in view.layers


def test_trap_redacted_frame_with_a_zero_depth_map(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r")
    folder = sequence(root)
    black = simplejpeg.encode_jpeg(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), quality=95)
    (folder / "images" / "frame000002.jpg").write_bytes(black)
    with open_take(root, tmp_path / "o1") as scene:
        assert scene.metadata["redacted_frames"] == []  # black, but it has depth
    (folder / "depths" / "frame000002.jpg.geometric.png").write_bytes(
        encode_png(np.zeros(SIZE[::-1], np.uint16))
    )
    with open_take(root, tmp_path / "o2") as scene:
        assert scene.metadata["redacted_frames"] == ["frame000002"]


def test_trap_frame_without_depth_that_is_not_black_stays(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", no_depth={2})
    with open_take(root, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.num_frames == FRAMES and scene.metadata["frames_without_depth"] == ["frame000006"]
        assert np.isnan(view.z_depth(2)).all() and np.isfinite(view.z_depth(1)).any()
        assert not np.any(view.depth_confidence(2)) and np.any(view.depth_confidence(1))


def test_trap_sequence_of_redacted_frames_only(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", redacted=set(range(FRAMES)))
    with pytest.raises(QualityError, match="No frame is left"):
        drain(root)


# --- depth ------------------------------------------------------------------------------------------------------------


def test_trap_codes_are_half_floats(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", odd_codes={0})
    with open_take(root, tmp_path / "o") as scene:
        z = scene.views["camera"].z_depth(0)
        assert z is not None and ODD_CODES[4] == 0x03FF
        want = [np.nan, np.nan, np.nan, np.nan, 1023 / 1024 * 2.0**-14, 1.0, np.nan, np.nan]
        assert np.array_equal(z.reshape(-1)[:8], np.float32(want), equal_nan=True)
        assert np.isfinite(z.reshape(-1)[8:]).any()  # one NaN does not spoil the map


def test_trap_real_codes_of_the_issue() -> None:
    """co3d issue 25: codes 16490 and 22649 are 2.2 and 143, not millimetres."""
    data = encode_png(np.array([[16490, 22649]], np.uint16))
    z = z_of_code(1.0)[depth_codes(data, (2, 1), "x")]
    assert np.allclose(z, [[2.207, 143.125]], atol=0.001)


def test_trap_scale_adjustment_is_applied(tmp_path: Path) -> None:
    plain = write_take(tmp_path / "a")
    doubled = write_take(tmp_path / "b", depth_scale=2.0)
    with open_take(plain, tmp_path / "o1") as one, open_take(doubled, tmp_path / "o2") as two:
        a, b = one.views["camera"].z_depth(1), two.views["camera"].z_depth(1)
        assert np.array_equal(a, b, equal_nan=True)
    assert (
        json.loads(gzip.decompress((category(doubled) / "frame_annotations.jgz").read_bytes()))[0]["depth"][
            "scale_adjustment"
        ]
        == 2
    )


@pytest.mark.parametrize("kind", ["8 bits", "rgb", "size", "truncated", "exr", "crc"])
def test_trap_other_depth_files_are_refused(raw: Path, kind: str) -> None:
    path = sequence(raw) / "depths" / "frame000002.jpg.geometric.png"
    good = path.read_bytes()
    shape = SIZE[::-1]
    path.write_bytes(
        {
            "8 bits": encode_png(np.ones(shape, np.uint8)),
            "rgb": encode_png(np.ones((*shape, 3), np.uint16)),
            "size": encode_png(np.ones(SIZE, np.uint16)),
            "truncated": good[:-20],
            "exr": b"v/1\x01" + good,
            "crc": good[:60] + bytes([good[60] ^ 1]) + good[61:],
        }[kind]
    )
    with pytest.raises(FormatError):
        drain(raw)


def test_trap_empty_depth_map_of_a_real_photo(raw: Path, tmp_path: Path) -> None:
    path = sequence(raw) / "depths" / "frame000002.jpg.geometric.png"
    path.write_bytes(encode_png(np.zeros(SIZE[::-1], np.uint16)))
    with open_take(raw, tmp_path / "o") as scene:
        assert scene.views["camera"].num_frames == FRAMES
        assert np.isnan(scene.views["camera"].z_depth(1)).all()


# --- masks ------------------------------------------------------------------------------------------------------------


def test_trap_one_bit_masks_are_0_and_1(raw: Path, tmp_path: Path) -> None:
    data = (sequence(raw) / "depth_masks" / "frame000001.png").read_bytes()
    assert (data[24], data[25]) == (1, 0)
    with open_take(raw, tmp_path / "o") as scene:
        sure = scene.views["camera"].depth_confidence(0)
        assert sure is not None and set(np.unique(sure).tolist()) == {0.0, 1.0}


def test_trap_eight_bit_depth_masks(raw: Path, tmp_path: Path) -> None:
    for path in (sequence(raw) / "depth_masks").iterdir():
        buffer = io.BytesIO()
        Image.open(path).convert("L").save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
    with open_take(raw, tmp_path / "o") as scene:
        sure = scene.views["camera"].depth_confidence(0)
        assert sure is not None and set(np.unique(sure).tolist()) == {0.0, 1.0}


def test_trap_masks_of_two_kinds_are_refused(raw: Path) -> None:
    path = sequence(raw) / "depth_masks" / "frame000002.png"
    buffer = io.BytesIO()
    Image.open(path).convert("L").save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(FormatError, match="pixel format"):
        drain(raw)


def test_shares_beyond_1_break_the_contract(raw: Path, tmp_path: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    stream = co3dv2.read(raw, ref, PARAMS)
    view = stream.record.views["camera"]
    layers = {**view.layers, "foreground": replace(view.layers["foreground"], value_scale=(1 / 100,))}
    stream.record = replace(stream.record, views={"camera": replace(view, layers=layers)})
    write_scene(tmp_path / "s.h5", stream)
    problems = validate_scene(tmp_path / "s.h5")
    assert len(problems) == FRAMES and "foreground" in str(problems[0])


def test_trap_depth_masks_that_are_missing(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", no_depth_mask={1, 3})
    with open_take(root, tmp_path / "o") as scene:
        assert "depth_confidence" not in scene.views["camera"].layers
        assert scene.metadata["layers_left_out"] == {"depth_confidence": "2 of 5 frames have none"}
    with pytest.raises(LayoutError, match="depth_mask=apply"):
        drain(root, co3dv2.Params(depth_mask="apply"))


def test_trap_depth_mask_is_applied_only_when_asked(raw: Path, tmp_path: Path) -> None:
    with (
        open_take(raw, tmp_path / "a") as kept,
        open_take(raw, tmp_path / "b", co3dv2.Params(depth_mask="apply")) as cut,
    ):
        sure = kept.views["camera"].depth_confidence(1)
        a, b = kept.views["camera"].z_depth(1), cut.views["camera"].z_depth(1)
        assert a is not None and b is not None and sure is not None
        assert np.isfinite(a[sure == 0]).any() and np.isnan(b[sure == 0]).all()
        assert np.array_equal(a[sure > 0], b[sure > 0], equal_nan=True)
        assert cut.provenance["params"]["depth_mask"] == "apply"


# --- photos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        b"\xff\xd8\xff",
        simplejpeg.encode_jpeg(np.zeros((64, 48, 1), np.uint8), colorspace="GRAY"),
        simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)),
    ],
    ids=["truncated", "grey", "small"],
)
def test_damaged_photo_is_refused(raw: Path, image: bytes) -> None:
    (sequence(raw) / "images" / "frame000006.jpg").write_bytes(image)
    with pytest.raises(FormatError):
        drain(raw)
