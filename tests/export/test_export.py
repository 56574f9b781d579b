"""Scene -> COLMAP or nerfstudio -> the same scene; read back by our converter, by pycolmap, and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converters.colmap as colmap
import converters.scannet as scannet
from datakit import Visibility
from datakit import geometry as g
from datakit.errors import ConventionError, QualityError, UsageError
from datakit.export import export_colmap, export_nerfstudio
from datakit.scene import LayerRecord, Scene, encode_png, open_scene, write_scene
from datakit.scene.records import Frame
from datakit.worlds import World, random_world, world_scene_stream
from tests.tiny import tiny_stream, write_tiny

PARAMS = colmap.Params(time_kind="sequence", frame_rate=12)


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(1, num_frames=4, size=(64, 48), motion="static", lens="general")


@pytest.fixture(scope="module")
def scene(world: World, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    path = tmp_path_factory.mktemp("scene") / "s.h5"
    write_scene(path, world_scene_stream(world))
    return open_scene(path)


def back(root: Path, out: Path, params: Any = PARAMS) -> Scene:
    (ref,) = colmap.scenes(root, params)
    write_scene(out, colmap.read(root, ref, params))
    return open_scene(out)


@pytest.mark.parametrize("as_text", [False, True], ids=["binary", "text"])
def test_colmap_round_trip(scene: Scene, tmp_path: Path, as_text: bool) -> None:
    done = export_colmap(scene, tmp_path / "out", as_text=as_text)
    assert (done.num_frames, done.num_without_pose, done.resampled_depth) == (4, 0, ())
    view = scene.views["camera"]
    with back(tmp_path, tmp_path / "b.h5") as again:
        other = again.views["camera"]
        assert np.abs(other.world_from_cam - view.world_from_cam).max() < 1e-9
        assert np.abs(other.intrinsics - view.intrinsics).max() < 1e-9
        assert other.size == view.size and other.depth_size == view.depth_size
        for t in range(4):
            assert other.encoded("rgb", t) == view.encoded("rgb", t)
            assert np.array_equal(other.z_depth(t), view.z_depth(t), equal_nan=True)
        assert other.frame_names == tuple(f"{name}.png" for name in view.frame_names)


def test_points_lie_on_surfaces_and_are_seen_where_the_world_sees_them(
    world: World, scene: Scene, tmp_path: Path
) -> None:
    done = export_colmap(scene, tmp_path / "out", points=300)
    assert 250 < done.num_points <= 300
    with back(tmp_path, tmp_path / "b.h5") as again:
        points = again.motion.points_world[:, 0]
        lengths = []
        for t in range(4):
            truth, uv, _ = world.see("camera", points, t / world.fps)
            said = again.motion.point_state["camera"][:, t] == Visibility.VISIBLE
            # Depth edges apart, where one pixel's neighbourhood spans two surfaces.
            assert (truth[said] == Visibility.VISIBLE).mean() > 0.93
            assert said[truth == Visibility.VISIBLE].mean() > 0.93
            lengths.append(said)
        assert np.mean(lengths) > 0.5


def test_colmap_itself_reads_it(scene: Scene, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    export_colmap(scene, tmp_path / "out", points=200)
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse"))
    assert model.num_images() == 4 and model.compute_mean_reprojection_error() < 1e-9
    depth = pycolmap.DepthMap()
    image = model.images[3]
    depth.read(str(tmp_path / "out" / "stereo" / "depth_maps" / f"{image.name}.geometric.bin"))
    assert np.array_equal(depth.to_array(), np.nan_to_num(scene.views["camera"].z_depth(2)))
    # A point's depth in COLMAP's camera is what its depth map says there; points were drawn at pixel centres.
    agree = []
    for point in image.points2D[:60]:
        cam = image.cam_from_world() * model.points3D[point.point3D_id].xyz
        col, row = np.floor(point.xy).astype(int)
        agree.append(abs(depth.to_array()[row, col] - cam[2]) < 0.15)
    assert np.mean(agree) > 0.9


def test_colours_of_points(scene: Scene, tmp_path: Path) -> None:
    from converters.colmap.model import read_model

    export_colmap(scene, tmp_path / "out", points=50)
    model = read_model(tmp_path / "out" / "sparse", Path(), ".bin", [])
    first = model.images[0]
    rgb = scene.views["camera"].rgb(0)
    for (u, v), id in zip(first.uv_px, first.point_ids, strict=True):
        row = int(np.searchsorted(model.points.ids, id))
        assert model.points.rgb[row].tolist() == rgb[int(v), int(u)].tolist()


def test_a_distorted_scene_round_trips(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    world = random_world(1, num_frames=2, size=(48, 36), motion="static")
    colmap.write_native(iter([world]), tmp_path / "raw", "opencv")
    with back(tmp_path / "raw", tmp_path / "a.h5") as scene:
        export_colmap(scene, tmp_path / "ws" / "out")
        with back(tmp_path / "ws", tmp_path / "b.h5") as again:
            a, b = scene.views["camera"], again.views["camera"]
            assert tuple(a.record["distortion"]) == tuple(b.record["distortion"]) != ()
            assert b.frame_names == a.frame_names
            assert np.array_equal(a.z_depth(1), b.z_depth(1), equal_nan=True)
            assert np.allclose(again.motion.points_world, scene.motion.points_world)
            assert np.array_equal(again.motion.point_state["camera"], scene.motion.point_state["camera"])


def test_several_views_get_folders_and_cameras(tmp_path: Path) -> None:
    world = random_world(3, num_frames=2, size=(48, 36), motion="static", num_views=2)
    write_scene(tmp_path / "s.h5", world_scene_stream(world))
    with open_scene(tmp_path / "s.h5") as scene:
        export_colmap(scene, tmp_path / "ws" / "out")
        with back(tmp_path / "ws", tmp_path / "b.h5") as again:
            assert set(again.views) == {"camera", "camera_1"}
            for name in again.views:
                assert (
                    np.abs(again.views[name].world_from_cam - scene.views[name].world_from_cam).max() < 1e-9
                )
        one = export_colmap(scene, tmp_path / "one", views=["camera_1"], every=2)
        assert one.num_frames == 1 and (tmp_path / "one" / "images" / "camera_1").is_dir()
        with pytest.raises(UsageError):
            export_colmap(scene, tmp_path / "none", views=["left"])


def test_depth_on_another_grid_is_sampled_through_the_homography(world: World, tmp_path: Path) -> None:
    """A depth grid that sees 3 pixels more to the left and 2 less at the bottom: no resize of the colour grid."""
    stream = world_scene_stream(world)
    view = stream.record.views["camera"]
    own = view.intrinsics + np.array([[0, 0, 3.0], [0, 0, -2.0], [0, 0, 0]])
    layers = {"rgb": view.layers["rgb"], "z_depth": replace(view.layers["z_depth"], intrinsics=own)}
    stream.record = replace(stream.record, views={"camera": replace(view, layers=layers)})

    def frames() -> Iterator[Frame]:
        for t in range(4):
            z = world.render(t, intrinsics=own[t], size=view.size).z_depth.astype(np.float32)
            yield Frame("camera", t, {"rgb": encode_png(world.render(t).rgb), "z_depth": z})

    stream.frames = frames()
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        done = export_colmap(scene, tmp_path / "ws" / "out")
        assert done.resampled_depth == ("camera",)
        assert export_nerfstudio(scene, tmp_path / "ns").resampled_depth == ("camera",)
    from converters.colmap.model import read_model

    # The depth grid shows more than the image; no image observes what lies outside it.
    uv = np.concatenate([i.uv_px for i in read_model(tmp_path / "ws/out/sparse", Path(), ".bin", []).images])
    assert len(uv) > 1000 and ((uv >= 0) & (uv < view.size)).all()
    with back(tmp_path / "ws", tmp_path / "b.h5") as again:
        for t in range(4):
            z, truth = again.views["camera"].z_depth(t), world.render(t).z_depth
            assert np.isnan(z[:2]).all() and np.isnan(z[:, -3:]).all()
            assert np.abs(z - truth)[2:, :-3].max() < 1e-5


def test_a_scannet_scene_says_that_its_depth_was_sampled_again(tmp_path: Path) -> None:
    world = random_world(1, num_frames=2, size=(65, 48), motion="static")
    scannet.write_native(iter([world]), tmp_path / "raw", "sens")
    (ref,) = scannet.scenes(tmp_path / "raw", scannet.Params())
    write_scene(tmp_path / "s.h5", scannet.read(tmp_path / "raw", ref, scannet.Params()))
    with open_scene(tmp_path / "s.h5") as scene:
        assert export_colmap(scene, tmp_path / "ws" / "out").resampled_depth == ("camera",)


def test_moving_things_are_not_called_points(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        export_colmap(scene, tmp_path / "out", points=400)
    from converters.colmap.model import read_model

    xyz = read_model(tmp_path / "out" / "sparse", Path(), ".bin", []).points.xyz
    assert len(xyz) > 200 and np.allclose(xyz[:, 2], 10)  # the wall; the square moves


def test_points_of_the_motion_record_are_taken_as_they_are(tmp_path: Path) -> None:
    """Those that are static, in the frames that are said to see them."""
    stream = tiny_stream()
    world = np.array([[0.0, 0, 10], [0.5, 0.5, 10], [0, 0, 5]])
    state = np.full((3, 4), Visibility.OCCLUDED, np.uint8)
    state[0, :2] = state[1, 3] = state[2] = Visibility.VISIBLE
    motion = replace(
        stream.record.motion,
        points_world=np.repeat(world[:, None], 4, axis=1),
        point_instance=np.array([0, 0, 1], np.uint32),
        point_state={"cam": state},
    )
    stream.record = replace(stream.record, motion=motion)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        export_colmap(scene, tmp_path / "out")
    from converters.colmap.model import read_model

    model = read_model(tmp_path / "out" / "sparse", Path(), ".bin", [])
    assert np.array_equal(model.points.xyz, world[:2])
    assert [image.point_ids.tolist() for image in model.images] == [[1], [1], [], [2]]


def test_frames_without_a_pose_are_left_out_and_counted(tmp_path: Path) -> None:
    known = np.array([True, False, True, True])
    stream = tiny_stream()
    view = stream.record.views["cam"]
    poses = view.world_from_cam.copy()
    poses[1] = np.nan
    path = write_tiny(tmp_path / "s.h5", pose_is_known=known, world_from_cam=poses)
    with open_scene(path) as scene:
        done = export_colmap(scene, tmp_path / "out")
        assert (done.num_frames, done.num_without_pose) == (3, 1)
        assert sorted(p.name for p in (tmp_path / "out" / "images").iterdir()) == [
            "00000.png",
            "00002.png",
            "00003.png",
        ]
        done = export_nerfstudio(scene, tmp_path / "ns", depth=False, points=0)
        assert done.num_points == 0 and not (tmp_path / "ns" / "depths").exists()
        assert "ply_file_path" not in json.loads((tmp_path / "ns" / "transforms.json").read_text())
    lost = {"pose_is_known": np.zeros(4, bool), "world_from_cam": np.full((4, 4, 4), np.nan)}
    with (
        open_scene(write_tiny(tmp_path / "n.h5", **lost)) as scene,
        pytest.raises(QualityError, match="known poses"),
    ):
        export_colmap(scene, tmp_path / "none")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\b", "."])
def test_frame_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write_tiny(tmp_path / "s.h5", frame_names=("a", name, "c", "d"))
    with open_scene(path) as scene, pytest.raises(ConventionError, match="file name"):
        export_colmap(scene, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frame_names_that_collide_are_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", frame_names=("a", "A.PNG", "c", "d"))
    with open_scene(path) as scene, pytest.raises(ConventionError, match="same name"):
        export_colmap(scene, tmp_path / "out")


def test_a_skewed_k_is_refused(tmp_path: Path) -> None:
    k = tiny_stream().record.views["cam"].intrinsics.copy()
    k[:, 0, 1] = 0.5
    with open_scene(write_tiny(tmp_path / "s.h5", intrinsics=k)) as scene:
        for export in (export_colmap, export_nerfstudio):
            with pytest.raises(ConventionError, match="skew"):
                export(scene, tmp_path / "out")


def test_output_must_be_empty(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    for export in (export_colmap, export_nerfstudio):
        with pytest.raises(UsageError, match="not empty"):
            export(scene, tmp_path)


def test_colour_that_is_no_image_as_it_is_becomes_a_png(tmp_path: Path) -> None:
    stream = tiny_stream(num_frames=2)
    view = stream.record.views["cam"]
    size = view.size
    bgr = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    layers = {
        "rgb": LayerRecord(size, "png", "uint8", 3, channels=(2, 1, 0)),
        "z_depth": view.layers["z_depth"],
    }
    stream.record = replace(stream.record, views={"cam": replace(view, layers=layers)})
    z = np.full((size[1], size[0]), 10, np.float32)
    stream.frames = iter(Frame("cam", t, {"rgb": encode_png(bgr), "z_depth": z}) for t in range(2))
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        export_colmap(scene, tmp_path / "ws" / "out")
    with back(tmp_path / "ws", tmp_path / "b.h5") as again:
        assert np.array_equal(again.views["camera"].rgb(0), bgr[..., ::-1])


# --- nerfstudio -------------------------------------------------------------------------------------------------------


def test_nerfstudio_by_its_own_conventions(world: World, scene: Scene, tmp_path: Path) -> None:
    """A ray of nerfstudio: through (pixel + 0.5 - c) / f, y and z negated, by transform_matrix; depth is times 1e-3."""
    done = export_nerfstudio(scene, tmp_path / "out", points=500)
    content = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV" and len(content["frames"]) == done.num_frames == 4
    for t, frame in enumerate(content["frames"]):
        assert (tmp_path / "out" / frame["file_path"]).read_bytes() == scene.views["camera"].encoded("rgb", t)
        z = np.load(tmp_path / "out" / frame["depth_file_path"]) * 1e-3
        row, col = 20, 30
        ray = [(col + 0.5 - frame["cx"]) / frame["fl_x"], -(row + 0.5 - frame["cy"]) / frame["fl_y"], -1]
        pose = np.array(frame["transform_matrix"])
        point = pose[:3, :3] @ np.array(ray) * z[row, col] + pose[:3, 3]
        hits = world.cast_pixels("camera", [[col + 0.5, row + 0.5]], t / world.fps)
        view = world.views["camera"]
        cam = g.camera_rays([col + 0.5, row + 0.5], view.intrinsics[t]) * hits.scale
        assert np.abs(point - g.transform_points(view.world_from_cam[t], cam)).max() < 1e-5
        assert frame["time"] == world.times[t] and (frame["w"], frame["h"]) == (64, 48)


def test_nerfstudio_point_cloud(world: World, scene: Scene, tmp_path: Path) -> None:
    done = export_nerfstudio(scene, tmp_path / "out", points=300)
    data = (tmp_path / "out" / "sparse_pc.ply").read_bytes()
    head, _, body = data.partition(b"end_header\n")
    assert f"element vertex {done.num_points}\n".encode() in head and len(body) == 15 * done.num_points
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    state, _, _ = world.see("camera", rows["xyz"][:50].astype(float), 0.0)
    assert (state == Visibility.VISIBLE).mean() > 0.5 and rows["rgb"].std() > 5


def _lens(tmp_path: Path, model: str, distortion: tuple[float, ...]) -> Scene:
    return open_scene(
        write_tiny(tmp_path / f"{model}{len(distortion)}.h5", camera_model=model, distortion=distortion)
    )


def test_nerfstudio_lenses(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    with _lens(tmp_path, "opencv", (0.1, 0.2, 0.3, 0.4)) as scene:
        export_nerfstudio(scene, tmp_path / "a")
    frame = json.loads((tmp_path / "a" / "transforms.json").read_text())["frames"][0]
    assert [frame[k] for k in ("k1", "k2", "p1", "p2")] == [0.1, 0.2, 0.3, 0.4]
    with _lens(tmp_path, "opencv_fisheye", (0.1, 0.2, 0.3, 0.4)) as scene:
        export_nerfstudio(scene, tmp_path / "b")
    content = json.loads((tmp_path / "b" / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV_FISHEYE"
    assert [content["frames"][0][k] for k in ("k1", "k2", "k3", "k4")] == [0.1, 0.2, 0.3, 0.4]
    with _lens(tmp_path, "full_opencv", (0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0)) as scene:
        export_nerfstudio(scene, tmp_path / "c")
    frame = json.loads((tmp_path / "c" / "transforms.json").read_text())["frames"][0]
    assert [frame[k] for k in ("k1", "k2", "p1", "p2", "k3")] == [0.1, 0.2, 0.3, 0.4, 0.5]
    rational = _lens(tmp_path, "full_opencv", (0.1, 0.2, 0.3, 0.4, 0.5, 0.1, 0.0, 0.0))
    with rational, pytest.raises(ConventionError, match="rational"):
        export_nerfstudio(rational, tmp_path / "d")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datakit.cli import main

    path = str(write_tiny(tmp_path / "s.h5"))
    assert (
        main(["export", "colmap", path, str(tmp_path / "a"), "--text", "--every", "2", "--points", "10"]) == 0
    )
    assert "2 frames, 10 points" in capsys.readouterr().out
    assert (tmp_path / "a" / "sparse" / "images.txt").is_file()
    assert main(["export", "nerfstudio", path, str(tmp_path / "b"), "--no-depth", "--view", "cam"]) == 0
    assert main(["export", "nerfstudio", path, str(tmp_path / "c"), "--text"]) == 2
    assert main(["export", "colmap", path, str(tmp_path / "a")]) == 2
    assert main(["export", "blender", path, str(tmp_path / "d")]) == 2
