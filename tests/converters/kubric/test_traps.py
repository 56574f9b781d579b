"""One test per trap of the format: each fails if the converter falls into it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import converters.kubric as kubric
from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.scene import decode_image, encode_png

from .clips import (
    FRAMES,
    PARAMS,
    SIZE,
    clip_folder,
    drain,
    edit_json,
    edit_record,
    open_clip,
    small_world,
    write_clip,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    for form in ("worker", "tfds", "tfds-half"):
        write_clip(root / form, form)
    return root


@pytest.fixture
def raw(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine / "worker", tmp_path / "raw"))


@pytest.fixture
def raw_tfds(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine / "tfds", tmp_path / "raw"))


def test_trap_1_depth_is_the_distance_along_the_ray(raw: Path, tmp_path: Path) -> None:
    with Image.open(clip_folder(raw) / "depth_00000.tiff") as image:
        stored = np.array(image)
    with open_clip(raw, tmp_path / "out") as scene:
        z = scene.views["camera"].z_depth(0)
    truth = small_world().render(0)
    assert np.abs(stored - truth.ray_distance).max() < 1e-5
    assert np.abs(z - truth.z_depth).max() < 1e-5
    assert np.abs(stored - z).max() > 0.5  # the corner of the image tells the two apart


def test_trap_2_flow_is_row_column_with_one_range_and_backward_is_negated(raw: Path, tmp_path: Path) -> None:
    folder = clip_folder(raw)
    ranges = json.loads((folder / "data_ranges.json").read_text())
    with open_clip(raw, tmp_path / "out") as scene:
        for direction, sign in (("forward", 1), ("backward", -1)):
            low, high = (ranges[f"{direction}_flow"][key] for key in ("min", "max"))
            code = decode_image((folder / f"{direction}_flow_00002.png").read_bytes(), "").astype(float)
            rows, cols = (code[..., c] / 65535 * (high - low) + low for c in (0, 1))
            flow = scene.views["camera"].flow(2, direction)
            assert np.abs(flow - sign * np.stack([cols, rows], axis=-1)).max() < 1e-5
            truth = getattr(small_world().render(2), f"flow_{direction}")
            assert np.abs(flow - truth).max() < 2e-3 < np.abs(flow + truth).max()


def test_trap_3_palette_gives_indices_and_16_bits_survive(raw: Path, tmp_path: Path) -> None:
    with open_clip(raw, tmp_path / "out") as scene:
        ids = scene.views["camera"].instances(0)
        assert ids.max() == len(scene.motion.instance_ids) - 1
        normals = scene.views["camera"].normals(0)
    # 8-bit normals would sit on 256 levels.
    assert len(np.unique(normals)) > 256


def test_trap_4_codes_end_at_65535_not_65536(raw: Path, tmp_path: Path) -> None:
    folder = clip_folder(raw)
    width, height = SIZE
    full = np.full((height, width, 3), 65535, dtype=np.uint16)
    for name in ("normal", "object_coordinates", "forward_flow"):
        (folder / f"{name}_00001.png").write_bytes(encode_png(full))
    high = json.loads((folder / "data_ranges.json").read_text())["forward_flow"]["max"]
    with open_clip(raw, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert (view.normals(1) == 1).all() and (view.object_coords(1) == 1).all()
        assert (view.flow(1, "forward") == np.float32(high)).all()


def test_trap_5_quaternions_are_wxyz_of_a_camera_that_looks_along_minus_z(raw: Path, tmp_path: Path) -> None:
    folder = clip_folder(raw)
    half = np.sqrt(0.5)

    def upright(meta: dict) -> None:
        # 90 degrees about x: from looking down to looking along +y.
        meta["camera"]["quaternions"] = [[half, half, 0.0, 0.0]] * FRAMES

    edit_json(folder / "metadata.json", upright)
    with open_clip(raw, tmp_path / "out") as scene:
        rotation = scene.views["camera"].world_from_cam[0, :3, :3]
    # Columns: right is +x, down is -z, forward is +y.
    assert np.allclose(rotation, [[1, 0, 0], [0, 0, 1], [0, -1, 0]])


def test_trap_5_xyzw_instance_quaternions_are_refused(raw: Path) -> None:
    def roll(meta: dict) -> None:
        for instance in meta["instances"]:
            instance["quaternions"] = np.roll(instance["quaternions"], -1, axis=1).tolist()

    edit_json(clip_folder(raw) / "metadata.json", roll)
    with pytest.raises(ConventionError, match="does not move with positions and quaternions"):
        drain(raw)


def test_trap_6_resolution_is_width_then_height(raw: Path, tmp_path: Path) -> None:
    with open_clip(raw, tmp_path / "out") as scene:
        view = scene.views["camera"]
        assert view.size == SIZE and view.rgb(0).shape[:2] == SIZE[::-1]
        mat = view.intrinsics[0]
    focal = 35 / 32 * SIZE[0]
    assert np.allclose(mat, [[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]])


def test_trap_7_camera_r_and_image_position_are_not_used(raw: Path, tmp_path: Path) -> None:
    folder = clip_folder(raw)
    before = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record
    meta = json.loads((folder / "metadata.json").read_text())
    # R is the pose after the clip, so it is none of the clip's own.
    own = before.views["camera"].world_from_cam @ np.diag([1.0, -1, -1, 1])
    assert np.abs(own - np.array(meta["camera"]["R"])).max(axis=(1, 2)).min() > 1e-3
    edit_json(folder / "metadata.json", lambda m: m["camera"].update(R=np.eye(4).tolist()))
    collision = {
        "instances": [0, -1],
        "force": 2.0,
        "image_position": [9.0, 9.0],
        "contact_normal": [0, 0, 1],
    }
    rows = [{**collision, "frame": frame, "position": [0, 0, 0]} for frame in (0.5, 1.0, 1.95, 3.0)]
    (folder / "events.json").write_text(json.dumps({"collisions": rows}))
    with open_clip(raw, tmp_path / "out") as scene:
        assert np.array_equal(scene.views["camera"].world_from_cam, before.views["camera"].world_from_cam)
        collisions = scene.metadata["collisions"]
    assert collisions["count"] == 4
    # Simulation frame 1 is image 0; floor (-1) is background 0 and index 0 is id 1.
    assert collisions["frame"] == [-1, 0, 2] and collisions["contacts"] == [1, 2, 1]
    assert collisions["ids"] == [[1, 0]] * 3 and "image_position" not in json.dumps(collisions)


def test_trap_7_floor_is_65535_in_tfds(raw_tfds: Path) -> None:
    def collide(features) -> None:  # noqa: ANN001
        prefix = "events/collisions/"
        features[f"{prefix}instances"].int64_list.value.extend([1, 65535])
        features[f"{prefix}frame"].int64_list.value.append(2)
        features[f"{prefix}force"].float_list.value.append(1.5)

    edit_record(raw_tfds, collide)
    record = kubric.read(raw_tfds, next(iter(kubric.scenes(raw_tfds, PARAMS))), PARAMS).record
    collisions = record.metadata["collisions"]
    assert (collisions["count"], collisions["ids"], collisions["frame"]) == (1, [[2, 0]], [1])


def test_trap_8_the_seed_says_nothing_about_the_camera(raw: Path) -> None:
    before = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record.views["camera"]

    def shift(meta: dict) -> None:
        meta["camera"]["positions"] = (np.array(meta["camera"]["positions"]) + [1, 2, 3]).tolist()

    edit_json(clip_folder(raw) / "metadata.json", shift)
    after = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record.views["camera"]
    assert np.allclose((after.world_from_cam - before.world_from_cam)[:, :3, 3], [1, 2, 3])


def test_trap_9_time_follows_the_frame_rate_not_the_step_rate(raw: Path) -> None:
    edit_json(
        clip_folder(raw) / "metadata.json", lambda m: m["metadata"].update(step_rate=480, frame_rate=24)
    )
    record = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record
    assert np.allclose(record.views["camera"].times, np.arange(FRAMES) / 24)
    assert np.array_equal(record.motion.times, record.views["camera"].times)
    assert record.metadata["metadata"]["step_rate"] == 480


def test_trap_10_ids_start_at_1_static_objects_count_and_the_background_has_no_box(raw: Path) -> None:
    record = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record
    meta = json.loads((clip_folder(raw) / "metadata.json").read_text())
    motion = record.motion
    assert any(not item["is_dynamic"] for item in meta["instances"])
    assert motion.instance_ids.tolist() == list(range(len(meta["instances"]) + 1))
    assert motion.instance_motion.tolist() == [1] + [2] * len(meta["instances"])
    assert np.isnan(motion.world_from_box[:, 0]).all() and np.isfinite(motion.world_from_box[:, 1:]).all()
    for k, item in enumerate(meta["instances"], start=1):
        assert np.allclose(motion.world_from_instance[:, k, :3, 3], item["positions"])
        # Corner index = 4 x + 2 y + z.
        corners = np.array(item["bboxes_3d"])
        for index, corner in ((4, [1, 0, 0]), (2, [0, 1, 0]), (1, [0, 0, 1]), (7, [1, 1, 1])):
            assert np.allclose(g.transform_points(motion.world_from_box[:, k], corner), corners[:, index])


def test_trap_11_degenerate_flow_range_is_the_constant(raw: Path, tmp_path: Path) -> None:
    folder = clip_folder(raw)
    garbage = np.random.default_rng(0).integers(0, 65535, (*SIZE[::-1], 3)).astype(np.uint16)
    edit_json(folder / "data_ranges.json", lambda r: r.update(backward_flow={"min": 0.25, "max": 0.25}))
    for t in range(FRAMES):
        (folder / f"backward_flow_{t:05d}.png").write_bytes(encode_png(garbage))
    with open_clip(raw, tmp_path / "out") as scene:
        assert (scene.views["camera"].flow(1, "backward") == -0.25).all()


def test_trap_11_a_written_clip_in_which_nothing_moves_reads_as_zero_flow(tmp_path: Path) -> None:
    world = small_world(2, motion="static", camera="static")
    with open_clip(write_clip(tmp_path / "raw", "worker", world), tmp_path / "out") as scene:
        for direction in ("forward", "backward"):
            assert np.abs(scene.views["camera"].flow(1, direction)).max() < 1e-5


def test_trap_12_empty_background_has_no_depth(tmp_path: Path) -> None:
    world = small_world(3, background="open")
    root = write_clip(tmp_path / "raw", "worker", world)
    with Image.open(clip_folder(root) / "depth_00000.tiff") as image:
        stored = np.array(image)
    empty = np.isnan(world.render(0).z_depth)
    assert empty.any() and stored[empty].min() >= 1e10 > 1e3 > stored[~empty].max()
    with open_clip(root, tmp_path / "out") as scene:
        assert np.array_equal(np.isnan(scene.views["camera"].z_depth(0)), empty)


def test_trap_12_a_depth_range_spoiled_by_empty_background_is_no_depth(tmp_path: Path) -> None:
    root = write_clip(tmp_path / "raw", "tfds", small_world(3, background="open"))
    with open_clip(root, tmp_path / "out") as scene:
        assert "z_depth" not in scene.views["camera"].layers
        assert "spoiled" in scene.metadata["depth_note"]


@pytest.mark.parametrize(("form", "offset"), [("tfds", 0.5), ("tfds-half", 0.25), ("tfds-quarter", 0.375)])
def test_trap_13_aux_samples_of_downscaled_configs_sit_off_centre(
    tmp_path: Path, form: str, offset: float
) -> None:
    world = small_world(1, size=(96, 64))
    root = write_clip(tmp_path / "raw", form, world)
    record = kubric.read(root, next(iter(kubric.scenes(root, PARAMS))), PARAMS).record
    sampling, view = record.metadata["aux_sampling"], record.views["camera"]
    assert sampling["how"] == "measured" and sampling["offset_px"] == offset
    assert np.abs(np.array(sampling["measured_px"]) - offset).max() < 1e-3
    assert view.layers["rgb"].intrinsics is None
    for name in set(view.layers) - {"rgb"}:
        aux = view.layers[name].intrinsics
        if offset == 0.5:
            assert aux is None
        else:
            # An aux pixel's centre (c + .5) is raster c + offset: the same ray, the axis moved the other way.
            assert np.allclose((aux - view.intrinsics)[:, :2, 2], 0.5 - offset)
            assert np.allclose(aux[:, :2, :2], view.intrinsics[:, :2, :2])


def test_trap_13_render_size_can_be_given_or_falls_back_to_the_published_one(pristine: Path) -> None:
    root = pristine / "tfds-half"
    ref = next(iter(kubric.scenes(root, PARAMS)))
    given = kubric.read(root, ref, kubric.Params(render_size=4 * SIZE[0] // 2)).record
    assert given.metadata["aux_sampling"]["how"] == "given"
    assert given.metadata["aux_sampling"]["offset_px"] == 0.375


def test_trap_13_without_objects_the_published_size_is_used_and_said(raw_tfds: Path) -> None:
    blank = encode_png(np.zeros(SIZE[::-1], dtype=np.uint8))

    def hide(features) -> None:  # noqa: ANN001
        del features["segmentations"].bytes_list.value[:]
        features["segmentations"].bytes_list.value.extend([blank] * FRAMES)

    edit_record(raw_tfds, hide)
    record = kubric.read(raw_tfds, next(iter(kubric.scenes(raw_tfds, PARAMS))), PARAMS).record
    sampling = record.metadata["aux_sampling"]
    assert (sampling["how"], sampling["step"], sampling["num_pixels"]) == ("published", 256 // SIZE[0], 0)


def test_trap_14_motion_blur_is_named_and_the_other_layers_stay_sharp(raw: Path) -> None:
    edit_json(clip_folder(raw) / "metadata.json", lambda m: m["metadata"].update(motion_blur=1.0))
    record = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record
    assert record.metadata["metadata"]["motion_blur"] == 1.0
    assert np.array_equal(record.motion.times, record.views["camera"].times)


def test_trap_15_object_coordinates_lost_by_a_newer_blender_are_noticed(raw_tfds: Path) -> None:
    zeros = encode_png(np.zeros((*SIZE[::-1], 3), dtype=np.uint16))

    def lose(features) -> None:  # noqa: ANN001
        del features["object_coordinates"].bytes_list.value[:]
        features["object_coordinates"].bytes_list.value.extend([zeros] * FRAMES)

    edit_record(raw_tfds, lose)
    with pytest.raises(ConventionError, match="do not project to where"):
        drain(raw_tfds)


def test_movi_f_worker_stores_height_and_width_and_flow_as_a_fraction(tmp_path: Path) -> None:
    world = small_world(1, size=(32, 32))
    root = write_clip(tmp_path / "raw", "worker", world)
    with open_clip(root, tmp_path / "a") as scene:
        want = scene.views["camera"].flow(1, "forward")

    def as_movi_f(meta: dict) -> None:
        width, height = meta["metadata"].pop("resolution")
        meta["metadata"].update(width=width, height=height)

    def as_fraction(ranges: dict) -> None:
        for value in ranges.values():
            value.update(min=value["min"] / 32, max=value["max"] / 32)

    edit_json(clip_folder(root) / "metadata.json", as_movi_f)
    with pytest.raises(ConventionError, match="MOVi-F"):
        drain(root)  # flow still in pixels: beyond any fraction of the image
    edit_json(clip_folder(root) / "data_ranges.json", as_fraction)
    with open_clip(root, tmp_path / "b") as scene:
        assert np.allclose(scene.views["camera"].flow(1, "forward"), want, atol=1e-6)


def test_absent_optional_layers_are_absent_and_uv_is_ignored(raw: Path, tmp_path: Path) -> None:
    folder = clip_folder(raw)
    for path in [*folder.glob("*_flow_*.png"), *folder.glob("normal_*.png"), folder / "data_ranges.json"]:
        path.unlink()
    (folder / "events.json").unlink()
    (folder / "uv_00000.png").write_bytes(b"not looked at")
    with open_clip(raw, tmp_path / "out") as scene:
        assert set(scene.views["camera"].layers) == {"rgb", "z_depth", "instances", "object_coords"}
        assert scene.views["camera"].flow(0, "forward") is None
    assert {p.severity for p in kubric.probe(raw).problems} == {"warning"}
