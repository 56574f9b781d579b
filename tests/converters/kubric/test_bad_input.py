"""Damaged native trees: a typed error names the place, what was expected and what was found."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import converters.kubric as kubric
from converters.native.tfrecord import masked_crc
from datakit.errors import ConventionError, DatakitError, FormatError, LayoutError, UsageError
from datakit.scene import encode_png

from .clips import FRAMES, PARAMS, SIZE, clip_folder, drain, edit_json, edit_record, shard_file, write_clip

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    for form in ("worker", "tfds"):
        write_clip(root / form, form)
    return root


def meta(change: Callable[[dict], object]) -> Damage:
    return lambda folder: edit_json(folder / "metadata.json", lambda value: change(value) and None)


def cut(name: str, keep: int) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:keep])

    return damage


def flip(name: str, at: int) -> Damage:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 0x10
        (folder / name).write_bytes(data)

    return damage


def set_value(section: str, field: str, index: tuple[int, ...], value: float) -> Damage:
    def change(metadata: dict) -> None:
        target = metadata[section] if section != "instances" else metadata["instances"][1]
        for i in (field, *index[:-1]):
            target = target[i]
        target[index[-1]] = value

    return meta(change)


NAN = float("nan")
WORKER_CASES: dict[str, tuple[Damage, type[DatakitError], list[str]]] = {
    "truncated png": (cut("normal_00002.png", 200), FormatError, ["normal_00002.png", "truncated"]),
    "flipped bit in a png": (flip("rgba_00001.png", 60), FormatError, ["rgba_00001.png", "CRC"]),
    "not a png": (
        lambda f: (f / "rgba_00000.png").write_bytes(b"GIF89a"),
        FormatError,
        ["rgba_00000.png", "Not a PNG"],
    ),
    "8-bit normals": (
        lambda f: (f / "normal_00000.png").write_bytes(encode_png(np.zeros((*SIZE[::-1], 3), np.uint8))),
        FormatError,
        ["normal_00000.png", "16 bits", "8 bits"],
    ),
    "image of another size": (
        lambda f: (f / "normal_00003.png").write_bytes(encode_png(np.zeros((5, 7, 3), np.uint16))),
        FormatError,
        ["normal_00003.png", "(7, 5)", str(SIZE)],
    ),
    "truncated tiff": (cut("depth_00003.tiff", 4000), FormatError, ["depth_00003.tiff", "truncated", "4000"]),
    "tiff cut in its directory": (
        cut("depth_00003.tiff", 30),
        FormatError,
        ["depth_00003.tiff", "truncated"],
    ),
    "not a tiff": (
        lambda f: (f / "depth_00000.tiff").write_bytes(b"\x89PNG"),
        FormatError,
        ["depth_00000.tiff", "byte 0"],
    ),
    "missing frame": (
        lambda f: (f / "forward_flow_00002.png").unlink(),
        LayoutError,
        ["forward_flow_00002.png", "frames 0..4", "missing: [2]"],
    ),
    "frame beyond the clip": (
        lambda f: shutil.copy(f / "rgba_00000.png", f / "rgba_00005.png"),
        LayoutError,
        ["rgba_00005.png", "extra"],
    ),
    "num_frames too large": (
        meta(lambda m: m["metadata"].update(num_frames=6)),
        LayoutError,
        ["rgba_00005.png", "missing: [5]"],
    ),
    "no depth at all": (
        lambda f: [path.unlink() for path in f.glob("depth_*")],
        LayoutError,
        ["depth_00000.tiff", "0 files"],
    ),
    "no metadata": (lambda f: (f / "metadata.json").unlink(), LayoutError, ["metadata.json"]),
    "no flow ranges": (lambda f: (f / "data_ranges.json").unlink(), LayoutError, ["data_ranges.json"]),
    "flow range of one layer missing": (
        lambda f: edit_json(f / "data_ranges.json", lambda r: r.pop("backward_flow") and None),
        FormatError,
        ["data_ranges.json", "backward_flow"],
    ),
    "flow range upside down": (
        lambda f: edit_json(f / "data_ranges.json", lambda r: r.update(forward_flow={"min": 2, "max": 1})),
        ConventionError,
        ["data_ranges.json: forward_flow", "min <= max"],
    ),
    "truncated json": (cut("metadata.json", 999), FormatError, ["metadata.json", "character"]),
    "json of another encoding": (
        lambda f: (f / "events.json").write_bytes(b'{"collisions": "\xff\xfe"}'),
        FormatError,
        ["events.json", "byte"],
    ),
    "collision without a frame": (
        lambda f: (f / "events.json").write_text(json.dumps({"collisions": [{"instances": [0, 1]}]})),
        FormatError,
        ["events.json: collisions"],
    ),
    "json nested too deep": (
        lambda f: (f / "events.json").write_text("[" * 100_000),
        FormatError,
        ["events.json", "recursion"],
    ),
    "json with a number of thousands of digits": (
        lambda f: (f / "data_ranges.json").write_text('{"forward_flow": ' + "9" * 5000 + "}"),
        FormatError,
        ["data_ranges.json", "digits"],
    ),
    "collision at no time": (
        lambda f: (f / "events.json").write_text(
            '{"collisions": [{"instances": [0, 1], "frame": NaN, "force": 1}]}'
        ),
        ConventionError,
        ["events.json: collisions"],
    ),
    "collision of what has no number": (
        lambda f: (f / "events.json").write_text(
            '{"collisions": [{"instances": ["a", 1], "frame": 1, "force": 1}]}'
        ),
        FormatError,
        ["events.json: collisions"],
    ),
    "NaN camera position": (
        set_value("camera", "positions", (3, 1), NAN),
        ConventionError,
        ["metadata.json: camera.positions, frame 3", "nan"],
    ),
    "NaN instance quaternion": (
        set_value("instances", "quaternions", (2, 0), NAN),
        ConventionError,
        ["instances[1].quaternions, frame 2"],
    ),
    "infinite box corner": (
        set_value("instances", "bboxes_3d", (4, 7, 2), float("inf")),
        ConventionError,
        ["instances[1].bboxes_3d, frame 4"],
    ),
    "quaternion of norm 2": (
        meta(lambda m: m["camera"]["quaternions"].__setitem__(1, [2.0, 0, 0, 0])),
        ConventionError,
        ["camera.quaternions, frame 1", "2.0"],
    ),
    "box corner out of place": (
        set_value("instances", "bboxes_3d", (0, 3, 0), 5.0),
        ConventionError,
        ["instances[1].bboxes_3d, frame 0", "residual"],
    ),
    "pose array too short": (
        meta(lambda m: m["camera"]["positions"].pop()),
        FormatError,
        ["camera.positions", f"({FRAMES}, 3)", f"({FRAMES - 1}, 3)"],
    ),
    "instance array of another length": (
        meta(lambda m: m["instances"][2]["bboxes_3d"].pop()),
        FormatError,
        ["instances[2].bboxes_3d", f"({FRAMES}, 8, 3)"],
    ),
    "instance field missing": (
        meta(lambda m: m["instances"][0].pop("quaternions")),
        FormatError,
        ["instances[0]", "quaternions"],
    ),
    "missing instance in the middle": (
        meta(lambda m: m["instances"].pop(1)),
        ConventionError,
        ["segmentation_00000.png"],
    ),
    "missing last instance": (
        meta(lambda m: m["instances"].pop()),
        ConventionError,
        ["segmentation_", "ids"],
    ),
    "instances in another order": (
        meta(lambda m: m["instances"].reverse() or True),
        ConventionError,
        ["segmentation_00000.png", "visibility"],
    ),
    "more instances than num_instances": (
        meta(lambda m: m["metadata"].update(num_instances=1)),
        ConventionError,
        ["metadata.json: instances", "expected: 1"],
    ),
    "more instances than 8-bit ids": (
        meta(lambda m: m.update(instances=m["instances"][:1] * 256)),
        ConventionError,
        ["255", "256", "wrapped"],
    ),
    "K in pixels": (
        meta(lambda m: m["camera"].update(K=[[52.5, 0, 24], [0, 52.5, 16], [0, 0, 1]])),
        ConventionError,
        ["camera.K", "normalised"],
    ),
    "field of view in degrees": (
        meta(lambda m: m["camera"].update(field_of_view=49.13)),
        ConventionError,
        ["camera.field_of_view", "radians"],
    ),
    "focal length zero": (
        meta(lambda m: m["camera"].update(focal_length=0)),
        FormatError,
        ["camera", "not positive"],
    ),
    "resolution of text": (
        meta(lambda m: m["metadata"].update(resolution="48x32")),
        FormatError,
        ["metadata.resolution"],
    ),
    "resolution of nothing": (
        meta(lambda m: m["metadata"].update(resolution=[0, 32])),
        FormatError,
        ["metadata.resolution", "absurd"],
    ),
    "resolution of no photo": (
        meta(lambda m: m["metadata"].update(resolution=[1e300, 1e300])),
        FormatError,
        ["metadata.resolution", "absurd"],
    ),
    "height and width swapped": (
        meta(lambda m: m["metadata"].update(resolution=[SIZE[1], SIZE[0]])),
        DatakitError,
        ["expected", "found"],
    ),
    "frame leaves the root": (
        lambda f: _link_outside(f / "rgba_00001.png"),
        LayoutError,
        ["rgba_00001.png", "leaves"],
    ),
}


def _link_outside(path: Path) -> None:
    outside = path.parents[2] / "outside.png"
    shutil.move(path, outside)
    os.symlink(outside, path)


@pytest.mark.parametrize("name", WORKER_CASES)
def test_damaged_worker_folder(pristine: Path, tmp_path: Path, name: str) -> None:
    damage, kind, parts = WORKER_CASES[name]
    root = Path(shutil.copytree(pristine / "worker", tmp_path / "raw"))
    damage(clip_folder(root))
    with pytest.raises(kind) as caught:
        drain(root)
    for part in parts:
        assert part in str(caught.value)


def edit_shard(change: Callable[[bytearray], bytes | bytearray]) -> Damage:
    def damage(root: Path) -> None:
        path = shard_file(root)
        path.write_bytes(change(bytearray(path.read_bytes())))

    return damage


def with_length(data: bytearray, length: int, crc: int | None = None) -> bytearray:
    head = struct.pack("<Q", length)
    data[:12] = head + struct.pack("<I", masked_crc(head) if crc is None else crc)
    return data


def flipped(data: bytearray, at: int) -> bytearray:
    data[at] ^= 1
    return data


def feature(change: Callable[[object], object]) -> Damage:
    return lambda root: edit_record(root, lambda features: change(features) and None)


def info(change: Callable[[dict], object]) -> Damage:
    return lambda root: edit_json(next(root.rglob("dataset_info.json")), lambda value: change(value) and None)


TFDS_CASES: dict[str, tuple[Damage, type[DatakitError], list[str]]] = {
    "truncated payload": (
        edit_shard(lambda d: d[:5000]),
        FormatError,
        ["tfrecord-00000", "byte 0", "truncated", "5000"],
    ),
    "truncated header": (edit_shard(lambda d: d + d[:7]), FormatError, ["truncated", "12 bytes", "7 bytes"]),
    "huge length with a good crc": (
        edit_shard(lambda d: with_length(d, 2**62)),
        FormatError,
        ["byte 0", str(2**62 + 16)],
    ),
    "huge length with a wrong crc": (
        edit_shard(lambda d: with_length(d, 2**62, 7)),
        FormatError,
        ["length field fails its CRC", "0x00000007"],
    ),
    "wrong payload crc": (edit_shard(lambda d: flipped(d, 4000)), FormatError, ["fails its CRC", "byte 12"]),
    "wrong footer": (edit_shard(lambda d: flipped(d, len(d) - 1)), FormatError, ["fails its CRC"]),
    "payload that is no example": (
        edit_shard(lambda d: _reframed(b"\x0b" * 50)),
        FormatError,
        ["tf.train.Example", "byte 0"],
    ),
    "empty payload": (edit_shard(lambda d: _reframed(b"")), FormatError, ["metadata/width"]),
    "shard with too many records": (edit_shard(lambda d: d + d), FormatError, ["expected: 1", "found: 2"]),
    "missing shard": (
        lambda root: shard_file(root).unlink(),
        LayoutError,
        ["tfrecord-00000-of-00001", "allow_missing_shards"],
    ),
    "shard count of dataset_info.json": (
        info(lambda i: i["splits"][0].update(shardLengths=["1", "1"])),
        LayoutError,
        ["00000-of-00002"],
    ),
    "template that leaves the root": (
        info(lambda i: i["splits"][0].update(filepathTemplate="../../../../../{SPLIT}")),
        LayoutError,
        ["leaves the dataset's root"],
    ),
    "no features.json": (
        lambda root: next(root.rglob("features.json")).unlink(),
        LayoutError,
        ["features.json"],
    ),
    "splits of another type": (info(lambda i: i.update(splits=5)), FormatError, ["splits", "int"]),
    "template of another type": (
        info(lambda i: i["splits"][0].update(filepathTemplate=[1])),
        FormatError,
        ["splits", "[1]"],
    ),
    # Each takes the product of two lengths when it is expanded.
    "template without end": (
        info(lambda i: i["splits"][0].update(filepathTemplate="{SPLIT}" * 100_000, name="x" * 200)),
        FormatError,
        ["splits", "255"],
    ),
    "name without end": (info(lambda i: i.update(name="x" * 100_000)), FormatError, ["255"]),
    "name with a NUL": (info(lambda i: i.update(name="a\0b")), FormatError, ["printable"]),
    "infinite shard length": (
        info(lambda i: i["splits"][0].update(shardLengths=[float("inf")])),
        FormatError,
        ["Shard lengths"],
    ),
    "features of another type": (
        lambda root: next(root.rglob("features.json")).write_text('{"featuresDict": {"features": [5]}}'),
        FormatError,
        ["features.json: features", "list"],
    ),
    "features nested without end": (
        lambda root: next(root.rglob("features.json")).write_text(
            '{"featuresDict": {"features": {"'
            + "x" * 200
            + '": ' * 1
            + '{"featuresDict": {"features": {"'
            + "y" * 200
            + '": {"sequence": 5}}}}}}}'
        ),
        FormatError,
        ["features.json", "255"],
    ),
    "no splits": (info(lambda i: i.pop("splits")), FormatError, ["dataset_info.json", "splits"]),
    "record without a name": (
        feature(lambda f: f["metadata/video_name"].bytes_list.Clear() or True),
        FormatError,
        ["metadata/video_name", "no value"],
    ),
    "declared layer missing from the record": (
        feature(lambda f: f.pop("normal") or True),
        FormatError,
        ["normal", "missing"],
    ),
    "layer with a frame too few": (
        feature(lambda f: f["video"].bytes_list.value.pop()),
        FormatError,
        [": video", f"expected: {FRAMES}", f"found: {FRAMES - 1}"],
    ),
    "layer of another type": (
        feature(lambda f: f["video"].int64_list.value.append(1) or True),
        FormatError,
        [": video", "expected: bytes", "found: ints"],
    ),
    "truncated png in a record": (
        feature(lambda f: f["video"].bytes_list.value.__setitem__(1, f["video"].bytes_list.value[1][:80])),
        FormatError,
        ["video, frame 1", "truncated"],
    ),
    "flow with too few values": (
        feature(lambda f: f["forward_flow"].int64_list.value.pop() + 1),
        FormatError,
        ["forward_flow", "number of values"],
    ),
    "flow value beyond 16 bits": (
        feature(lambda f: f["forward_flow"].int64_list.value.__setitem__(9, 70000)),
        FormatError,
        ["forward_flow", "0..65535", "70000"],
    ),
    "NaN pose": (
        feature(lambda f: f["camera/positions"].float_list.value.__setitem__(7, NAN)),
        ConventionError,
        ["camera/positions, frame 2", "nan"],
    ),
    "instance arrays of different lengths": (
        feature(lambda f: f["instances/positions"].float_list.value.__delitem__(slice(3 * FRAMES))),
        FormatError,
        ["instances", "positions"],
    ),
    "missing instance": (feature(lambda f: _drop_instance(f)), ConventionError, ["segmentations, frame 0"]),
    "field of view in degrees": (
        feature(lambda f: f["camera/field_of_view"].float_list.value.__setitem__(0, 49.0)),
        ConventionError,
        ["field_of_view"],
    ),
}


def _reframed(payload: bytes) -> bytes:
    from converters.kubric.write_tfds import frame_record

    return frame_record(payload)


def _drop_instance(features: object) -> bool:
    for key, size in (("positions", 3), ("quaternions", 4), ("bboxes_3d", 24), ("image_positions", 2)):
        del features[f"instances/{key}"].float_list.value[: size * FRAMES]
    del features["instances/asset_id"].bytes_list.value[:1]
    del features["instances/visibility"].int64_list.value[:FRAMES]
    for name in ("mass", "friction", "restitution", "scale"):
        del features[f"instances/{name}"].float_list.value[:1]
    for name in ("category", "is_dynamic"):
        del features[f"instances/{name}"].int64_list.value[:1]
    return True


@pytest.mark.parametrize("name", TFDS_CASES)
def test_damaged_tfds(pristine: Path, tmp_path: Path, name: str) -> None:
    damage, kind, parts = TFDS_CASES[name]
    root = Path(shutil.copytree(pristine / "tfds", tmp_path / "raw"))
    damage(root)
    # A given size keeps the measuring of offsets, which would fail first, out of the way.
    with pytest.raises(kind) as caught:
        drain(root, kubric.Params(render_size=SIZE[0]))
    for part in parts:
        assert part in str(caught.value)


def test_an_unchecked_crc_is_a_choice(pristine: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(pristine / "tfds", tmp_path / "raw"))
    edit_shard(lambda d: flipped(d, len(d) - 1))(root)
    drain(root, kubric.Params(check_crc=False))


def test_missing_shards_can_be_allowed(pristine: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(pristine / "tfds", tmp_path / "raw"))
    path = shard_file(root)
    path.rename(path.with_name(path.name.replace("-of-00001", "-of-00002")))
    info(lambda i: i["splits"][0].update(shardLengths=["1", "1"]))(root)
    with pytest.raises(LayoutError):
        list(kubric.scenes(root, PARAMS))
    assert len(list(kubric.scenes(root, kubric.Params(allow_missing_shards=True)))) == 1


def test_a_huge_length_is_refused_before_anything_is_allocated(pristine: Path, tmp_path: Path) -> None:
    import tracemalloc

    root = Path(shutil.copytree(pristine / "tfds", tmp_path / "raw"))
    edit_shard(lambda d: with_length(d, 2**33))(root)
    tracemalloc.start()
    with pytest.raises(FormatError):
        list(kubric.scenes(root, PARAMS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_no_kubric_here(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="No Kubric clips"):
        list(kubric.scenes(tmp_path, PARAMS))
    with pytest.raises(LayoutError, match="not a folder"):
        list(kubric.scenes(tmp_path / "nowhere", PARAMS))


def test_two_clips_of_one_id(pristine: Path, tmp_path: Path) -> None:
    folder = clip_folder(pristine / "worker")
    shutil.copytree(folder, tmp_path / "a" / "b")
    shutil.copytree(folder, tmp_path / "a-b")
    with pytest.raises(LayoutError, match="same id"):
        list(kubric.scenes(tmp_path, PARAMS))


def test_a_scene_reference_cannot_leave_the_root(pristine: Path) -> None:
    root = pristine / "worker"
    ref = next(iter(kubric.scenes(root, PARAMS)))
    ref.location["path"] = "../../etc"
    with pytest.raises(LayoutError, match="leaves"):
        kubric.read(root, ref, PARAMS)
    ref.location["form"] = "zip"
    with pytest.raises(UsageError):
        kubric.read(root, ref, PARAMS)


def test_a_linked_folder_cannot_leave_the_root(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    os.symlink(pristine / "worker", tmp_path / "raw" / "elsewhere")
    with pytest.raises(LayoutError, match="leaves"):
        list(kubric.scenes(tmp_path / "raw", PARAMS))
    assert [p.severity for p in kubric.probe(tmp_path / "raw").problems] == ["error"]


def test_params_refuse_unknown_names_and_sizes_that_do_not_divide(pristine: Path) -> None:
    with pytest.raises(ValidationError):
        kubric.Params(rendersize=256)
    with pytest.raises(UsageError, match="whole multiple"):
        drain(pristine / "tfds", kubric.Params(render_size=100))


@pytest.mark.parametrize(
    "name", ["truncated png", "truncated tiff", "missing frame", "no metadata", "truncated json"]
)
def test_the_doctor_reports_damaged_worker_folders(pristine: Path, tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(pristine / "worker", tmp_path / "raw"))
    WORKER_CASES[name][0](clip_folder(root))
    errors = [p for p in kubric.probe(root).problems if p.severity == "error"]
    assert len(errors) == 1
    assert WORKER_CASES[name][2][0] in errors[0].where + errors[0].what and errors[0].mend


@pytest.mark.parametrize(
    "name",
    ["truncated payload", "huge length with a good crc", "missing shard", "shard with too many records"],
)
def test_the_doctor_reports_damaged_shards(pristine: Path, tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(pristine / "tfds", tmp_path / "raw"))
    TFDS_CASES[name][0](root)
    (problem,) = kubric.probe(root).problems
    assert problem.severity == "error" and "tfrecord" in problem.where and problem.mend


def test_the_doctor_never_raises(tmp_path: Path) -> None:
    assert kubric.probe(tmp_path).problems and kubric.probe(tmp_path / "nowhere").problems
    (tmp_path / "dataset_info.json").write_bytes(b"\xff{")
    assert kubric.probe(tmp_path).problems[0].severity == "error"
