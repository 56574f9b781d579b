"""One test for every way in which COLMAP's files, images and depth maps can mislead a reader."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import converters.colmap as colmap
from converters.colmap.lens import Lens
from converters.colmap.points import Seen, sparse_depth
from converters.colmap.reader import natural, times_of
from datakit import Visibility
from datakit.errors import ConventionError, DatakitError, FormatError, LayoutError, UsageError
from datakit.export.colmap_model import NO_POINT, ColmapCamera, write_depth_map
from datakit.scene import encode_png, validate_scene

from .workspaces import (
    CAMERA,
    PARAMS,
    drain,
    hand_image,
    hand_points,
    open_workspace,
    small_world,
    write_hand,
    write_workspace,
)

FAR = replace(CAMERA, id=9, params=(15.0, 14.0, 8.0, 5.0))


# --- files ----------------------------------------------------------------------------------------------------------


def test_trap_binary_wins_over_text(tmp_path: Path) -> None:
    shed = write_hand(tmp_path)
    for path in (shed / "sparse" / "0").iterdir():
        path.with_suffix(".txt").write_text("nonsense")
    (ref,) = colmap.scenes(tmp_path, PARAMS)
    assert ref.location["suffix"] == ".bin" and drain(tmp_path) == 3


@pytest.mark.parametrize("folder", ["sparse", "sparse/0", "sparse/1", "."])
def test_trap_models_lie_in_several_places(tmp_path: Path, folder: str) -> None:
    write_hand(tmp_path, folder=folder)
    (ref,) = colmap.scenes(tmp_path, PARAMS)
    assert ref.id == ("shed-1" if folder == "sparse/1" else "shed")
    (inner,) = colmap.scenes(tmp_path / "shed", PARAMS)
    assert inner.id == ref.id and drain(tmp_path / "shed") == 3


def test_trap_sparse_and_dense_of_one_workspace_are_two_scenes(tmp_path: Path) -> None:
    shed = write_hand(tmp_path)
    write_hand(tmp_path / "x", folder="sparse")
    (tmp_path / "x" / "shed").rename(shed / "dense")
    refs = {ref.id: ref.location for ref in colmap.scenes(tmp_path, PARAMS)}
    assert sorted(refs) == ["shed", "shed-dense"]
    assert refs["shed-dense"]["images"] == "shed/dense/images" and refs["shed"]["images"] == "shed/images"


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_trap_a_missing_file(tmp_path: Path, name: str) -> None:
    shed = write_hand(tmp_path)
    (shed / "sparse" / "0" / name).unlink()
    with pytest.raises(LayoutError):
        drain(tmp_path)
    assert colmap.probe(tmp_path).problems[0].severity == "error"


def test_trap_images_elsewhere(tmp_path: Path) -> None:
    shed = write_hand(tmp_path)
    (shed / "images").rename(tmp_path / "photos")
    with pytest.raises(LayoutError, match="--param images"):
        drain(tmp_path)
    assert drain(tmp_path, colmap.Params(images="photos")) == 3
    with pytest.raises(LayoutError, match="--param images"):
        drain(tmp_path, colmap.Params(images="nowhere"))


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "../images2/a.png"])
def test_trap_an_image_name_that_leaves_the_root(tmp_path: Path, name: str) -> None:
    write_hand(tmp_path / "in", [hand_image(1, "a.png")])
    folder = tmp_path / "in" / "shed" / "sparse" / "0" / "images.bin"
    (tmp_path / "secret.png").write_bytes(encode_png(np.zeros((12, 16, 3), np.uint8)))
    folder.write_bytes(folder.read_bytes().replace(b"a.png\0", name.encode() + b"\0"))
    with pytest.raises(LayoutError):
        drain(tmp_path / "in")


def test_trap_a_linked_image_that_leaves_the_root(tmp_path: Path) -> None:
    shed = write_hand(tmp_path / "in", [hand_image(1, "a.png")])
    (shed / "images" / "a.png").rename(tmp_path / "a.png")
    (shed / "images" / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(LayoutError, match="leaves"):
        drain(tmp_path / "in")


def test_trap_names_with_blanks_and_letters_beyond_ascii(tmp_path: Path) -> None:
    for as_text in (False, True):
        write_hand(
            tmp_path / str(as_text),
            [hand_image(1, "a b/Küche 1.png"), hand_image(2, "a b/Küche 2.png")],
            as_text=as_text,
        )
        with open_workspace(tmp_path / str(as_text), tmp_path / "out") as scene:
            assert scene.views["camera"].frame_names == ("a b/Küche 1.png", "a b/Küche 2.png")


def test_trap_text_images_with_empty_second_lines_comments_and_crlf(tmp_path: Path) -> None:
    """Known poses without features, as `colmap model_converter` and people write them."""
    write_hand(tmp_path, as_text=True)
    folder = tmp_path / "shed" / "sparse" / "0"
    lines = ["# a comment", "", "7 1 0 0 0 0.1 0 0 3 1.png", "", "8 1 0 0 0 0.2 0 0 3 2.png", ""]
    (folder / "images.txt").write_bytes("\r\n".join(lines).encode())
    (folder / "points3D.txt").write_text("# none\n")
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.frame_names == ("1.png", "2.png") and "z_depth" not in view.layers
        assert scene.metadata["depth"] == "none" and scene.motion.points_world is None
    assert "no depth" in colmap.probe(tmp_path).problems[0].what


# --- poses, cameras, views ------------------------------------------------------------------------------------------


def test_trap_poses_are_camera_from_world_and_scalar_first(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    image = hand_image(
        1, "a.png", quaternion_wxyz=np.array([half, 0, 0, half]), translation=np.array([1.0, 2, 3])
    )
    write_hand(tmp_path, [replace(image, uv_px=np.zeros((0, 2)), point_ids=np.zeros(0, np.int64))])
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        pose = scene.views["camera"].world_from_cam[0]
    # cam = Rz(90) world + t, so the centre is -Rz(-90) t.
    assert np.allclose(pose[:3, 3], [-2, 1, -3]) and np.allclose(pose[:3, 0], [0, -1, 0])


def test_trap_quaternions_are_not_quite_unit(tmp_path: Path) -> None:
    write_hand(tmp_path, [hand_image(1, "a.png", quaternion_wxyz=np.array([1.0, 2, 3, 4]) * 0.37)])
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        assert validate_scene(scene.path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"quaternion_wxyz": np.zeros(4)},
        {"quaternion_wxyz": np.array([np.nan, 0, 0, 1])},
        {"translation": np.array([0, np.inf, 0])},
        {"uv_px": np.full((4, 2), np.nan)},
        {"camera_id": 77},
        {"point_ids": np.array([5, 7, 9, 12])},
        {"point_ids": np.array([5, 7, 9, -2])},
    ],
    ids=lambda c: next(iter(c)),
)
def test_trap_an_image_that_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_hand(tmp_path, [hand_image(1, "a.png"), hand_image(2, "b.png", **changes)])
    with pytest.raises(DatakitError):
        drain(tmp_path)


def test_trap_the_same_image_or_camera_or_point_twice(tmp_path: Path) -> None:
    write_hand(tmp_path / "a", [hand_image(1, "a.png"), hand_image(2, "a.png")])
    with pytest.raises(ConventionError, match="twice"):
        drain(tmp_path / "a")
    shed = write_hand(tmp_path / "b", as_text=True)
    cameras = shed / "sparse" / "0" / "cameras.txt"
    cameras.write_text(cameras.read_text() * 2)
    with pytest.raises(FormatError, match="twice"):
        drain(tmp_path / "b")
    points = replace(hand_points(), ids=np.array([5, 5, 9, 11]))
    write_hand(tmp_path / "c", points=points)
    with pytest.raises(FormatError, match="twice"):
        drain(tmp_path / "c")


@pytest.mark.parametrize(
    "camera",
    [
        replace(CAMERA, params=(0.0, 14.0, 8.0, 6.0)),
        replace(CAMERA, params=(-15.0, 14.0, 8.0, 6.0)),
        replace(CAMERA, params=(1e9, 14.0, 8.0, 6.0)),
        replace(CAMERA, params=(15.0, 14.0, 80.0, 6.0)),
        replace(CAMERA, params=(15.0, np.nan, 8.0, 6.0)),
        replace(CAMERA, size=(0, 12)),
        replace(CAMERA, size=(2**31, 2**31)),
        ColmapCamera(3, "OPENCV", (16, 12), (15.0, 14.0, 8.0, 6.0, 1e6, 0.0, 0.0, 0.0)),
    ],
    ids=lambda c: f"{c.params[:4]}-{c.size}",
)
def test_trap_an_absurd_camera(tmp_path: Path, camera: ColmapCamera) -> None:
    shed = write_hand(tmp_path)
    from converters.colmap.model import read_model
    from datakit.export.colmap_model import ColmapModel, write_model

    model = read_model(tmp_path, Path("shed/sparse/0"), ".bin", [])
    write_model(shed / "sparse" / "0", ColmapModel({3: camera}, model.images, model.points))
    with pytest.raises(DatakitError):
        drain(tmp_path)


def test_trap_images_with_cameras_of_their_own_are_one_view(tmp_path: Path) -> None:
    write_hand(
        tmp_path,
        [hand_image(1, "a.png"), hand_image(2, "b.png", camera_id=9, point_ids=np.full(4, -1))],
        [CAMERA, FAR],
    )
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert len(scene.views) == 1 and view.intrinsics[:, 1, 2].tolist() == [6, 5]


def test_trap_another_size_lens_folder_or_format_is_another_view(tmp_path: Path) -> None:
    big = ColmapCamera(4, "PINHOLE", (20, 12), (15.0, 14.0, 10.0, 6.0))
    bent = ColmapCamera(5, "SIMPLE_RADIAL", (16, 12), (15.0, 8.0, 6.0, 0.01))
    more = replace(bent, id=6, params=(15.0, 8.0, 6.0, 0.02))
    none = {"uv_px": np.zeros((0, 2)), "point_ids": np.zeros(0, np.int64)}
    images = [
        hand_image(1, "a.png"),
        hand_image(2, "b.png", camera_id=4, **none),
        hand_image(3, "c.png", camera_id=5, **none),
        hand_image(4, "left/a.png"),
        hand_image(5, "d.jpg"),
        hand_image(6, "e.png", camera_id=6, **none),
    ]
    shed = write_hand(tmp_path, images, [CAMERA, big, bent, more])
    Image.new("RGB", (16, 12), (9, 9, 9)).save(shed / "images" / "d.jpg")
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        names = {name: view.frame_names for name, view in scene.views.items()}
        alone = ["a.png", "b.png", "c.png", "d.jpg", "e.png", "left/a.png"]
        assert sorted(names.values()) == [(name,) for name in alone]
        assert names["left"] == ("left/a.png",)
        assert validate_scene(scene.path) == []


# --- times ----------------------------------------------------------------------------------------------------------


def test_trap_names_sort_by_number() -> None:
    assert sorted(["f10.png", "f9.png", "a/2.png", "a/10.png"], key=natural) == [
        "a/2.png",
        "a/10.png",
        "f9.png",
        "f10.png",
    ]
    assert sorted(["9" * 5000, "1"], key=natural)[0] == "1"


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (
            ["f_0001.png", "f_0003.png", "f_0007.png"],
            [0.1, 0.3, 0.7],
        ),  # frames COLMAP did not register leave holes
        (["a.png", "b.png", "c.png"], [0, 0.1, 0.2]),
        (["1403636579763555584.png", "1403636579813555456.png"], [0, 0.1]),  # a clock, not a number of frames
        (["cam0_5.png", "cam1_5.png"], [0, 0.1]),
        (["20240101.png", "20240102.png"], [0, 0.1]),  # a date
    ],
)
def test_trap_times_of_a_video_are_in_its_names(names: list[str], times: list[float]) -> None:
    params = colmap.Params(time_kind="sequence", frame_rate=10)
    assert np.allclose(times_of(names, params), times)
    assert times_of(names, PARAMS).tolist() == list(range(len(names)))


def test_sequences_and_unknown_motion(tmp_path: Path) -> None:
    write_hand(tmp_path)
    params = colmap.Params(
        time_kind="sequence", static=False, scale="metric", licence="CC0-1.0", citation="me"
    )
    with open_workspace(tmp_path, tmp_path / "out", params) as scene:
        assert (scene.time_kind, scene.scale, scene.licence, scene.citation) == (
            "sequence",
            "metric",
            "CC0-1.0",
            "me",
        )
        assert (
            scene.motion.instance_motion.tolist() == [0] and np.isnan(scene.motion.world_from_instance).all()
        )
        assert scene.motion.points_world is None and len(scene.motion.times) == 3
        assert scene.views["camera"].motion_index.tolist() == [0, 1, 2]


# --- points and depth -----------------------------------------------------------------------------------------------


def test_trap_points_are_drawn_where_they_project_nearest_first() -> None:
    lens = Lens("pinhole", np.array([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]]), (), (16, 12))
    cam = np.array([[0, 0, 5.0], [0, 0, 2], [0, 0, 3], [0.79, 0, 1], [0.81, 0, 1], [-0.81, 0, 1], [0, 0, -4]])
    z = sparse_depth(Seen(np.arange(7), cam), lens)
    assert z[6, 8] == 2 and z[6, 15] == 1 and np.isfinite(z).sum() == 2


@pytest.mark.parametrize("as_text", [False, True])
def test_trap_points_come_in_any_order_with_gaps(tmp_path: Path, as_text: bool) -> None:
    points = hand_points(4)
    images = [hand_image(k, f"{k}.png", points=points) for k in (1, 2, 3)]
    shuffled = [2, 0, 3, 1]
    mixed = replace(points, ids=points.ids[shuffled], xyz=points.xyz[shuffled])
    write_hand(tmp_path, images, points=mixed, as_text=as_text)
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        assert np.allclose(scene.motion.points_world[:, 0], points.xyz)
        assert (scene.motion.point_state["camera"] == Visibility.VISIBLE).all()


def test_trap_observations_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    """Wrong matches, points behind the camera, points of one image; 2D points without a 3D point; seen twice."""
    points = hand_points(6)
    points.xyz[5] = [0, 0, -4]
    images = [hand_image(k, f"{k}.png", points=points) for k in (1, 2, 3)]
    off = images[0].uv_px.copy()
    off[0] += 5
    single = images[1].point_ids.copy(), images[2].point_ids.copy()
    single[0][1] = single[1][1] = NO_POINT
    images[0] = replace(images[0], uv_px=off)
    images[1] = replace(images[1], point_ids=single[0])
    images[2] = replace(
        images[2],
        point_ids=np.append(single[1], single[1][2]),
        uv_px=np.vstack([images[2].uv_px, images[2].uv_px[2]]),
    )
    write_hand(tmp_path, images, points=points)
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        state = scene.motion.point_state["camera"] == Visibility.VISIBLE
        assert np.allclose(scene.motion.points_world[:, 0], points.xyz[[0, 2, 3, 4]])
        assert state.tolist() == [[False, True, True], [True] * 3, [True] * 3, [True] * 3]
        assert np.isfinite(scene.views["camera"].z_depth(0)).sum() == 3
    with open_workspace(
        tmp_path, tmp_path / "2", colmap.Params(max_reprojection_error=10, min_track_length=1)
    ) as scene:
        assert len(scene.motion.points_world) == 5
    with open_workspace(tmp_path, tmp_path / "3", colmap.Params(max_points=2)) as scene:
        assert (
            len(scene.motion.points_world) == 2 and np.isfinite(scene.views["camera"].z_depth(0)).sum() == 3
        )


def _dense(root: Path, sizes: dict[str, tuple[int, int]], kind: str = "geometric") -> None:
    for name, (width, height) in sizes.items():
        z = np.full((height, width), 4.0, np.float32)
        z[0, 0], z[0, 1], z[1, 0] = 0, -1, np.inf
        path = root / "shed" / "stereo" / "depth_maps" / f"{name}.{kind}.bin"
        write_depth_map(path, z)
        data = path.read_bytes()
        path.write_bytes(data[: data.rindex(b"&") + 1] + z.tobytes())


def test_trap_depth_maps_have_zero_negative_and_infinite_values(tmp_path: Path) -> None:
    write_hand(tmp_path)
    _dense(tmp_path, {f"{k}.png": (16, 12) for k in (1, 2, 3)})
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        z = scene.views["camera"].z_depth(0)
        assert np.isnan(z[0, :2]).all() and np.isnan(z[1, 0]) and np.isfinite(z).sum() == 16 * 12 - 3
        assert validate_scene(scene.path) == []


def test_trap_an_image_without_a_depth_map_has_no_depth(tmp_path: Path) -> None:
    write_hand(tmp_path)
    _dense(tmp_path, {"1.png": (16, 12), "3.png": (16, 12)})
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        assert np.isnan(scene.views["camera"].z_depth(1)).all()
        assert scene.metadata["num_images_without_depth_map"] == 1


def test_trap_which_depth_maps(tmp_path: Path) -> None:
    write_hand(tmp_path)
    _dense(tmp_path, {f"{k}.png": (16, 12) for k in (1, 2, 3)}, "photometric")
    with open_workspace(tmp_path, tmp_path / "1") as scene:
        assert scene.metadata["depth"] == "points"
    with open_workspace(tmp_path, tmp_path / "2", colmap.Params(depth_maps="photometric")) as scene:
        assert scene.metadata["depth"] == "photometric depth maps"
    with pytest.raises(LayoutError, match="no dense depth"):
        drain(tmp_path, colmap.Params(depth="dense"))
    with open_workspace(tmp_path, tmp_path / "3", colmap.Params(depth="none")) as scene:
        assert "z_depth" not in scene.views["camera"].layers


def test_trap_depth_maps_of_several_sizes(tmp_path: Path) -> None:
    write_hand(tmp_path)
    _dense(tmp_path, {"1.png": (16, 12), "2.png": (8, 6)})
    with pytest.raises(FormatError, match="several sizes"):
        drain(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"16&12&1",
        b"16&12&3&" + bytes(16 * 12 * 12),
        b"16&12&1&" + bytes(767),
        b"16&12&1&" + bytes(769),
        b"0&12&1&",
        b"999999999&999999999&1&",
    ],
    ids=lambda d: d[:12].decode() + f"+{len(d)}",
)
def test_trap_a_broken_depth_map(tmp_path: Path, data: bytes) -> None:
    write_hand(tmp_path)
    _dense(tmp_path, {"1.png": (16, 12)})
    (tmp_path / "shed" / "stereo" / "depth_maps" / "1.png.geometric.bin").write_bytes(data)
    with pytest.raises(FormatError):
        drain(tmp_path)


def test_trap_dense_maps_of_distorted_images_that_are_to_be_rectified(tmp_path: Path) -> None:
    bent = ColmapCamera(3, "SIMPLE_RADIAL", (16, 12), (15.0, 8.0, 6.0, 0.01))
    write_hand(tmp_path, cameras=[bent])
    _dense(tmp_path, {"1.png": (16, 12)})
    assert drain(tmp_path) == 3
    pytest.importorskip("pycolmap")
    with pytest.raises(ConventionError, match="still distorted"):
        drain(tmp_path, colmap.Params(distortion="undistort"))


# --- images ---------------------------------------------------------------------------------------------------------


def test_trap_resized_images(tmp_path: Path) -> None:
    """images_2, images_4 ... of other tools, beside a model of the full size."""
    shed = write_hand(tmp_path)
    for path in (shed / "images").iterdir():
        path.write_bytes(encode_png(np.full((6, 8, 3), 50, np.uint8)))
    with pytest.raises(ConventionError, match="allow_resized"):
        drain(tmp_path)
    with open_workspace(tmp_path, tmp_path / "out", colmap.Params(allow_resized=True)) as scene:
        view = scene.views["camera"]
        assert view.size == (8, 6) and np.allclose(view.intrinsics[0], [[7.5, 0, 4], [0, 7, 3], [0, 0, 1]])
        assert np.isfinite(view.z_depth(0)).any()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "RGB"])
def test_trap_grey_and_palette_images_become_rgb(tmp_path: Path, mode: str) -> None:
    shed = write_hand(tmp_path)
    grey = np.arange(192, dtype=np.uint8).reshape(12, 16)
    rgb = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    image = Image.fromarray(rgb).convert(mode)
    for k in (1, 2, 3):
        image.save(shed / "images" / f"{k}.png")
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert np.array_equal(view.rgb(1), np.asarray(image.convert("RGB")))
        passes = mode in ("RGB", "RGBA")
        assert (view.encoded("rgb", 0) == (shed / "images" / "1.png").read_bytes()) == passes
        assert scene.metadata["num_images_encoded_again"] == (0 if passes else 3)


def test_trap_grey_jpeg(tmp_path: Path) -> None:
    shed = write_hand(tmp_path, [hand_image(1, "a.jpg")])
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16))
    image.save(shed / "images" / "a.jpg", quality=95)
    with open_workspace(tmp_path, tmp_path / "out") as scene:
        assert np.array_equal(
            scene.views["camera"].rgb(0)[..., 1], np.asarray(Image.open(shed / "images" / "a.jpg"))
        )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"BM" + bytes(100), "neither PNG nor JPEG"),
        (b"", "neither PNG nor JPEG"),
        (encode_png(np.zeros((12, 16, 3), np.uint16)), "16 bits"),
        (encode_png(np.zeros((12, 16, 3), np.uint8))[:-20], "truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "JPEG"),
    ],
)
def test_trap_images_that_are_none(tmp_path: Path, data: bytes, words: str) -> None:
    shed = write_hand(tmp_path)
    (shed / "images" / "2.png").write_bytes(data)
    with pytest.raises(FormatError, match=words) as caught:
        drain(tmp_path)
    assert "2.png" in str(caught.value)


def test_trap_a_missing_image(tmp_path: Path) -> None:
    shed = write_hand(tmp_path)
    (shed / "images" / "2.png").unlink()
    with pytest.raises(LayoutError, match="2.png"):
        drain(tmp_path)


# --- the extra ------------------------------------------------------------------------------------------------------


def test_without_pycolmap_pinholes_are_read_and_lenses_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    write_hand(tmp_path / "a")
    assert drain(tmp_path / "a") == 3
    bent = ColmapCamera(3, "SIMPLE_RADIAL", (16, 12), (15.0, 8.0, 6.0, 0.01))
    write_hand(tmp_path / "b", cameras=[bent])
    for distortion in ("keep", "undistort"):
        with pytest.raises(UsageError, match=r"datakit\[colmap\]"):
            drain(tmp_path / "b", colmap.Params(distortion=distortion))


# --- damaged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_trap_counts_beyond_the_file(tmp_path: Path, name: str) -> None:
    shed = write_hand(tmp_path)
    path = shed / "sparse" / "0" / f"{name}.bin"
    data = path.read_bytes()
    for bad in (struct.pack("<Q", 2**61) + data[8:], data[:-1], data + b"\0", data[:5]):
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=r"truncated|left over|does not end"):
            drain(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cameras", "3 PINHOLE 16 12 15 14 8\n"),
        ("cameras", "3 NO_MODEL 16 12 15 14 8 6\n"),
        ("cameras", "3 PINHOLE 1_6 12 15 14 8 6\n"),
        ("cameras", "x PINHOLE 16 12 15 14 8 6\n"),
        ("images", "1 1 0 0 0 0 0 0 3\n\n"),
        ("images", "1 1 0 0 0 0 0 0 3 1.png\n1 2\n"),
        ("images", "1 1 0 0 0 0 0 0 3 1.png\n1 2 5.5\n"),
        ("points3D", "5 0 0 4 9 9\n"),
        ("points3D", "5 0 zero 4 9 9 9 0.5\n"),
        ("points3D", f"{'9' * 5000} 0 0 4 9 9 9 0.5\n"),
    ],
)
def test_trap_malformed_lines(tmp_path: Path, name: str, text: str) -> None:
    shed = write_hand(tmp_path, as_text=True)
    (shed / "sparse" / "0" / f"{name}.txt").write_text(text)
    with pytest.raises(FormatError, match="line") as caught:
        drain(tmp_path)
    assert f"{name}.txt, line 1" in str(caught.value)


def test_probe_names_what_is_there(tmp_path: Path) -> None:
    write_workspace(tmp_path, "dense", small_world(1, num_frames=2, size=(16, 12)))
    write_hand(tmp_path, as_text=True)
    probe = colmap.probe(tmp_path)
    assert probe.problems == () and probe.num_scenes == {"none": 2} and probe.num_bytes > 1000
    for part in ("binary model (1)", "text model (1)", "geometric depth maps (1)", "points (1)"):
        assert part in probe.variant
    assert colmap.probe(tmp_path / "nothing").problems[0].severity == "error"
    (tmp_path / "empty").mkdir()
    assert "no COLMAP models" in colmap.probe(tmp_path / "empty").problems[0].what
