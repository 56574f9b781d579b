"""What is fuzzed: for each parser of native files, inputs to start from and what is done with each input."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from datakit.errors import DatakitError

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """Inputs to start from, and what is done with each."""

    seeds: list[bytes]
    parse: Parse


def right_png(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def right_records(data: bytes) -> bytes:
    """Frame bytes as one TFRecord with right checksums."""
    from converters.native.tfrecord import masked_crc

    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


#: What a value is replaced by.
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        2,
        255,
        1 << 31,
        (1 << 63) - 1,
        -(1 << 63),
        0.5,
        1e-320,
        1e5,
        -1e20,
        1e154,
        1.7e308,
    ),
    *(float("nan"), float("inf"), "", "x", "1", "NaN", "../x", "a\0b", "\ud800", "x" * 300, b"x"),
    *([], [1], [0.5, "x"], [[1.0]], [None], {}, {"path": "x"}, {"min": 0}),
)


def edited(value: Any, data: bytes) -> Any:
    """Copy nested lists and objects with a value replaced for every three bytes: which one, and by what.

    Of the syntax of JSON nothing is lost so, as most mutations of a text do.
    """
    out = copy.deepcopy(value)
    for at in range(0, len(data) - 2, 3):
        places: list[tuple[Any, Any]] = []
        _list_places(out, places)
        holder, key = places[int.from_bytes(data[at : at + 2], "little") % len(places)]
        if data[at + 2] == 255:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(ODD[data[at + 2] % len(ODD)])
        if not out:
            return out
    return out


def _list_places(value: Any, places: list[tuple[Any, Any]]) -> None:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        places.append((value, key))
        if isinstance(each, (dict, list)):
            _list_places(each, places)


def edited_message(message: Any, data: bytes) -> Any:
    """Copy a protobuf message with a number replaced for every three bytes: which one, and by what."""
    out = copy.deepcopy(message)
    places: list[tuple[Any, Any, bool]] = []
    _list_numbers(out, places)
    for at in range(0, len(data) - 2, 3):
        holder, key, is_float = places[int.from_bytes(data[at : at + 2], "little") % len(places)]
        odd = (ODD_FLOATS if is_float else ODD_INTEGERS)[data[at + 2] % 12]
        if isinstance(key, int):
            holder[key] = odd
        else:
            setattr(holder, key, odd)
    return out


ODD_FLOATS = (float("nan"), float("inf"), 0.0, -1.0, 1e-320, 1e5, 1e9, -1e20, 1e38, 1e154, 1.7e308, -1.7e308)
ODD_INTEGERS = (0, 1, -1, 2, 3, 5, 6, 100, 1 << 15, 1 << 28, (1 << 31) - 1, -(1 << 31))


def _list_numbers(message: Any, places: list[tuple[Any, Any, bool]]) -> None:
    for field, value in message.ListFields():
        # Of descriptor.h: 1 and 2 are integers, 5 and 6 floats.
        is_float, is_number = field.cpp_type in (5, 6), field.cpp_type in (1, 2, 5, 6)
        is_repeated = hasattr(value, "__len__")
        if field.message_type is not None:
            for each in value if is_repeated else [value]:
                _list_numbers(each, places)
        elif is_number and is_repeated:
            places += [(value, index, is_float) for index in range(len(value))]
        elif is_number:
            places.append((message, field.name, is_float))


#: Edits to start from.
EDITS = [b"", bytes(3), b"\5\0\x10\7\0\x0f\2\0\xff"]


# --- targets ------------------------------------------------------------------------------------------------------


def _blendedmvs(_: Path) -> dict[str, Target]:
    from converters.blendedmvs import pfm, texts

    def cam(data: bytes) -> None:
        camera = texts.parse_cam(data, "x")
        texts.pose_of(camera, "x")
        texts.intrinsics_of(camera, "x")

    values = np.array([[1, 2.5, np.nan], [0, np.inf, 3]], np.float32)
    rows = (
        b"extrinsic\n0 -1 0 1 \n1 0 0 2 \n0 0 1 3 \n0 0 0 1 \n\nintrinsic\n50 0 33.5 \n0 52 23 \n0 0 1 \n\n"
    )
    return {
        "pfm": Target(
            [f"Pf\n3 2\n{s}\n".encode() + values.tobytes() for s in ("-1.000000", "1.0")],
            lambda data: pfm.z_from_pfm(pfm.parse_pfm(data, "x")),
        ),
        "cam": Target([rows + tail for tail in (b"1 0.5\n", b"1 0.5 4\n", b"1e0 .5 4.0 9\n")], cam),
        "pair": Target([b"3\n0\n2 1 50.5 9 1e1 \n1\n0  \n9\n1 0 3\n"], lambda d: texts.parse_pairs(d, "x")),
        "list": Target([b"5b7a3890fc8fcf6781e2593a\r\n"], lambda data: texts.parse_list(data, "x")),
    }


def _co3dv2(folder: Path) -> dict[str, Target]:
    from converters.co3dv2 import Params, annotations, camera, images, jgz, setlists

    frame = {
        "sequence_name": "110_13051_23361",
        "frame_number": 3,
        "frame_timestamp": 0.5,
        "image": {"path": "a/b.jpg", "size": [3, 4]},
        "depth": {"path": "a/b.png", "scale_adjustment": 1.0, "mask_path": None},
        "mask": {"path": "a/m.png", "mass": 10.0},
        "viewpoint": {
            "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            "T": [0, 0, 5],
            "focal_length": [4, 4.5],
            "principal_point": [0.1, -0.2],
            "intrinsics_format": "ndc_isotropic",
        },
        "meta": {"frame_type": "train_known"},
    }
    text = json.dumps([frame, {**frame, "viewpoint": None, "depth": None}]).encode()

    def notes(data: bytes) -> None:
        for item in jgz.array_items([data[:37], data[37:]], "x"):
            note = annotations.parse_frame(item.value, "x")
            if note.viewpoint is not None:
                camera.intrinsics_of(note.viewpoint, note.size)
                camera.pose_of(note.viewpoint, Params())

    def frame_values(data: bytes) -> None:
        note = annotations.parse_frame(edited(frame, data), "x")
        if note.viewpoint is not None:
            camera.intrinsics_of(note.viewpoint, note.size)
            camera.pose_of(note.viewpoint, Params())

    def sequences(data: bytes) -> None:
        for item in jgz.array_items([data], "x"):
            annotations.parse_sequence(item.value, "x")

    def unpacked(data: bytes) -> None:
        path = folder / "x.jgz"
        path.write_bytes(data)
        for item in jgz.array_items(jgz.Unpacked(path).pieces(), "x"):
            annotations.parse_frame(item.value, "x")

    def depth(data: bytes) -> None:
        images.depth_codes(data, (4, 3), "x")

    def mask(data: bytes) -> None:
        images.check_mask(data, images.mask_bits(data[:25]), (4, 3), "x")
        images.is_black(data, "x")

    from datakit.scene import encode_png

    depth_png = encode_png(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    masks = [encode_png(np.ones((3, 4), np.uint8)), images.empty_mask(1, (4, 3))]
    sequence = b'[{"sequence_name": "s", "viewpoint_quality_score": 0.5, "point_cloud": {"n_points": 3}}]'
    lists = b'{"train": [["s", 1, "p"], ["s", 0, "p"]], "val": [], "test": [["t", 3, "p"]]}'
    return {
        "frame-annotations": Target([text], notes),
        "frame-values": Target(EDITS, frame_values),
        "sequence-annotations": Target([sequence], sequences),
        "jgz": Target([gzip.compress(text, mtime=0)], unpacked),
        "set-list": Target([lists], lambda data: setlists.parse_list(data, "x")),
        "depth-png": Target([depth_png], lambda data: depth(right_png(data))),
        "depth-png-raw": Target([depth_png], depth),
        "mask-png": Target(masks, lambda data: mask(right_png(data))),
    }


def _scannet(folder: Path) -> dict[str, Target]:
    from converters.scannet import assemble, exported, sens, texts
    from tests.converters.scannet.scans import write_hand

    def sens_file(data: bytes) -> None:
        file = io.BytesIO(data)
        index = sens.read_index(file, "x")
        sens.calibration(index.header, "x")
        names = [str(t) for t in range(len(index.timestamps))]
        assemble.exact_poses(index.camera_to_world, "x", names)
        assemble.steady_times(index.timestamps)
        for t in range(len(names)):
            _, _, depth = sens.read_payloads(file, index, t, "x")
            sens.decode_depth(depth, index.header, "x")

    def matrix(data: bytes) -> None:
        found = texts.parse_matrix(data.decode("latin-1"), "x")
        with contextlib.suppress(DatakitError):
            assemble.corner_k(found, (640, 480), "x")
        assemble.exact_poses(found[None], "x", ["0"])

    def scan(data: bytes) -> None:
        (folder / "x.txt").write_bytes(data)
        texts.scan_metadata(folder, Path("x.txt"), [])

    def info(data: bytes) -> None:
        (folder / exported.INFO).write_bytes(data)
        matrices, shift = exported._info(folder, Path(), {"color": (4, 3), "depth": (4, 3)}, [])
        assemble.check_registered({k: v for k, v in matrices.items() if k.startswith("extrinsic")}, "x")
        assemble.corner_k(matrices["intrinsic_color"], (4, 3), "x")
        assemble.z_of_code(assemble.metres_per_code(shift, "x"))

    eye = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
    sizes = "".join(f"m_{part}Width = 4\nm_{part}Height = 3\n" for part in ("color", "depth"))
    rows = "".join(
        f"{key} = {eye if 'Extrinsic' in key else '4 0 1.5 0 0 4 1 0 0 0 1 0 0 0 0 1'}\n"
        for key in exported._INFO_MATRICES.values()
    )
    pgm = b"P5 4 3 65535\n" + bytes(24)
    matrices = [b"1 0 0 2.5\n0 1 0 -inf\n0 0 1 0\n0 0 0 1\n", b"577 0 319 0\n0 578 239 0\n0 0 1 0\n0 0 0 1\n"]
    about = (
        f"axisAlignment = {eye} \r\nsceneType = Apartment\nnumColorFrames = 5578\nnumIMUmeasurements = 9\n"
    )
    return {
        "sens": Target([write_hand(folder).read_bytes()], sens_file),
        "pgm": Target([pgm], lambda data: exported._depth_codes(data, (4, 3), "x")),
        "matrix": Target(matrices, matrix),
        "scan-txt": Target([about.encode()], scan),
        "scan-info": Target([f"{sizes}m_depthShift = 1000\n{rows}".encode()], info),
    }


def _colmap(folder: Path) -> dict[str, Target]:
    from converters.colmap import dense, lens
    from converters.colmap.model import FILES, parse_model
    from tests.converters.colmap.workspaces import write_hand

    out: dict[str, Target] = {}
    for suffix in (".bin", ".txt"):
        model = write_hand(folder / suffix[1:], as_text=suffix == ".txt") / "sparse" / "0"
        good = [(model / f"{name}{suffix}").read_bytes() for name in FILES]
        for number, name in enumerate(FILES):

            def parse(
                data: bytes, number: int = number, good: list[bytes] = good, suffix: str = suffix
            ) -> None:
                files = [*good[:number], data, *good[number + 1 :]]
                for camera in parse_model(*files, suffix, FILES).cameras.values():
                    lens.lens_of(camera, "auto", "x")

            out[f"colmap-{name}-{suffix[1:]}"] = Target([good[number]], parse)
    depth = b"4&3&1&" + np.arange(12, dtype="<f4").tobytes()
    out["colmap-depth"] = Target([depth], lambda data: dense.parse_depth_map(data, "x"))
    return out


def _lenses(_: Path) -> dict[str, Target]:
    """Cameras as pycolmap gets them: its C++ may refuse one, but neither end the process nor fail to end."""
    from converters.colmap import lens
    from datakit.export.colmap_model import CAMERA_MODELS, ColmapCamera
    from datakit.geometry import unproject_distorted

    models = sorted(CAMERA_MODELS)
    points = np.random.default_rng(0).normal(size=(8, 3))

    def use(data: bytes) -> None:
        camera, distortion = camera_of(data)
        stored = lens.lens_of(camera, distortion, "x")
        lens.project_source(camera, points)
        width, height = stored.size
        uv_px = np.array([[0.5, 0.5], [width / 2, height / 2], [width - 0.5, height - 0.5]])
        unproject_distorted(uv_px, np.ones(3), stored.intrinsics, stored.model, stored.distortion)
        if stored.source is not None:
            straight = lens.rectify(np.zeros((camera.size[1], camera.size[0], 3), np.uint8), stored)
            assert straight.shape[1::-1] == stored.size

    def camera_of(data: bytes) -> tuple[ColmapCamera, str]:
        """Read model, parameter, size, and numbers: floats as they come, or what a camera has about that place."""
        head, rest = data[:5].ljust(5, b"\0"), data[5:]
        name = models[head[0] % len(models)]
        size = (1 + head[2] % 64, 1 + head[3] % 64)
        count = CAMERA_MODELS[name][1]
        codes = np.frombuffer(rest[: 4 * count].ljust(4 * count, b"\0"), "<i2").astype(float).reshape(-1, 2)
        raw = np.frombuffer(rest[: 4 * count].ljust(4 * count, b"\0"), "<f4").astype(float)
        num_focal = lens._KEPT[name][1] if name in lens._KEPT else lens._RECTIFIED_ONLY.get(name, 1)
        steps = [2e-3 * max(size)] * num_focal + [size[0] / 3e4, size[1] / 3e4] + [2e-3] * count
        tame = codes[:, 0] * np.array(steps[:count])
        mixed = np.where((head[4] >> (np.arange(count) % 8)) & 1, raw, tame)
        return ColmapCamera(1, name, size, tuple(float(v) for v in mixed)), ("auto", "keep", "undistort")[
            head[1] % 3
        ]

    seeds = []
    for number, name in enumerate(models):
        mild = np.zeros((CAMERA_MODELS[name][1], 2), "<i2")
        mild[:4, 0], mild[4:, 0] = (600, 15000, 15000, 15000)[: len(mild)], 5
        seeds.append(bytes([number, 2, 31, 23, 0]) + mild.tobytes())
    return {"colmap-lens": Target(seeds, use)}


def _records(folder: Path) -> dict[str, Target]:
    from converters.native.tfrecord import read_record, walk_records

    path = folder / "x.tfrecord"

    def records(data: bytes) -> None:
        path.write_bytes(data)
        for span in walk_records(path):
            read_record(path, span, True)

    whole = right_records(b"payload")
    return {
        "tfrecord": Target([b"payload"], lambda data: records(right_records(data))),
        "tfrecord-raw": Target([whole, whole + right_records(b"")], records),
    }


def _photos(_: Path) -> dict[str, Target]:
    from datakit.scene.codecs import decode_image, jpeg_head

    pixels = Image.fromarray((np.arange(20 * 24 * 3) % 251).astype(np.uint8).reshape(20, 24, 3))
    seeds = []
    for options in (
        {"quality": 30},
        {"quality": 60, "progressive": True},
        {"subsampling": 0, "restart_marker_rows": 1},
    ):
        file = io.BytesIO()
        pixels.save(file, "JPEG", **options)
        seeds.append(file.getvalue())
    file = io.BytesIO()
    pixels.convert("L").save(file, "JPEG")

    def photo(data: bytes) -> None:
        jpeg_head(data, "x")
        decode_image(data, "x")

    return {"jpeg": Target([*seeds, file.getvalue()], photo)}


def _kubric(folder: Path) -> dict[str, Target]:
    from converters.kubric import assemble, movi, tfds, worker
    from converters.kubric.camera import camera_poses, intrinsics_from_camera
    from converters.kubric.example import parse_example
    from converters.kubric.images import KINDS, decode_indices
    from converters.kubric.motion import instance_tracks, motion_record
    from converters.kubric.params import Params
    from converters.kubric.record import MoviRecord
    from converters.kubric.tiff import pixels_end
    from converters.kubric.write_common import capture
    from converters.kubric.write_example import serialise_example
    from converters.kubric.write_features import dataset_info, features_json
    from converters.kubric.write_tfds import record_features
    from converters.kubric.write_worker import write_clip
    from converters.native.png import check_png_kind
    from datakit.convert.api import SceneRef
    from datakit.scene import decode_image
    from datakit.worlds import random_world

    size, num_frames = (8, 6), 2
    shot = capture(random_world(1, num_frames=num_frames, size=size))
    write_clip(shot, folder / "clip")
    files = {path.name: path.read_bytes() for path in (folder / "clip").iterdir()}
    described = json.loads(files["metadata.json"])
    described["instances"] = described["instances"][:1]
    described["metadata"] = {
        key: described["metadata"][key] for key in ("resolution", "num_frames", "frame_rate", "num_instances")
    }
    text = json.dumps(described, separators=(",", ":")).encode()
    clip = worker.read_clip(text, "x")

    def metadata(data: bytes) -> None:
        found = worker.read_clip(data, "x")
        camera = worker.field(found.raw, "camera", "x")
        intrinsics_from_camera(camera, found.size, "x")
        camera_poses(camera, found.num_frames, "x")
        tracks = [
            instance_tracks(item, worker._name(item, k), found.num_frames, "x")
            for k, item in enumerate(found.raw["instances"])
        ]
        motion_record(tracks, np.arange(found.num_frames) / found.frame_rate)
        worker._visibility(found)
        worker._metadata(found, None)

    def metadata_values(data: bytes) -> None:
        metadata(json.dumps(edited(few_values, data), default=lambda value: None).encode())

    few_values = copy.deepcopy(described)
    few_values["instances"][0] = {
        key: value for key, value in described["instances"][0].items() if key not in ("bboxes", "bbox_frames")
    }

    def ranges(data: bytes) -> None:
        (folder / "data_ranges.json").write_bytes(data)
        for each in (clip, replace(clip, size=(8, 8), flow_is_fraction=True)):
            worker._flow_ranges(folder, Path(), each, {"forward_flow": [], "backward_flow": []}, [])

    def events(data: bytes) -> None:
        (folder / "events.json").write_bytes(data)
        worker._collisions(folder, Path(), [])

    def tiff(data: bytes) -> None:
        with contextlib.suppress(DatakitError):
            pixels_end(data[:4096], "x")
        assemble.z_from_distance(worker._distance(data, size, "x"), np.diag([9.0, 9.0, 1.0]))

    layers = sorted(KINDS)

    def png(data: bytes) -> None:
        """A layer that the first byte names, and the bytes of its image."""
        name, image = layers[data[0] % len(layers) if data else 0], right_png(data[1:])
        check_png_kind(image, KINDS[name], size, "x")
        if name.startswith("segmentation"):
            assemble.check_ids(decode_indices(image, "x"), np.zeros(3, np.int64), 3, "x")
        decode_image(image, "x")

    at = folder / "set" / "1.0.0"
    at.mkdir(parents=True)
    info = json.dumps(dataset_info("8x8", {"train": ([1, 1], 9)}), separators=(",", ":")).encode()
    features = json.dumps(features_json(*size, num_frames), separators=(",", ":")).encode()
    (at / "shape_label.labels.txt").write_bytes(b"cube\n")

    def config(data: bytes, name: str) -> None:
        (at / tfds.INFO).write_bytes(info)
        (at / tfds.FEATURES).write_bytes(features)
        (at / name).write_bytes(data)
        found = tfds.read_config(folder / "set", Path("1.0.0"), [])
        for shard in found.shards:
            shard.path.is_file()
        assert found.num_frames is None or isinstance(found.num_frames, int)

    declared = {tfds.INFO: json.loads(info), tfds.FEATURES: json.loads(features)}

    def config_values(data: bytes) -> None:
        """One of the two files, which the first byte says, with values replaced."""
        which = list(declared)[data[0] % 2 if data else 0]
        value = edited(declared[which], data[1:])
        config(json.dumps(value, default=lambda value: None).encode(), which)

    config(info, tfds.INFO)
    known = tfds.read_config(folder / "set", Path("1.0.0"), [])
    ref = SceneRef(id="x", split="none", location={"form": "tfds", "path": "", "shard": ""}, fingerprint="0")

    def record(data: bytes) -> None:
        each = movi._Clip(MoviRecord(parse_example(data, "x"), "x"), known, ref, Params())
        for _ in movi._stream(each, []).frames:
            pass

    def example(data: bytes) -> None:
        """A whole record, or one feature's list, of the kind that the first byte says, as whatever may be asked for."""
        kind, rest = data[0] % 4 if data else 0, data[1:]
        if kind:
            feature = _field(kind, _field(1, rest) if data[0] & 4 else rest)
            rest = _field(1, _field(1, _field(1, b"x") + _field(2, feature)))
        found = MoviRecord(parse_example(rest, "x"), "x")
        for key in list(found.features):
            for ask in (
                lambda key: found.floats(key, (-1, 2)),
                lambda key: found.ints(key, (-1,), np.uint16),
                lambda key: found.ints(key, (-1, 2)),
                found.text,
                lambda key: found.images(key, 1),
            ):
                with contextlib.suppress(DatakitError):
                    ask(key)

    values = record_features(shot, 1)
    few = {
        "a/floats": np.arange(4, dtype=np.float32),
        "ints": np.array([0, -1, 300, 1 << 40]),
        "texts": [b"x", b"\xff"],
    }
    pictures = [
        bytes([number]) + files[f"{name}_00000.png"]
        for number, name in enumerate(layers)
        if f"{name}_00000.png" in files
    ]
    return {
        "kubric-metadata": Target([text], metadata),
        "kubric-values": Target(EDITS, metadata_values),
        "kubric-tfds-values": Target([bytes([k]) + edit for k in (0, 1) for edit in EDITS], config_values),
        "kubric-ranges": Target([files["data_ranges.json"]], ranges),
        "kubric-events": Target(
            [b'{"collisions": [{"instances": [0, -1], "frame": 3.5, "force": 0.25, "position": [1, 2, 3]}]}'],
            events,
        ),
        "kubric-tiff": Target([files["depth_00000.tiff"]], tiff),
        "kubric-png": Target(pictures, png),
        "kubric-tfds-info": Target([info], lambda data: config(data, tfds.INFO)),
        "kubric-tfds-features": Target([features], lambda data: config(data, tfds.FEATURES)),
        "kubric-example": Target(
            [b"\0" + serialise_example(few), b"\x06" + bytes(8), b"\x07\x05\xac\x02\xff\x01"], example
        ),
        "kubric-record": Target([serialise_example(values)], record),
    }


def _replica(folder: Path) -> dict[str, Target]:
    import torch

    from converters.dynamic_replica import annotations, rasters, reading, trajectories
    from converters.native.halves import z_of_code
    from datakit.scene import encode_png

    view = {
        "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "T": [0, 0, 5],
        "focal_length": [4, 4.5],
        "principal_point": [0.1, -0.2],
        "intrinsics_format": "ndc_isotropic",
    }
    item = {
        "sequence_name": "009850-3_obj",
        "frame_number": 0,
        "frame_timestamp": 0.0,
        "camera_name": "left",
        "image": {"path": "a/b.png", "size": [4, 6]},
        "depth": {"path": "a/d.png", "scale_adjustment": 1.0},
        "viewpoint": view,
        "instance_id_map_path": {"path": "a/i.png"},
        "trajectories": {"path": None},
        "flow_forward": {"path": "a/f.png"},
    }
    files, path = reading.Files(folder, Path()), folder / "frame_annotations_valid.jgz"

    def row_of(found: Any) -> None:
        row = annotations._row(found, "x")
        pose = row.world_from_cam
        assert np.isfinite(pose).all() and np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() < 1e-3
        for name in row.paths:
            with contextlib.suppress(DatakitError):
                files.has(row, name)

    def rows() -> None:
        for found in annotations.objects(path):
            row_of(found)

    def notes(data: bytes) -> None:
        path.write_bytes(gzip.compress(data, 1))
        rows()

    def packed(data: bytes) -> None:
        path.write_bytes(data)
        rows()

    size = (6, 4)
    depth = encode_png(np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000)
    both = encode_png(np.arange(48, dtype=np.uint16).reshape(4, 12) * 1300)
    mask = encode_png(np.full((4, 6), 255, np.uint8))

    # Made once: what instrumented code compares, Atheris never lets go.
    z_of = z_of_code(1.5, rasters.NEAREST)

    def flow(data: bytes) -> None:
        """Flow where it is of that width, else its mask."""
        png = right_png(data)
        is_wide = png[16:20] == both[16:20]
        rasters.flow_codes(*((png, mask) if is_wide else (both, png)), size, "x")

    buffer = io.BytesIO()
    content = {
        "traj_3d_world": torch.arange(15.0).reshape(5, 3),
        "verts_inds_vis": torch.ones(5, dtype=torch.bool),
        "instances": torch.ones(5),
        "img": torch.zeros(1, 2, 3, dtype=torch.uint8),
    }
    torch.save(content, buffer)
    saved = buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))

    def pth(data: bytes) -> None:
        vertices = trajectories.read_vertices(data, "x")
        assert vertices.points_world.nbytes <= len(data)

    def pickle_in_pth(data: bytes) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            for name, stored in members.items():
                target.writestr(name, data if name == pickled else stored)
        pth(out.getvalue())

    text = json.dumps([item, {**item, "camera_name": "right", "frame_number": 1}]).encode()
    return {
        "replica-annotations": Target([text], notes),
        "replica-values": Target(EDITS, lambda data: row_of(edited(item, data))),
        "replica-jgz": Target([gzip.compress(text, mtime=0)], packed),
        "replica-depth": Target(
            [depth],
            lambda d: z_of[rasters.depth_codes(right_png(d), size, "x")],
        ),
        "replica-flow": Target([both, mask], flow),
        "replica-instances": Target([mask, depth], lambda d: rasters.instances(right_png(d), size, "x")),
        "replica-pickle": Target([members[pickled]], pickle_in_pth),
        "replica-pth": Target([saved], pth),
    }


def _field(number: int, data: bytes) -> bytes:
    """Make a length-delimited protobuf field."""
    length, out = len(data), b""
    while length > 127:
        out, length = out + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + out + bytes([length]) + data


def _waymo(folder: Path) -> dict[str, Target]:
    from converters import waymo
    from converters.native.tfrecord import read_record, walk_records
    from converters.waymo import assemble, lidar, v1
    from converters.waymo.proto import message_class, parse
    from datakit.convert.api import SceneRef

    world = waymo.make_world(0, num_frames=2, size=(32, 24), motion="rigid")
    waymo.write_native(iter([world]), folder / "waymo", "v1")
    (file,) = (folder / "waymo").rglob("*.tfrecord")
    first, second = (parse("Frame", read_record(file, span, True)[0], "x") for span in walk_records(file))
    small = {
        kind: message_class(kind)(
            data=range(2 * 3 * depth), shape={"dims": [2, 3, depth]}
        ).SerializeToString()
        for kind, depth in (("MatrixFloat", 4), ("MatrixInt32", 6))
    }
    pose = message_class("MatrixFloat")(data=[0.1] * 36, shape={"dims": [2, 3, 6]}).SerializeToString()
    for message in (first, second):
        for laser in message.lasers:
            for each in (laser.ri_return1, laser.ri_return2):
                each.range_image_compressed = zlib.compress(small["MatrixFloat"])
                each.camera_projection_compressed = zlib.compress(small["MatrixInt32"])
                if each.range_image_pose_compressed:
                    each.range_image_pose_compressed = zlib.compress(pose)
        for beams in message.context.laser_calibrations:
            if beams.beam_inclinations:
                beams.beam_inclinations[:] = [-0.1, 0.1]
        # What is read of one of a kind is read of all; and a camera is what takes most of the time.
        del message.images[1:], message.laser_labels[3:], message.lasers[2:]
        camera = message.images[0].name
        kept = [each for each in message.context.camera_calibrations if each.name == camera]
        del message.context.camera_calibrations[:]
        message.context.camera_calibrations.extend(kept)
    context = message_class("Context")(name="x", stats=first.context.stats)
    context.camera_calibrations.append(first.context.camera_calibrations[0])
    context.laser_calibrations.append(first.context.laser_calibrations[0])
    place = _field(3, first.pose.SerializeToString())
    constant, other = v1.calibration(second, "x"), v1.head(second, "x")

    def range_image(data: bytes) -> None:
        """One return, packed here: first byte says which of its matrices the others are."""
        names = ("range_image_compressed", "camera_projection_compressed", "range_image_pose_compressed")
        matrices = [small["MatrixFloat"], small["MatrixInt32"], pose]
        matrices[data[0] % 3 if data else 0] = data[1:]
        packed = {name: zlib.compress(each, 1) for name, each in zip(names, matrices, strict=True)}
        image = v1._range_image(message_class("RangeImage")(**packed), "x")
        lidar.points_of_frame({1: (image, None)}, constant.lasers, np.eye(4), "x", only_seen=True)

    def matrix(data: bytes) -> None:
        for kind, dtype in (("MatrixFloat", np.float32), ("MatrixInt32", np.int32)):
            with contextlib.suppress(DatakitError):
                v1.read_matrix(data, kind, dtype, "x")

    def frame(data: bytes) -> None:
        message = parse("Frame", data, "x")
        v1.calibration(message, "x")
        v1.head(message, "x")
        v1.range_images(message, "x")

    def segment(message: Any) -> None:
        """A segment whose first frame is damaged, to its last raster."""
        heads = [v1.head(message, "x"), other]
        opened = assemble.open_segment(v1.calibration(message, "x"), heads, waymo.Params(), "x")
        assemble.scene_record(
            SceneRef(id="x", split="none", location={"form": "v1"}, fingerprint="0"), opened, waymo.Params()
        )
        rasters = (
            assemble.Rasters(dict(v1.pictures(each)), v1.range_images(each, "x"))
            for each in (message, second)
        )
        for _ in assemble.frames(opened, waymo.Params(), rasters, "x"):
            pass

    integers = message_class("MatrixInt32")(data=[1, -2, 300], shape={"dims": [3, 1, 1]}).SerializeToString()
    images = [image.SerializeToString() for image in first.images]
    return {
        "waymo-matrix": Target([integers], matrix),
        "waymo-calibration": Target(
            [context.SerializeToString()], lambda d: v1.calibration(parse("Frame", _field(1, d), "x"), "x")
        ),
        "waymo-pose": Target([place], lambda d: v1.head(parse("Frame", d, "x"), "x")),
        "waymo-image": Target(
            [v1_without_picture(image) for image in images],
            lambda d: v1.head(parse("Frame", place + _field(4, d), "x"), "x"),
        ),
        "waymo-label": Target(
            [label.SerializeToString() for label in first.laser_labels[:3]],
            lambda d: v1.head(parse("Frame", place + _field(6, d), "x"), "x"),
        ),
        "waymo-laser": Target(
            [first.lasers[0].SerializeToString()],
            lambda d: v1.range_images(parse("Frame", _field(5, d), "x"), "x"),
        ),
        "waymo-range-image": Target(
            [b"\0" + small["MatrixFloat"], b"\1" + small["MatrixInt32"], b"\2" + pose], range_image
        ),
        "waymo-frame": Target([first.SerializeToString()], frame),
        "waymo-segment": Target([first.SerializeToString()], lambda d: segment(parse("Frame", d, "x"))),
        "waymo-values": Target(EDITS, lambda d: segment(edited_message(first, d))),
    }


def v1_without_picture(wire: bytes) -> bytes:
    """Shorten the JPEG of a serialised CameraImage."""
    from converters.waymo.proto import parse

    image = parse("CameraImage", wire, "x")
    image.image = b"\xff\xd8"
    return bytes(image.SerializeToString())


def _waymo_tables(folder: Path) -> dict[str, Target]:
    """Waymo v2: the bytes of a table, and sound tables of odd values."""
    import pyarrow
    import pyarrow.parquet as parquet

    from converters import waymo
    from converters.waymo import v2

    world = waymo.make_world(0, num_frames=2, size=(32, 24), motion="rigid")
    waymo.write_native(iter([world]), folder / "waymo", "v2")
    paths = {path.parent.name: path for path in (folder / "waymo").rglob("*.parquet")}
    good = {name: parquet.read_table(path).to_pylist() for name, path in paths.items()}
    for name, rows in good.items():
        good[name] = [{key: _shorter(key, value) for key, value in row.items()} for row in rows]

    sound = {name: pyarrow.Table.from_pylist(rows[:1]) for name, rows in good.items()}
    (stamp,) = sound["vehicle_pose"].column("key.frame_timestamp_micros").to_pylist()

    def component(name: str, beside: tuple[str, ...], use: Callable[[v2.Tables], object]) -> Target:
        """One component with other values, of the types that pyarrow finds for them, and sound ones beside it."""
        tables = v2.Tables({each: paths[each] for each in (name, *beside)}, "x")

        def values(data: bytes) -> None:
            try:
                columns = {key: pyarrow.array(rows) for key, rows in edited(rows_of, data).items()}
                held = {**sound, name: pyarrow.table(columns)}
            except Exception:  # Arrow's business, not the parser's
                return

            @contextlib.contextmanager
            def opened(path: Path) -> Iterator[Any]:
                yield _InMemory(held[path.parent.name])

            with mock.patch.object(v2, "_open", opened):
                use(tables)

        rows_of = {key: [value] for key, value in good[name][0].items()}
        return Target(EDITS, values)

    def calibration(tables: v2.Tables) -> object:
        return v2.calibration(tables, "x")

    def rasters(tables: v2.Tables) -> object:
        return list(v2.rasters(tables, [stamp]))

    def raw(data: bytes) -> None:
        """The bytes of the table of poses, which Arrow reads."""
        paths["vehicle_pose"].write_bytes(data)
        tables = v2.Tables({"vehicle_pose": paths["vehicle_pose"]}, "x")
        v2.count_rows(tables, "vehicle_pose")
        v2.heads(tables)

    small = io.BytesIO()
    parquet.write_table(sound["vehicle_pose"], small, compression="none", use_dictionary=False)
    return {
        "waymo-v2-cameras": component("camera_calibration", (), calibration),
        "waymo-v2-lasers": component("lidar_calibration", (), calibration),
        "waymo-v2-stats": component("stats", (), calibration),
        "waymo-v2-poses": component("vehicle_pose", (), v2.heads),
        "waymo-v2-images": component("camera_image", ("vehicle_pose",), v2.heads),
        "waymo-v2-boxes": component("lidar_box", ("vehicle_pose",), v2.heads),
        "waymo-v2-synced-boxes": component("lidar_camera_synced_box", (), v2.heads),
        "waymo-v2-pictures": component("camera_image", (), rasters),
        "waymo-v2-lidar": component("lidar", (), rasters),
        "waymo-v2-projections": component("lidar_camera_projection", ("lidar",), rasters),
        "waymo-v2-parquet": Target([small.getvalue()], raw),
    }


def _shorter(name: str, value: Any) -> Any:
    """Cut range images to two rows of three pixels, and lists of beams to two."""
    channels = 4 if name.startswith("[LiDARComponent]") else 6
    if name.endswith(".shape"):
        return [2, 3, channels]
    if name.endswith(("return1.values", "return2.values")):
        return value[: 6 * channels]
    return value[:2] if name.endswith("beam_inclination.values") and value else value


class _InMemory:
    """A table where `pyarrow.parquet.ParquetFile` is asked for."""

    def __init__(self, table: Any) -> None:
        self._table, self.schema_arrow = table, table.schema

    def iter_batches(self, batch_size: int, columns: list[str]) -> Any:
        return self._table.select(columns).to_batches(max_chunksize=batch_size)


#: Names of the targets and what makes them; only the group that is asked for is made.
GROUPS: dict[str, Callable[[Path], dict[str, Target]]] = {
    "pfm cam pair list": _blendedmvs,
    "frame-annotations frame-values sequence-annotations jgz set-list depth-png depth-png-raw "
    "mask-png": _co3dv2,
    "sens pgm matrix scan-txt scan-info": _scannet,
    "colmap-cameras-bin colmap-images-bin colmap-points3D-bin colmap-cameras-txt colmap-images-txt "
    "colmap-points3D-txt colmap-depth": _colmap,
    "colmap-lens": _lenses,
    "jpeg": _photos,
    "kubric-metadata kubric-values kubric-ranges kubric-events kubric-tiff kubric-png kubric-tfds-info "
    "kubric-tfds-features kubric-tfds-values kubric-example kubric-record": _kubric,
    "replica-annotations replica-values replica-jgz replica-depth replica-flow replica-instances "
    "replica-pickle replica-pth": _replica,
    "tfrecord tfrecord-raw": _records,
    "waymo-matrix waymo-calibration waymo-pose waymo-image waymo-label waymo-laser waymo-range-image "
    "waymo-frame waymo-segment waymo-values": _waymo,
    "waymo-v2-cameras waymo-v2-lasers waymo-v2-stats waymo-v2-poses waymo-v2-images waymo-v2-boxes "
    "waymo-v2-synced-boxes waymo-v2-pictures waymo-v2-lidar waymo-v2-projections "
    "waymo-v2-parquet": _waymo_tables,
}
NAMES = [name for names in GROUPS for name in names.split()]


def make_target(name: str, folder: Path) -> Target:
    """Make one target; files that its parser must open lie in `folder`."""
    (make,) = [make for names, make in GROUPS.items() if name in names.split()]
    return make(folder)[name]
