"""Kubric: the clips of its worker and the records of TensorFlow Datasets."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from datakit.errors import DatakitError

from .kit import EDITS, Target, edited, protobuf_field, right_png


def make(folder: Path) -> dict[str, Target]:
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
            feature = protobuf_field(kind, protobuf_field(1, rest) if data[0] & 4 else rest)
            rest = protobuf_field(1, protobuf_field(1, protobuf_field(1, b"x") + protobuf_field(2, feature)))
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
