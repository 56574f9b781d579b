from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.numpy

from datakit import geometry as g
from datakit import open_scene
from datakit.scene import MotionRecord, decode_image
from datakit.scene.records import LayerRecord
from datakit.shards import codecs
from datakit.shards.clips import Clip, Origin, Window, cut_motion, make_clip
from datakit.shards.params import PackParams
from tests.tiny import SQUARE_Z, WALL_Z, tiny_stream, write_tiny

ORIGIN = Origin("s", "pass", "c", "p")


def clip_of(
    path: Path, window: Window, **params: Any
) -> tuple[Clip, dict[str, np.ndarray], dict[str, list[memoryview]]]:
    with open_scene(path) as scene:
        clip = make_clip(scene, window, ORIGIN, PackParams(**params))
    members = dict(clip.members)
    packs = {kind: codecs.unpack(data) for kind, data in members.items() if kind.endswith(".pack")}
    return clip, safetensors.numpy.load(members["arrays.safetensors"]), packs


def test_native_images_pass_through_untouched(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", num_frames=6)
    clip, _, packs = clip_of(path, Window("cam", 2, 3))
    assert clip.header["rgb"] == {"is_verbatim": True, "is_rectified": False}
    with open_scene(path) as scene:
        stored = [scene.views["cam"].encoded("rgb", t) for t in (2, 3, 4)]
        assert [bytes(blob) for blob in packs["rgb.pack"]] == stored
        rgb = codecs.decode_rgb(packs["rgb.pack"][1], clip.header)
        assert np.array_equal(rgb, scene.views["cam"].rgb(3))


def test_header_and_arrays_are_those_of_the_frames(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", num_frames=6)
    clip, arrays, _ = clip_of(path, Window("cam", 2, 3))
    assert clip.key == clip.header["key"] == "tiny-square-cam-000002"
    assert clip.header["frame_indices"] == [2, 3, 4]
    assert clip.header["scene"] == "tiny/square"
    assert clip.header["provenance"]["frame_names"] == ["00002", "00003", "00004"]
    assert clip.header["arrays"] == sorted(arrays)
    assert "instances_intrinsics" not in arrays
    np.testing.assert_allclose(arrays["times"], [0.2, 0.3, 0.4])
    np.testing.assert_allclose(arrays["world_from_cam"][:, 0, 3], [0.5, 0.75, 1.0])
    assert arrays["motion_index"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(arrays["motion_times"], [0.2, 0.3, 0.4])
    np.testing.assert_allclose(arrays["world_from_instance"][:, 1, 1, 3], [1.0, 1.5, 2.0])


def test_small_side_scales_colour_and_thins_the_rest_exactly(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", size=(80, 60))
    clip, arrays, packs = clip_of(path, Window("cam", 0, 4), max_side=20)
    assert clip.header["size"] == [20, 15]
    assert clip.header["source_size"] == [80, 60]
    assert not clip.header["rgb"]["is_verbatim"]
    with open_scene(path) as scene:
        view = scene.views["cam"]
        np.testing.assert_allclose(arrays["intrinsics"][:, :2], view.intrinsics[:, :2] / 4)
        want = cv2.resize(view.rgb(2), (20, 15), interpolation=cv2.INTER_AREA)
        assert np.abs(codecs.decode_rgb(packs["rgb.pack"][2], clip.header).astype(int) - want).mean() < 2
        z = codecs.decode_depth(packs["z_depth.pack"][2], clip.header)
        labels = codecs.decode_instances(packs["instances.pack"][2], clip.header)
        assert z.shape == labels.shape == (15, 20)
        # Every kept sample is where the source had it: its ray hits the same point of the wall or the square.
        points = g.unproject_pixels(g.pixel_centres((20, 15)), z, arrays["depth_intrinsics"][2])
        full = g.unproject_pixels(g.pixel_centres((80, 60)), view.z_depth(2), view.intrinsics[2])
        np.testing.assert_allclose(points, full[1::4, 1::4], rtol=1e-6)
        assert np.array_equal(labels, view.instances(2)[1::4, 1::4])


def test_encoding_on_request_keeps_the_grid(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    clip, arrays, packs = clip_of(path, Window("cam", 0, 4), rgb="jpeg", depth="float32")
    assert clip.header["size"] == [40, 30]
    assert bytes(packs["rgb.pack"][0][:3]) == b"\xff\xd8\xff"
    assert clip.header["z_depth"]["codec"] == "float32"
    z = codecs.decode_depth(packs["z_depth.pack"][0], clip.header)
    assert set(np.unique(z)) == {SQUARE_Z, WALL_Z}


def test_uncompressed_colour_is_stored_without_loss(tmp_path: Path) -> None:
    from datakit.scene import write_scene

    stream = tiny_stream()
    view = stream.record.views["cam"]
    layers = dict(view.layers) | {"rgb": LayerRecord(view.size, "array", "uint8", 3)}
    record = replace(stream.record, views={"cam": replace(view, layers=layers)})
    frames = (
        replace(f, layers=dict(f.layers) | {"rgb": decode_image(f.layers["rgb"], "x")}) for f in stream.frames
    )
    write_scene(tmp_path / "s.h5", replace(stream, record=record, frames=frames))
    clip, _, packs = clip_of(tmp_path / "s.h5", Window("cam", 0, 4))
    with open_scene(tmp_path / "s.h5") as scene:
        assert np.array_equal(codecs.decode_rgb(packs["rgb.pack"][1], clip.header), scene.views["cam"].rgb(1))


def test_other_grid_of_instances_is_kept_with_its_intrinsics(tmp_path: Path) -> None:
    view = tiny_stream().record.views["cam"]
    layers = dict(view.layers)
    layers["instances"] = replace(layers["instances"], intrinsics=view.intrinsics + 0.0)
    same = write_tiny(tmp_path / "same.h5", layers=layers)
    assert "instances_intrinsics" not in clip_of(same, Window("cam", 0, 4))[1]
    shifted = view.intrinsics.copy()
    shifted[:, 0, 2] += 2
    layers["instances"] = replace(layers["instances"], intrinsics=shifted)
    other = write_tiny(tmp_path / "other.h5", layers=layers)
    _, arrays, _ = clip_of(other, Window("cam", 0, 4), edge_dilate=0, edges_per_frame=9999)
    np.testing.assert_array_equal(arrays["instances_intrinsics"], shifted)
    # Labels lie 2 px to the right of the depth grid's, so their part of the motion boundary is 2 px further left.
    _, plain, _ = clip_of(same, Window("cam", 0, 4), edge_dilate=0, edges_per_frame=9999)
    first = plain["boundary_motion"][plain["boundary_motion"][:, 0] == 0][:, 2].min()
    assert arrays["boundary_motion"][arrays["boundary_motion"][:, 0] == 0][:, 2].min() == first - 2


def test_view_without_depth_and_instances(tmp_path: Path) -> None:
    layers = {"rgb": tiny_stream().record.views["cam"].layers["rgb"]}
    clip, arrays, _ = clip_of(write_tiny(tmp_path / "s.h5", layers=layers), Window("cam", 0, 4))
    assert [kind for kind, _ in clip.members] == ["clip.json", "arrays.safetensors", "rgb.pack"]
    assert len(arrays["boundary_depth"]) == len(arrays["boundary_motion"]) == 0
    assert arrays["instance_ids"].tolist() == [0]
    assert "depth_intrinsics" not in arrays


def test_lens_is_undone(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    lens: dict[str, Any] = {"camera_model": "opencv", "distortion": (-0.2, 0.02, 0.001, -0.002)}
    path = write_tiny(tmp_path / "s.h5", size=(80, 60), **lens)
    clip, arrays, packs = clip_of(path, Window("cam", 0, 4))
    assert clip.header["rgb"] == {"is_verbatim": False, "is_rectified": True}
    with open_scene(path) as scene:
        view = scene.views["cam"]
        distorted = view.z_depth(1)
        z = codecs.decode_depth(packs["z_depth.pack"][1], clip.header)
        uv = g.pixel_centres((80, 60)).reshape(-1, 2)
        rays = g.camera_rays(uv, view.intrinsics[1])
        at, _ = g.project_distorted(rays, view.intrinsics[1], lens["camera_model"], lens["distortion"])
        assert np.abs(at - uv).max() > 2
        col, row = np.floor(at).astype(int).T
        inside = (col >= 0) & (col < 80) & (row >= 0) & (row < 60)
        want = np.where(inside, distorted[np.clip(row, 0, 59), np.clip(col, 0, 79)], np.nan)
        np.testing.assert_allclose(z.ravel(), want, rtol=1e-4)


def motion_record() -> MotionRecord:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 6, 3))
    points[1] = np.nan
    points[2, 2:] = np.nan
    return MotionRecord(
        times=np.arange(6) / 10,
        instance_ids=np.array([0, 4, 9], np.uint32),
        instance_names=("world", "a", "b"),
        instance_motion=np.array([1, 2, 3], np.uint8),
        world_from_instance=np.tile(np.eye(4), (6, 3, 1, 1)) * np.arange(1, 7)[:, None, None, None],
        points_world=points,
        point_instance=np.array([9, 9, 9, 9, 4], np.uint32),
    )


def test_motion_is_cut_to_the_clock_samples_and_instances_of_the_clip() -> None:
    motion = motion_record()
    cut, index = cut_motion(motion, np.array([4, -1, 2, 4]), np.array([9], np.uint32))
    assert index.tolist() == [1, -1, 0, 1]
    np.testing.assert_allclose(cut.times, [0.2, 0.4])
    assert cut.instance_ids.tolist() == [0, 9]
    assert cut.instance_names == ("world", "b")
    assert cut.world_from_instance[:, 0, 0, 0].tolist() == [3, 5]
    assert cut.points_world is not None and cut.point_instance is not None
    assert cut.points_world.shape == (2, 2, 3)  # points 0 and 3: 1 and 2 are unknown here, 4 is not seen
    np.testing.assert_allclose(cut.points_world, motion.points_world[[0, 3]][:, [2, 4]], rtol=1e-6)


def test_motion_of_a_view_without_labels_is_the_background() -> None:
    cut, _ = cut_motion(motion_record(), np.arange(6), None)
    assert cut.instance_ids.tolist() == [0]
    assert cut.points_world is not None and len(cut.points_world) == 0
