import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin
import jsonschema
import numpy as np
import pytest

from datakit import ConventionError, FormatError, UsageError, open_scene, validate_scene
from datakit.scene import Frame, LayerRecord, SceneStream, encode_png, migrate_scene, write_scene
from datakit.scene.write import _raster_codec
from datakit.schema import SCHEMA_VERSION
from tests.tiny import tiny_stream, write_tiny


def test_everything_reads_back(tmp_path: Path) -> None:
    stream = tiny_stream()
    want = {frame.index: frame.layers for frame in tiny_stream().frames}
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        view, made = scene.views["cam"], stream.record.views["cam"]
        assert (scene.dataset, scene.id, scene.split, scene.scale) == ("tiny", "square", "train", "metric")
        assert (view.num_frames, view.size, view.frame_names) == (4, made.size, made.frame_names)
        for name in ("times", "intrinsics", "world_from_cam", "pose_is_known", "motion_index"):
            np.testing.assert_array_equal(getattr(view, name), getattr(made, name))
        assert view.depth_size == view.size and view.depth_kind == "rendered"
        np.testing.assert_array_equal(view.depth_intrinsics, view.intrinsics)
        for t in range(4):
            assert view.encoded("rgb", t) == want[t]["rgb"]
            np.testing.assert_array_equal(view.z_depth(t), want[t]["z_depth"])
            assert view.instances(t).dtype == np.uint32
        assert (
            view.rgb(1).shape == (30, 40, 3) and view.normals(0) is None and view.flow(0, "forward") is None
        )
        np.testing.assert_array_equal(
            scene.motion.world_from_instance, stream.record.motion.world_from_instance
        )
        assert scene.motion.instance_names == ("wall", "square")
        assert scene.provenance["sources"] == [
            {"path": "made/up", "size": 1, "sha256": "0" * 64, "offset": 0}
        ]
    assert validate_scene(tmp_path / "s.h5") == []


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_tiny(tmp_path / "a.h5").read_bytes()
    time.sleep(1.1)  # HDF5 keeps times in whole seconds, if it keeps any
    assert write_tiny(tmp_path / "b.h5").read_bytes() == first


def test_affine_codes_read_back_as_values(tmp_path: Path) -> None:
    """Flow as Kubric stores it: 16-bit PNG, row before column, one range; the bytes pass through."""
    low, high = -3.0, 5.0
    layer = LayerRecord((40, 30), "png", "uint16", 3, (1, 0), ((high - low) / 65535,) * 2, (low,) * 2)
    stream = tiny_stream()
    view = replace(stream.record.views["cam"], layers={"flow_forward": layer})
    codes = np.random.default_rng(0).integers(0, 65536, (30, 40, 3)).astype(np.uint16)
    frames = (Frame("cam", t, {"flow_forward": encode_png(codes)}) for t in range(4))
    write_scene(tmp_path / "s.h5", SceneStream(replace(stream.record, views={"cam": view}), frames, []))
    with open_scene(tmp_path / "s.h5") as scene:
        flow = scene.views["cam"].flow(2, "forward")
    want = codes[..., [1, 0]] / 65535 * (high - low) + low
    np.testing.assert_allclose(flow, want, atol=1e-6)


def coded_stream(codes: np.ndarray, codec: str = "array", **change) -> SceneStream:
    """Depth as 16-bit codes: millimetres, 0 unknown, and twice as much in the last frame."""
    metres = (np.arange(1 << 16) / 1000).astype(np.float32)
    metres[0] = np.nan
    layer = LayerRecord(
        (40, 30),
        codec,
        "uint16",
        depth_kind="sensor",
        code_values=np.stack([metres, 2 * metres]),
        code_values_row=np.array([0, 0, 0, 1]),
    )
    stream = tiny_stream()
    view = replace(stream.record.views["cam"], layers={"z_depth": replace(layer, **change)})
    sample = codes if codec == "array" else encode_png(codes)
    frames = (Frame("cam", t, {"z_depth": sample}) for t in range(4))
    return SceneStream(replace(stream.record, views={"cam": view}), frames, [])


@pytest.mark.parametrize("codec", ["array", "png"])
def test_listed_codes_read_back_as_values(tmp_path: Path, codec: str) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << 16, (30, 40)).astype(np.uint16)
    codes[0, :3] = 0, 1, 65535
    write_scene(tmp_path / "s.h5", coded_stream(codes, codec))
    want = np.where(codes == 0, np.nan, codes / 1000)
    with open_scene(tmp_path / "s.h5") as scene:
        for t, factor in ((0, 1), (2, 1), (3, 2)):
            z = scene.views["cam"].z_depth(t)
            assert z.dtype == np.float32
            np.testing.assert_allclose(z, factor * want, rtol=1e-6)
    assert validate_scene(tmp_path / "s.h5") == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"code_values": np.ones((2, 256), np.float32)}, "code_values"),
        ({"code_values": np.ones((0, 1 << 16), np.float32)}, "code_values"),
        ({"code_values": None}, "code_values"),
        ({"dtype": "float32"}, "code_values"),
        ({"value_scale": (1.0,), "value_offset": (0.0,)}, "code_values"),
        ({"code_values_row": np.array([0, 1, 2, 0])}, "code_values_row"),
        ({"code_values_row": np.array([0, 1, -1, 0])}, "code_values_row"),
        ({"code_values_row": np.array([0, 1])}, "code_values_row"),
    ],
)
def test_codes_without_a_value_are_refused(tmp_path: Path, change: dict, field: str) -> None:
    with pytest.raises(ConventionError) as error:
        write_scene(tmp_path / "s.h5", coded_stream(np.ones((30, 40), np.uint16), **change))
    assert error.value.where.endswith(f"z_depth].{field}")


def test_codes_that_lost_their_values_are_told(tmp_path: Path) -> None:
    write_scene(tmp_path / "s.h5", coded_stream(np.full((30, 40), 300, np.uint16)))
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        layer = file["views/cam/layers/z_depth"]
        del layer["code_values"]
        layer["code_values"] = np.ones((2, 256), np.float32)
    with open_scene(tmp_path / "s.h5") as scene, pytest.raises(FormatError, match="codes without a value"):
        scene.views["cam"].z_depth(0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scale": "metres"}, "scene.scale"),
        ({"scale": None}, "scene.scale"),
        ({"licence": ""}, "scene.licence"),
        ({"id": "../escape"}, "scene.id"),
        ({"views": {}}, "scene.views"),
    ],
)
def test_a_scene_that_lacks_a_tag_is_refused(tmp_path: Path, change: dict, field: str) -> None:
    stream = tiny_stream()
    stream.record = replace(stream.record, **change)
    with pytest.raises(ConventionError) as error:
        write_scene(tmp_path / "s.h5", stream)
    assert error.value.where == field
    assert list(tmp_path.iterdir()) == []


def test_depth_without_a_kind_and_wrong_poses_are_refused(tmp_path: Path) -> None:
    size = (40, 30)
    bare = {"z_depth": LayerRecord(size, "array", "float32")}
    mirrored = np.tile(np.diag([1.0, 1, -1, 1]), (4, 1, 1))
    half_known = np.ones(4, bool)
    half_known[2] = False
    for change, field in (
        ({"layers": bare}, "depth_kind"),
        ({"world_from_cam": mirrored}, "world_from_cam"),
        ({"pose_is_known": half_known}, "world_from_cam"),
        ({"times": np.zeros(4)}, "times"),
        ({"motion_index": np.arange(4) + 1}, "motion_index"),
        ({"intrinsics": np.zeros((4, 3, 3))}, "intrinsics"),
    ):
        with pytest.raises(ConventionError) as error:
            write_scene(tmp_path / "s.h5", tiny_stream(**change))
        assert field in error.value.where


def test_a_file_without_a_constant_tag_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["pixel_convention"]
    (problem,) = validate_scene(path)
    assert problem.where == "scene.pixel_convention"


def frames_of(stream: SceneStream, *order: int) -> SceneStream:
    frames = list(stream.frames)
    stream.frames = iter([frames[t] for t in order])
    return stream


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1, 3), (0, 0, 1, 2, 3), (0, 2, 3, 3)])
def test_missing_swapped_and_repeated_frames_are_refused(tmp_path: Path, order: tuple[int, ...]) -> None:
    with pytest.raises(ConventionError):
        write_scene(tmp_path / "s.h5", frames_of(tiny_stream(), *order))
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    stream = tiny_stream()
    frames = list(stream.frames)
    wrong = dict(frames[1].layers) | {"rgb": encode_png(np.zeros((30, 41, 3), np.uint8))}
    stream.frames = iter([frames[0], Frame("cam", 1, wrong)])
    with pytest.raises(ConventionError) as error:
        write_scene(tmp_path / "s.h5", stream)
    assert "(41, 30)" in error.value.found and "frame 1, layer rgb" in error.value.where


def test_truncated_file_is_a_format_error(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    for share in (0.0, 0.3, 0.95):
        broken = tmp_path / "broken.h5"
        broken.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        assert isinstance(validate_scene(broken)[0], FormatError)
    with pytest.raises(FormatError):
        open_scene(tmp_path / "absent.h5")


def test_a_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    """Headers and data carry checksums; what has none (unused space) must not change what is read."""
    path = write_tiny(tmp_path / "s.h5")
    data = path.read_bytes()

    def digest(file: Path) -> str:
        total = hashlib.sha256()
        with open_scene(file) as scene:
            total.update(repr(scene.record).encode())
            for t in range(4):
                view = scene.views["cam"]
                total.update(view.rgb(t).tobytes() + view.z_depth(t).tobytes() + view.instances(t).tobytes())
        return total.hexdigest()

    good, broken, caught = digest(path), tmp_path / "broken.h5", 0
    for at in np.random.default_rng(0).integers(0, len(data), 120):
        broken.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        if validate_scene(broken):
            caught += 1
        else:
            assert digest(broken) == good, f"bit flip at byte {at} changed the scene unseen"
    assert caught > 40


def test_readers_are_told_what_is_wrong(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        view = scene.views["cam"]
        with pytest.raises(UsageError, match=r"0\.\.3"):
            view.rgb(4)
        with pytest.raises(UsageError):
            view.rgb(-1)
        with pytest.raises(UsageError, match="forward or backward"):
            view.flow(0, "fwd")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="Not a scene"):
        open_scene(other)


def test_a_kill_while_writing_leaves_no_scene(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from tests.tiny import tiny_stream\n"
        "from datakit.scene import write_scene\n"
        "stream = tiny_stream()\n"
        "def frames(source):\n"
        "    for frame in source:\n"
        "        if frame.index == 2:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield frame\n"
        "stream.frames = frames(stream.frames)\n"
        "write_scene(Path(sys.argv[1]), stream)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "s.h5"], env=env, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "s.h5").exists()
    write_tiny(tmp_path / "s.h5")
    assert validate_scene(tmp_path / "s.h5") == []
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_other_versions_are_refused_and_migrate(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = "0.8"
        file["views/cam/stamps"] = file["views/cam/times"]
        del file["views/cam/times"]
    with pytest.raises(ConventionError, match="another version"):
        open_scene(path)

    def rename(file: h5py.File) -> None:
        for view in file["views"].values():
            view["times"] = view["stamps"]
            del view["stamps"]

    steps = {"0.8": ("0.9", lambda file: None), "0.9": (SCHEMA_VERSION, rename)}
    with pytest.raises(ConventionError, match="No migration"):
        migrate_scene(path, {})
    assert migrate_scene(path, steps) is True
    assert migrate_scene(path, steps) is False
    assert validate_scene(path) == []


def test_a_scene_of_version_1_migrates(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = "1.0"
    with pytest.raises(ConventionError, match="another version"):
        open_scene(path)
    assert migrate_scene(path) is True
    assert validate_scene(path) == []


def test_validate_reads_values(tmp_path: Path) -> None:
    stream = tiny_stream()
    frames = list(stream.frames)
    depth = frames[2].layers["z_depth"].copy()
    depth[3, 4] = -1
    ids = np.full((30, 40), 7, np.uint8)
    frames[2] = Frame("cam", 2, dict(frames[2].layers) | {"z_depth": depth, "instances": encode_png(ids)})
    stream.frames = iter(frames)
    write_scene(tmp_path / "s.h5", stream)
    problems = validate_scene(tmp_path / "s.h5")
    assert sorted(p.found for p in problems) == ["1 other values", "ids [7]"]
    assert all("frame 2" in p.where for p in problems)


def test_info_matches_the_json_schema(tmp_path: Path) -> None:
    from referencing import Registry, Resource

    from datakit.scene.describe import describe_scene
    from datakit.schema import RECORD_NAMES, json_schema

    registry = Registry().with_resources(
        (f"{name}.schema.json", Resource.from_contents(json_schema(name))) for name in RECORD_NAMES
    )
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        described = json.loads(json.dumps(describe_scene(scene)))
    validator = jsonschema.Draft202012Validator(json_schema("scene"), registry=registry)
    assert list(validator.iter_errors(described)) == []
    del described["views"]["cam"]["layers"]["rgb"]["codec"]
    assert [e.message for e in validator.iter_errors(described)] == ["'codec' is a required property"]


def test_images_longer_than_a_chunk_and_any_raster_read_back(tmp_path: Path) -> None:
    """Bytes cross the borders of chunks at odd places; a layer's codec is chosen by its first frame alone."""
    rng, layer = np.random.default_rng(0), LayerRecord((300, 200), "png", "uint8", 3)
    images = [rng.integers(0, 256, (200, 300, 3)).astype(np.uint8) for _ in range(4)]  # 180 kB each
    smooth = np.add.outer(np.linspace(1, 2, 30), np.linspace(0, 1, 40)).astype(np.float32)
    for name, first in (("smooth", smooth), ("halves", smooth.astype(np.float16).astype(np.float32))):
        stream = tiny_stream()
        view = stream.record.views["cam"]
        view = replace(view, layers=dict(view.layers) | {"rgb": layer})
        record = replace(stream.record, views={"cam": view})
        depths = [first, np.full_like(first, np.nan), rng.random(first.shape, np.float32) + 1, first]
        frames = [
            replace(frame, layers=dict(frame.layers) | {"rgb": encode_png(image), "z_depth": depth})
            for frame, image, depth in zip(stream.frames, images, depths, strict=True)
        ]
        write_scene(tmp_path / f"{name}.h5", SceneStream(record, iter(frames), stream.sources))
        with open_scene(tmp_path / f"{name}.h5") as scene:
            for t, (image, depth) in enumerate(zip(images, depths, strict=True)):
                np.testing.assert_array_equal(scene.views["cam"].rgb(t), image)
                np.testing.assert_array_equal(scene.views["cam"].z_depth(t), depth)
        assert validate_scene(tmp_path / f"{name}.h5") == []


def test_each_layer_gets_the_shuffle_that_makes_it_smaller() -> None:
    rows, columns = np.mgrid[:120, :160]
    smooth = (2 + columns / 160 + np.sin(rows / 20) / 2).astype(np.float32)
    flow = np.stack([np.sin(columns / 90), np.cos(rows / 70)], axis=-1).astype(np.float16).astype(np.float32)
    shuffles = [
        _raster_codec(first)["compression_opts"][5] for first in (smooth, flow)
    ]  # Blosc's sixth value
    assert shuffles == [1, 2]  # of bytes, of bits
    rng = np.random.default_rng(0)
    lidar = np.where(rng.random(smooth.shape) < 0.02, smooth + rng.random(smooth.shape), np.nan)
    assert (
        _raster_codec(lidar.astype(np.float32))["compression"]
        == dict(hdf5plugin.Zstd(clevel=1))["compression"]
    )
