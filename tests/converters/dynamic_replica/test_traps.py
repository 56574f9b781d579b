"""The traps of the format, one by one: each fails where its handling is taken away."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import datakit
from converters import dynamic_replica as dr
from converters.dynamic_replica import annotations, discover, rasters, trajectories
from converters.dynamic_replica.write import break_depth
from converters.native.files import has_file, inside, read_source
from converters.native.halves import z_of_code
from datakit.errors import ConventionError, DatakitError, FormatError, LayoutError
from datakit.motion import MotionKind, Visibility
from datakit.scene import encode_png
from datakit.worlds import World

from .conftest import convert, only_scene
from .snippets import ROW, SIZE


def _copy(natives: dict[str, Path], out: Path) -> Path:
    shutil.copytree(natives["split"], out)
    return out


def _edit_rows(root: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Path:
    path = next(root.rglob("frame_annotations_valid.jgz"))
    rows = json.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(json.dumps([r for r in map(edit, rows) if r is not None]).encode()))
    return root


def _source(root: Path, eye: str = "left") -> Path:
    return next(root.rglob(f"*_source_{eye}"))


@pytest.mark.parametrize("entry", [None, "p", {"path": "p"}, {"path": None}, {}])
def test_paths_are_null_strings_or_objects(entry: Any) -> None:
    want = "p" if entry in ("p", {"path": "p"}) else None
    assert annotations.path_of(entry) == want


def test_depth_is_a_bit_pattern_with_every_code_for_unknown() -> None:
    bits = np.array([[0x0000, 0x8000, 0x7C00, 0x7E00, 0xBC00, 0x3C00, 0x4200, 0x0001]], np.uint16)
    codes = rasters.depth_codes(encode_png(bits), (8, 1), "x")
    z = z_of_code(1.0, rasters.NEAREST)[codes]
    # 1 and 3 metres; the smallest subnormal is below 1e-5.
    np.testing.assert_array_equal(z[0], [np.nan] * 5 + [1.0, 3.0, np.nan])
    assert z_of_code(2.0, rasters.NEAREST)[codes][0, 6] == 6.0


def test_an_8_bit_depth_is_refused() -> None:
    with pytest.raises(FormatError, match="16-bit"):
        rasters.depth_codes(encode_png(np.zeros((2, 2), np.uint8)), (2, 2), "x")
    with pytest.raises(FormatError, match="size"):
        rasters.depth_codes(encode_png(np.zeros((2, 2), np.uint16)), (3, 2), "x")


def test_flow_is_dx_beside_dy_and_masked() -> None:
    both = np.array([[1.5, -2.0, 0.25, -0.5]], np.float16).view(np.uint16)
    mask = encode_png(np.array([[255, 0]], np.uint8))
    flow = rasters.flow_codes(encode_png(both), mask, (2, 1), "x").view(np.float16)
    np.testing.assert_array_equal(flow, [[[1.5, 0.25], [np.nan, np.nan]]])
    # Any value above zero is valid.
    one = rasters.flow_codes(encode_png(both), encode_png(np.array([[1, 1]], np.uint8)), (2, 1), "x").view(
        np.float16
    )
    np.testing.assert_array_equal(one, [[[1.5, 0.25], [-2.0, -0.5]]])


def test_cameras_are_row_vectors_with_x_left_and_y_up() -> None:
    # Two units in front of the origin, looking at it along PyTorch3D's +z.
    view = {"R": np.eye(3).tolist(), "T": [0.5, 0.0, 2.0]}
    pose = annotations.world_from_cam(view, "x")
    np.testing.assert_allclose(pose[:3, 3], [-0.5, 0, -2], atol=1e-12)
    np.testing.assert_allclose(pose[:3, :3], np.diag([-1, -1, 1]), atol=1e-12)
    turned = {"R": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], "T": [0, 0, 0]}
    # x_cam = x R + T: the world's x axis is PyTorch3D's camera y (up), so OpenCV's -y.
    np.testing.assert_allclose(annotations.world_from_cam(turned, "x")[:3, 1], [-1, 0, 0], atol=1e-12)
    with pytest.raises(ConventionError, match="rotation"):
        annotations.world_from_cam({"R": np.diag([1.0, 1, -1]).tolist(), "T": [0, 0, 0]}, "x")


def test_both_intrinsics_formats() -> None:
    view = {"focal_length": [2.0, 2.0], "principal_point": [0.1, -0.2], "intrinsics_format": "ndc_isotropic"}
    want = [[40.0, 0, 38.0], [0, 40.0, 24.0], [0, 0, 1]]
    np.testing.assert_allclose(annotations.intrinsics(view, (80, 40), "x"), want)
    view["intrinsics_format"] = "ndc_norm_image_bounds"
    want = [[80.0, 0, 36.0], [0, 40.0, 24.0], [0, 0, 1]]
    np.testing.assert_allclose(annotations.intrinsics(view, (80, 40), "x"), want)
    view["intrinsics_format"] = "screen"
    with pytest.raises(ConventionError, match="intrinsics_format"):
        annotations.intrinsics(view, (80, 40), "x")


def test_a_visible_flag_outside_the_picture_is_outside(natives: dict[str, Path]) -> None:
    root = natives["split"]
    (row, *_) = annotations.rows_of(next(root.rglob("*.jgz")), only_scene(root).location["sequence"])
    ahead, aside = row.world_from_cam[:3, 2], row.world_from_cam[:3, 0]
    eye = row.world_from_cam[:3, 3]
    points = np.array([eye + 3 * ahead, eye + 3 * ahead, eye + 3 * ahead + 30 * aside, eye - 3 * ahead])
    vertices = trajectories.Vertices(
        points.astype(np.float32), np.array([True, False, True, True]), np.ones(4, np.uint32)
    )
    want = [Visibility.VISIBLE, Visibility.OCCLUDED, Visibility.OUTSIDE, Visibility.OUTSIDE]
    np.testing.assert_array_equal(trajectories.states(row, vertices), want)


def test_occluded_vertices_keep_their_place(scene_files: dict[str, Path]) -> None:
    with datakit.open_scene(scene_files["split"]) as scene:
        hidden = scene.motion.point_state["left"] == Visibility.OCCLUDED
        assert hidden.any() and np.isfinite(scene.motion.points_world[hidden]).all()


def test_a_pickle_that_would_run_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    root = _copy(natives, tmp_path / "n")
    victim = next(_source(root).glob("trajectories/*.pth"))
    torch.save({"traj_3d_world": Trap()}, victim)
    with pytest.raises(FormatError, match="trajectory"):
        convert(root, tmp_path / "out.h5")
    victim.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FormatError, match="zip"):
        convert(root, tmp_path / "out.h5")
    assert not (tmp_path / "ran").exists()


def test_an_archive_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(FormatError, match="compressed"):
        trajectories.read_vertices(buffer.getvalue(), "x")


def test_pickled_instance_tables_are_never_opened(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    for path in _source(root).glob("instance_id_maps/*.png"):
        path.with_suffix(".pkl").write_bytes(b"not even a pickle")
    convert(root, tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traj_3d_world", torch.zeros(7, 2)),
        ("verts_inds_vis", torch.zeros(3, dtype=torch.bool)),
        ("instances", torch.tensor([0.5] * 7)),
        ("instances", None),
    ],
)
def test_tensors_must_fit(name: str, value: Any, tmp_path: Path) -> None:
    good = {
        "traj_3d_world": torch.zeros(7, 3),
        "verts_inds_vis": torch.zeros(7, dtype=torch.bool),
        "instances": torch.ones(7),
    }
    torch.save(good, tmp_path / "a.pth")
    trajectories.read_vertices((tmp_path / "a.pth").read_bytes(), "x")
    torch.save({**good, name: value}, tmp_path / "b.pth")
    with pytest.raises(FormatError):
        trajectories.read_vertices((tmp_path / "b.pth").read_bytes(), "x")


def test_vertices_that_change_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    victim = sorted(_source(root).glob("trajectories/*.pth"))[2]
    content = torch.load(victim, weights_only=True)
    torch.save({name: value if name == "img" else value[:-1] for name, value in content.items()}, victim)
    with pytest.raises(ConventionError, match="change"):
        convert(root, tmp_path / "out.h5")


def test_broken_depth_is_left_unknown_and_named(
    natives: dict[str, Path], tmp_path: Path, world: World
) -> None:
    root = _copy(natives, tmp_path / "n")
    break_depth(root / "valid", world, 0)
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        assert scene.metadata["broken_depth_frames"] == [0]
        assert np.isnan(scene.views["left"].z_depth(0)).all()
        assert np.isfinite(scene.views["left"].z_depth(1)).any()
        assert np.isfinite(scene.views["right"].z_depth(0)).any()


def test_missing_maps_make_motion_unknown_there(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    sorted(_source(root).glob("instance_id_maps/*.png"))[-1].unlink()
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        view, motion = scene.views["left"], scene.motion
        (ident,) = np.unique(view.instances(view.num_frames - 1))
        assert motion.instance_motion[list(motion.instance_ids).index(ident)] == MotionKind.UNKNOWN
        assert ident not in view.instances(0)


def test_without_trajectories_motion_is_unknown(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    shutil.rmtree(_source(root) / "trajectories")
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        assert (scene.motion.instance_motion == MotionKind.UNKNOWN).all()
        assert scene.motion.points_world is None
    assert any("trajectories" in p.where for p in dr.probe(root).problems)


def test_frames_whose_picture_is_missing_are_dropped(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    sorted(_source(root).glob("images/*.png"))[1].unlink()
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        view = scene.views["left"]
        assert view.frame_names == ("0000", "0002", "0003")
        assert list(view.motion_index) == [0, 2, 3]
        assert scene.motion.point_state["left"].shape[1] == 3


def test_one_eye_alone(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    with datakit.open_scene(convert(root, tmp_path / "left.h5", views="left")) as scene:
        assert list(scene.views) == ["left"]
    shutil.rmtree(_source(root, "right"))
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        assert list(scene.views) == ["left"]


def test_rows_in_any_order_and_of_other_sequences(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    path = next(root.rglob("*.jgz"))
    rows = json.loads(gzip.decompress(path.read_bytes()))
    other = [{**row, "sequence_name": "ffffff-1_obj"} for row in rows]
    path.write_bytes(gzip.compress(json.dumps((rows + other)[::-1], indent=2).encode()))
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        assert scene.views["left"].frame_names == ("0000", "0001", "0002", "0003")


def test_a_frame_annotated_twice_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    path = next(root.rglob("*.jgz"))
    rows = json.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(json.dumps([*rows, rows[0]]).encode()))
    with pytest.raises(FormatError, match="twice"):
        convert(root, tmp_path / "out.h5")


@pytest.mark.parametrize(
    "text", [None, b"", b"no gzip", b"{}", b"[1]", b'[{"a": 1}', b'[{"a'], ids=lambda text: repr(text)
)
def test_annotations_cut_off_or_of_another_form(text: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "frame_annotations_valid.jgz"
    if text is None:
        path.write_bytes(gzip.compress(b'[{"a": 1}, {"b": 2}]')[:-9])
    else:
        path.write_bytes(text if text == b"no gzip" else gzip.compress(text))
    with pytest.raises(FormatError):
        list(annotations.objects(path))


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000])
def test_annotations_beyond_pythons_limits(value: str, tmp_path: Path) -> None:
    path = tmp_path / "frame_annotations_valid.jgz"
    path.write_bytes(gzip.compress(f'[{{"a": {value}}}]'.encode()))
    with pytest.raises(FormatError, match="cannot be parsed"):
        list(annotations.objects(path))


def test_an_endless_object_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "frame_annotations_valid.jgz"
    path.write_bytes(gzip.compress(b'[{"a": "' + b"x" * 30_000_000))
    with pytest.raises(FormatError, match="object"):
        list(annotations.objects(path))


def test_a_path_that_leaves_the_root_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(natives, tmp_path / "n")
    (tmp_path / "secret.png").write_bytes(b"x")

    def edit(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "image": {**row["image"], "path": "../../secret.png"}}

    with pytest.raises(LayoutError, match="leaves"):
        convert(_edit_rows(root, edit), tmp_path / "out.h5")


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "\u4e00" * 100, "a\0b", "\ud800", "x/" * 3000])
def test_names_that_no_file_can_have_are_of_none(name: str, tmp_path: Path) -> None:
    """Found by fuzzing: pathlib raises for some of them, the system for others."""
    assert not has_file(tmp_path, name)
    with pytest.raises(LayoutError, match="cannot be read"):
        read_source(tmp_path, name, [])
    with pytest.raises(LayoutError, match="leaves"):
        inside(tmp_path, f"../{name}")


def test_flat_trees_read_the_split_from_the_annotations(natives: dict[str, Path], tmp_path: Path) -> None:
    ref = only_scene(natives["flat"])
    assert ref.split == "valid"
    assert ref.id == only_scene(natives["split"]).id
    shutil.copytree(natives["flat"], tmp_path / "n")
    for path in (tmp_path / "n").glob("*_source_*"):
        shutil.rmtree(path)
    discover._annotated.cache_clear()
    assert list(dr.scenes(tmp_path / "n", dr.Params())) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"image": {"path": "a", "size": [0, 6]}}, FormatError),
        ({"image": {"path": "a", "size": [4.5, 6]}}, FormatError),
        ({"image": {"path": "a", "size": [1e300, 6]}}, FormatError),
        ({"depth": {"path": "a", "scale_adjustment": 0}}, ConventionError),
        ({"depth": {"path": "a", "scale_adjustment": -1.0}}, ConventionError),
    ],
)
def test_rows_with_absurd_numbers(changes: dict[str, Any], error: type[DatakitError]) -> None:
    assert annotations._row(ROW, "x").size == SIZE
    with pytest.raises(error, match=r"image\.size|scale_adjustment"):
        annotations._row({**ROW, **changes}, "x")


def test_wrong_roots(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="No Dynamic Replica"):
        list(dr.scenes(tmp_path, dr.Params()))
    assert dr.probe(tmp_path / "none").problems
