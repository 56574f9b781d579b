"""One test for every trap of the format and of the release, each of which fails without its handling."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import converters.co3dv2 as co3dv2
from converters.co3dv2.annotations import Viewpoint, parse_frame, parse_sequence
from converters.co3dv2.camera import intrinsics_of, pose_of
from converters.co3dv2.images import depth_codes
from converters.co3dv2.setlists import parse_list, split_of
from converters.co3dv2.write import ODD_CODES, file_number, write_jgz
from converters.native.halves import z_of_code
from datakit.errors import ConventionError, FormatError, LayoutError, QualityError, UsageError
from datakit.scene import encode_png, validate_scene, write_scene

from .takes import (
    FRAMES,
    PARAMS,
    SIZE,
    category,
    drain,
    edit,
    edit_frames,
    open_take,
    sequence,
    small_world,
    write_take,
)

ITEM: dict[str, Any] = {
    "sequence_name": "110_13051_23361",
    "frame_number": 3,
    "frame_timestamp": 0.5,
    "image": {"path": "a/s/images/frame000007.jpg", "size": [40, 30]},
    "depth": {"path": "a/s/depths/frame000007.jpg.geometric.png", "scale_adjustment": 1.0, "mask_path": None},
    "mask": {"path": "a/s/masks/frame000007.png", "mass": 10.0},
    "viewpoint": {
        "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "T": [0, 0, 5],
        "focal_length": [4, 4.5],
        "principal_point": [0.1, -0.2],
        "intrinsics_format": "ndc_isotropic",
    },
    "meta": {"frame_type": "train_known"},
}


def item(**changes: Any) -> dict[str, Any]:
    return {**ITEM, **changes}


def viewpoint(**changes: Any) -> Viewpoint:
    note = parse_frame(item(viewpoint={**ITEM["viewpoint"], **changes}), "x")
    assert note.viewpoint is not None
    return note.viewpoint


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_take(tmp_path / "raw")


# --- section 1 and 2: releases and trees ------------------------------------------------------------------------------


def test_trap_metadata_without_images_is_named(raw: Path) -> None:
    shutil.rmtree(sequence(raw))
    report = co3dv2.probe(raw)
    assert report.variant.startswith("annotations without images")
    with pytest.raises(LayoutError, match="No sequence of the annotations is here"):
        list(co3dv2.scenes(raw, PARAMS))


def test_trap_only_some_chunks_downloaded(tmp_path: Path) -> None:
    root = write_take(tmp_path, "category", *(small_world(s, num_frames=2, size=(16, 12)) for s in (1, 2)))
    shutil.rmtree(root / "apple" / "110_13051_23361")
    assert [ref.id for ref in co3dv2.scenes(root, PARAMS)] == ["apple-111_13058_23372"]
    assert "1 of 2 annotated sequences are not here" in co3dv2.probe(root).problems[0].what
    assert drain(root) == 2


def test_trap_variants_are_named(tmp_path: Path) -> None:
    worlds = [small_world(seed, num_frames=4, size=(16, 12)) for seed in range(3)]
    want = {
        "full": "part of the release: 2 of 51 categories, 3 sequences; set lists fewview_dev, fewview_train",
        "single-sequence": "single-sequence subset: 3 of 51 categories, 3 sequences; set lists manyview_dev_0",
        "category": "one category, apple: 1 of 51 categories, 3 sequences; set lists fewview_dev, fewview_train",
        "challenge": "one category, hydrant: 1 of 51 categories, 3 sequences; set lists fewview_test; "
        "challenge frames are redacted",
    }
    for form, variant in want.items():
        report = co3dv2.probe(write_take(tmp_path / form, form, *worlds))
        assert (report.variant, report.problems) == (variant, ())


def test_trap_root_is_a_category_itself(raw: Path) -> None:
    with pytest.raises(LayoutError, match=r'categories=\["apple"\]'):
        list(co3dv2.scenes(raw / "apple", PARAMS))
    assert 'categories=["apple"]' in co3dv2.probe(raw / "apple").problems[0].what


def test_trap_version_1_is_refused_by_name(raw: Path) -> None:
    (raw / "apple" / "set_lists.json").write_text("{}")
    with pytest.raises(LayoutError, match="CO3D version 1"):
        list(co3dv2.scenes(raw, PARAMS))
    assert "CO3D version 1" in co3dv2.probe(raw).problems[0].what


def test_trap_image_sizes_that_change_are_of_version_1(raw: Path) -> None:
    edit_frames(raw, lambda items: items[2]["image"].update(size=[64, 47]))
    with pytest.raises(ConventionError, match="version 1"):
        drain(raw)


def test_trap_file_number_is_not_frame_number(raw: Path, tmp_path: Path) -> None:
    """Cameras and times follow frame_number, whatever the files are called and in whatever order they are listed."""
    edit_frames(raw, lambda items: items.reverse())
    world = small_world()
    with open_take(raw, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.frame_names == tuple(f"frame{file_number(t):06d}" for t in range(FRAMES))
        assert [file_number(t) for t in range(4)] == [1, 2, 6, 7]
        assert scene.metadata["frame_numbers"] == list(range(FRAMES))
        assert np.abs(view.world_from_cam - world.views["camera"].world_from_cam).max() < 1e-6
        assert np.array_equal(view.times, world.times)


def test_trap_paths_come_from_the_annotation(raw: Path, tmp_path: Path) -> None:
    """A depth map under an unusual name is found where the annotation says."""
    folder = sequence(raw)
    (folder / "depths" / "frame000001.jpg.geometric.png").rename(folder / "depths" / "other.png")
    edit_frames(raw, lambda items: items[0]["depth"].update(path=f"apple/{folder.name}/depths/other.png"))
    with open_take(raw, tmp_path / "o") as scene:
        assert np.isfinite(scene.views["camera"].z_depth(0)).any()


def test_trap_categories_can_be_chosen(tmp_path: Path) -> None:
    root = write_take(tmp_path, "full", *(small_world(s, num_frames=1, size=(16, 12)) for s in (1, 2)))
    chosen = co3dv2.Params(categories=("teddybear",))
    assert [ref.id for ref in co3dv2.scenes(root, chosen)] == ["teddybear-111_13058_23372"]
    with pytest.raises(UsageError, match="No such category"):
        list(co3dv2.scenes(root, co3dv2.Params(categories=("pear",))))


# --- section 3: annotations -------------------------------------------------------------------------------------------


def test_trap_size_is_height_first() -> None:
    assert parse_frame(ITEM, "x").size == (30, 40)


def test_trap_nulls_and_unknown_keys() -> None:
    note = parse_frame(item(depth=None, mask=None, viewpoint=None, meta=None, new_key={"a": 1}), "x")
    assert (note.depth, note.mask, note.viewpoint, note.frame_type) == (None, None, None, "")
    bare = parse_sequence({"sequence_name": "s", "video": None, "point_cloud": None, "newer": 1}, "x")
    assert (bare.viewpoint_quality, bare.point_cloud_quality, bare.num_points) == (None, None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence_name": "../up"},
        {"sequence_name": None},
        {"frame_number": -1},
        {"frame_number": "3"},
        {"frame_number": True},
        {"frame_timestamp": "now"},
        {"image": None},
        {"image": {"path": "a\0b", "size": [4, 4]}},
        {"image": {"path": "a", "size": [4]}},
        {"image": {"path": "a", "size": [0, 4]}},
        {"image": {"path": "a", "size": [10**6, 10**6]}},
        {"depth": [1]},
        {"depth": {"path": "a", "scale_adjustment": 0}},
        {"depth": {"path": "a", "scale_adjustment": float("nan")}},
        {"viewpoint": {**ITEM["viewpoint"], "R": [[1, 0], [0, 1]]}},
        {"viewpoint": {**ITEM["viewpoint"], "T": "abc"}},
        {"viewpoint": {**ITEM["viewpoint"], "intrinsics_format": "pixels"}},
    ],
)
def test_malformed_annotations_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((FormatError, ConventionError)):
        parse_frame(item(**changes), "x")


def test_trap_nan_and_infinity_literals(raw: Path, tmp_path: Path) -> None:
    edit_frames(raw, lambda items: items[1]["viewpoint"].update(T=[float("nan"), 0, 1]))
    edit_frames(raw, lambda items: items[3]["viewpoint"].update(focal_length=[float("inf"), 1]))
    assert b"NaN" in gzip.decompress((category(raw) / "frame_annotations.jgz").read_bytes())
    with open_take(raw, tmp_path / "o") as scene:
        assert scene.views["camera"].pose_is_known.tolist() == [True, False, True, False, True]
        assert scene.metadata["poses_unknown"]["frame000002"] == "not finite"


# --- section 4: set lists ---------------------------------------------------------------------------------------------


def test_trap_train_frames_listed_under_test_count_once(raw: Path) -> None:
    (path,) = raw.rglob("set_lists_fewview_train.json")
    listing = json.loads(path.read_text())
    assert listing["train"] == listing["test"]
    (ref,) = co3dv2.scenes(raw, PARAMS)
    assert ref.split == "train"
    assert drain(raw, co3dv2.Params(subset="fewview_train")) == FRAMES


def test_trap_frames_repeated_within_a_list() -> None:
    found = parse_list(b'{"train": [["s", 1, "p"], ["s", 1, "p"], ["s", 0, "p"]], "val": []}', "x")
    assert found == {"s": {"train": (0, 1)}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"train": 1}',
        b'{"train": [["s"]]}',
        b'{"train": [[1, 1, "p"]]}',
        b'{"train": [["s", true]]}',
        b"[" * 9999,
    ],
)
def test_damaged_set_lists_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_list(data, "x")


def test_trap_a_sequence_tested_on_is_never_training(raw: Path) -> None:
    both = {"fewview_train": {"train": (0,)}, "manyview_test": {"test": (1,)}}
    assert split_of(both) == "test" and split_of({"fewview_dev": {}, "fewview_train": {}}) == "val"
    assert split_of({}) == "none"
    assert {
        subset: split_of({subset: {}}) for subset in ("fewview_test", "manyview_dev_1", "fewview_train")
    } == {
        "fewview_test": "test",
        "manyview_dev_1": "val",
        "fewview_train": "train",
    }
    shutil.rmtree(category(raw) / "set_lists")
    assert next(iter(co3dv2.scenes(raw, PARAMS))).split == "none"


def test_trap_subset_takes_only_its_frames(raw: Path, tmp_path: Path) -> None:
    (path,) = raw.rglob("set_lists_fewview_train.json")
    name = sequence(raw).name
    path.write_text(
        json.dumps({"train": [[name, 3, "p"], [name, 1, "p"]], "val": [], "test": [[name, 3, "p"]]})
    )
    with open_take(raw, tmp_path / "o", co3dv2.Params(subset="fewview_train")) as scene:
        assert scene.metadata["frame_numbers"] == [1, 3]
        assert scene.metadata["set_lists"] == {"fewview_train": {"train": [0, 1], "test": [1]}}
        assert scene.provenance["params"]["subset"] == "fewview_train"
    assert list(co3dv2.scenes(raw, co3dv2.Params(subset="fewview_dev"))) == []


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


# --- section 5: depth and masks ---------------------------------------------------------------------------------------


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


def test_trap_empty_depth_map_of_a_real_photo(raw: Path, tmp_path: Path) -> None:
    path = sequence(raw) / "depths" / "frame000002.jpg.geometric.png"
    path.write_bytes(encode_png(np.zeros(SIZE[::-1], np.uint16)))
    with open_take(raw, tmp_path / "o") as scene:
        assert scene.views["camera"].num_frames == FRAMES
        assert np.isnan(scene.views["camera"].z_depth(1)).all()


# --- section 6: cameras -----------------------------------------------------------------------------------------------


def test_trap_row_vectors_and_axes() -> None:
    """A camera at x = 3 that looks along -x with y up, worked out by hand."""
    # Columns of R are PyTorch3D's axes in the world: left (0, 0, 1), up (0, 1, 0), ahead (-1, 0, 0).
    rotation = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0.0]])
    translation = -np.array([3.0, 0, 0]) @ rotation
    pose, _ = pose_of(viewpoint(R=rotation.tolist(), T=translation.tolist()), PARAMS)
    assert pose is not None
    assert np.allclose(pose[:3, 3], [3, 0, 0])
    # OpenCV: right, down, ahead.
    assert np.allclose(pose[:3, :3].T, [[0, 0, -1], [0, -1, 0], [-1, 0, 0]])


@pytest.mark.parametrize("kind", ["ndc_isotropic", "ndc_norm_image_bounds", None])
@pytest.mark.parametrize("size", [(30, 40), (40, 30)])
def test_trap_all_intrinsics_formats(kind: str | None, size: tuple[int, int]) -> None:
    k = intrinsics_of(viewpoint(intrinsics_format=kind), size)
    unit = (15, 15) if kind == "ndc_isotropic" else (size[0] / 2, size[1] / 2)
    want = [
        [4 * unit[0], 0, size[0] / 2 - 0.1 * unit[0]],
        [0, 4.5 * unit[1], size[1] / 2 + 0.2 * unit[1]],
        [0, 0, 1],
    ]
    assert k is not None and np.allclose(k, want)


def test_trap_absent_format_is_the_legacy_one() -> None:
    given = {key: value for key, value in ITEM["viewpoint"].items() if key != "intrinsics_format"}
    note = parse_frame(item(viewpoint=given), "x")
    assert note.viewpoint is not None and note.viewpoint.format == "ndc_norm_image_bounds"


def test_trap_corner_origin_in_the_middle() -> None:
    """NDC 0 is the middle of the image, W / 2, not (W - 1) / 2."""
    k = intrinsics_of(viewpoint(principal_point=[0, 0]), (30, 40))
    assert k is not None and k[:2, 2].tolist() == [15, 20]


def test_trap_intrinsics_change_from_frame_to_frame(raw: Path, tmp_path: Path) -> None:
    with open_take(raw, tmp_path / "o") as scene:
        focal = scene.views["camera"].intrinsics[:, 0, 0]
        assert len(np.unique(focal)) == FRAMES


def test_trap_frame_without_viewpoint(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", no_viewpoint={1})
    with open_take(root, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.pose_is_known.tolist() == [True, False, True, True, True]
        assert np.isnan(view.world_from_cam[1]).all()
        assert np.array_equal(view.intrinsics[1], view.intrinsics[0])
        assert scene.metadata["intrinsics_of_a_neighbour"] == ["frame000002"]
        assert scene.metadata["poses_unknown"] == {"frame000002": "no viewpoint"}
    with pytest.raises(QualityError, match="has a camera"):
        drain(write_take(tmp_path / "r2", no_viewpoint=set(range(FRAMES))))


# --- section 8: defects and filters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "axis"), [(1, 0), (-1, 1), (-1, 2)])
def test_trap_far_cameras_of_either_sign(sign: int, axis: int) -> None:
    translation = [0.0, 0.0, 0.0]
    translation[axis] = sign * 2e5
    assert pose_of(viewpoint(T=translation), PARAMS) == (None, "T beyond 100000")
    pose, _ = pose_of(viewpoint(T=translation), co3dv2.Params(max_translation=1e6))
    assert pose is not None


@pytest.mark.parametrize("scale", [0.9, 1.1, -1.0])
def test_trap_rotations_that_are_none(scale: float) -> None:
    pose, why = pose_of(viewpoint(R=(np.cbrt(scale) * np.eye(3)).tolist()), PARAMS)
    assert pose is None and why.startswith("R is no rotation")


def test_trap_sheared_rotation_of_determinant_1() -> None:
    assert pose_of(viewpoint(R=[[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]), PARAMS)[0] is None


def test_trap_rotation_tolerance_is_a_parameter() -> None:
    rough = viewpoint(R=(np.cbrt(0.995) * np.eye(3)).tolist())
    pose, _ = pose_of(rough, PARAMS)
    assert pose is not None and np.abs(pose[:3, :3].T @ pose[:3, :3] - np.eye(3)).max() < 1e-12
    assert pose_of(rough, co3dv2.Params(rotation_tolerance=0.001))[0] is None


def test_trap_bad_poses_of_a_sequence_become_unknown(tmp_path: Path) -> None:
    root = write_take(tmp_path / "r", far={1}, skewed={4})
    with open_take(root, tmp_path / "o") as scene:
        assert scene.views["camera"].pose_is_known.tolist() == [True, False, True, True, False]
        assert list(scene.metadata["poses_unknown"]) == ["frame000002", "frame000008"]
        assert scene.provenance["params"]["rotation_tolerance"] == 0.01


@pytest.mark.parametrize(("score", "kept"), [(0.2, False), (0.5, False), (0.51, True), (None, False)])
def test_trap_viewpoint_quality_is_strict_and_can_be_null(
    tmp_path: Path, score: float | None, kept: bool
) -> None:
    root = write_take(
        tmp_path, "category", small_world(1, num_frames=1, size=(16, 12)), viewpoint_quality=score
    )
    assert len(list(co3dv2.scenes(root, co3dv2.Params(min_viewpoint_quality=0.5)))) == kept
    (ref,) = co3dv2.scenes(root, PARAMS)  # by default no sequence is left out
    assert co3dv2.read(root, ref, PARAMS).record.metadata["annotation"]["viewpoint_quality"] == score


def test_trap_point_cloud_quality(raw: Path) -> None:
    for least, kept in ((0.5, 1), (0.9, 0), (0.95, 0)):
        assert len(list(co3dv2.scenes(raw, co3dv2.Params(min_point_cloud_quality=least)))) == kept
    edit(category(raw) / "sequence_annotations.jgz", lambda items: items[0].update(point_cloud=None))
    assert not list(co3dv2.scenes(raw, co3dv2.Params(min_point_cloud_quality=0.5)))


@pytest.mark.parametrize("stamp", [0.0, 1 / 12, None, float("nan")], ids=["back", "equal", "null", "nan"])
def test_trap_timestamps_that_do_not_increase(raw: Path, tmp_path: Path, stamp: float | None) -> None:
    assert small_world().times[1] == 1 / 12
    edit_frames(raw, lambda items: items[2].update(frame_timestamp=stamp))
    with open_take(raw, tmp_path / "o") as scene:
        assert scene.time_kind == "set" and scene.metadata["times"].startswith("numbers")
        assert scene.views["camera"].times.tolist() == list(range(FRAMES))


def test_trap_missing_sequence_annotations(raw: Path) -> None:
    (category(raw) / "sequence_annotations.jgz").unlink()
    assert drain(raw) == FRAMES
    assert "no quality scores" in co3dv2.probe(raw).problems[0].what


def test_frames_of_a_sequence_need_not_be_together(tmp_path: Path) -> None:
    root = write_take(tmp_path, "category", *(small_world(s, num_frames=4, size=(16, 12)) for s in (1, 2)))
    edit_frames(root, lambda items: items.sort(key=lambda f: (f["frame_number"], f["sequence_name"])))
    refs = list(co3dv2.scenes(root, PARAMS))
    assert [len(ref.location["spans"]) for ref in refs] == [4, 4]
    assert [co3dv2.read(root, ref, PARAMS).record.metadata["frame_numbers"] for ref in refs] == [
        [0, 1, 2, 3]
    ] * 2


# --- untrusted trees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["images/frame000002.jpg", "depths/frame000002.jpg.geometric.png"])
def test_missing_file_is_named(raw: Path, gone: str) -> None:
    (sequence(raw) / gone).unlink()
    with pytest.raises(LayoutError, match="frame000002"):
        drain(raw)
    assert "frame000002" in co3dv2.probe(raw).problems[0].what


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "apple/../../x"])
@pytest.mark.parametrize("part", ["image", "depth", "mask"])
def test_paths_that_leave_the_root_are_refused(raw: Path, path: str, part: str) -> None:
    edit_frames(raw, lambda items: items[1][part].update(path=path))
    with pytest.raises(LayoutError, match="leaves"):
        drain(raw)


def test_frame_annotated_twice(raw: Path) -> None:
    edit_frames(raw, lambda items: items[2].update(frame_number=1))
    with pytest.raises(FormatError, match="twice"):
        drain(raw)


def test_annotations_that_changed_since_they_were_listed(raw: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    edit_frames(raw, lambda items: [i.update(sequence_name="1_2_3") for i in items])
    with pytest.raises(FormatError):
        co3dv2.read(raw, ref, PARAMS)
    (path,) = raw.rglob("frame_annotations.jgz")
    write_jgz(path, [])
    with pytest.raises(FormatError):
        co3dv2.read(raw, ref, PARAMS)


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


def test_fingerprint_follows_files_annotations_and_lists(raw: Path) -> None:
    def fingerprint() -> str:
        return next(iter(co3dv2.scenes(raw, PARAMS))).fingerprint

    seen = {fingerprint()}
    edit_frames(raw, lambda items: items[0]["viewpoint"].update(T=[0, 0, 1]))
    seen.add(fingerprint())
    with open(sequence(raw) / "images" / "frame000001.jpg", "ab") as file:
        file.write(b"\0")
    seen.add(fingerprint())
    (path,) = raw.rglob("set_lists_fewview_train.json")
    path.write_text('{"train": [["110_13051_23361", 0, "p"]]}')
    seen.add(fingerprint())
    edit(
        category(raw) / "sequence_annotations.jgz", lambda items: items[0].update(viewpoint_quality_score=0.1)
    )
    seen.add(fingerprint())
    assert len(seen) == 5


def test_probe_never_raises(tmp_path: Path, raw: Path) -> None:
    assert co3dv2.probe(tmp_path / "nothing").problems[0].severity == "error"
    (tmp_path / "empty").mkdir()
    assert co3dv2.probe(tmp_path / "empty").variant == "none"
    (category(raw) / "frame_annotations.jgz").write_bytes(b"\x1f\x8b")
    assert co3dv2.probe(raw).problems[0].severity == "error"


def test_wrong_use_is_refused(raw: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    with pytest.raises(UsageError):
        co3dv2.read(raw, replace(ref, location={}), PARAMS)
    with pytest.raises(LayoutError):
        list(co3dv2.scenes(raw / "nothing", PARAMS))


def test_frames_are_read_when_asked_for(raw: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    stream = co3dv2.read(raw, ref, PARAMS)
    assert len(stream.sources) == 1
    next(stream.frames)
    assert len(stream.sources) == 5
