"""Reading one MOVi record of a TFDS shard as a scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, inside
from converters.native.png import check_png_kind
from converters.native.tfrecord import RecordSpan, read_record
from datakit.convert.api import SceneRef
from datakit.errors import FormatError
from datakit.scene import decode_image
from datakit.scene.records import Frame, LayerRecord, SceneStream, SourceFile

from . import assemble
from .assemble import LAYER_OF, FlowRange, Size
from .camera import camera_poses, intrinsics_from_camera
from .card import VIEW
from .example import parse_example
from .images import KINDS, decode_indices
from .motion import InstanceTracks, check_instance_count, instance_tracks, motion_record
from .params import Params
from .record import MoviRecord
from .sampling import Sampling, choose_sampling
from .tfds import Config, read_config

REQUIRED = ("video", "depth", "segmentations")
OPTIONAL = ("forward_flow", "backward_flow", "normal", "object_coordinates")
FLOWS = ("forward_flow", "backward_flow")
#: TFDS stores floor contacts (-1) as uint16.
_FLOOR = 65535
#: A 16-bit depth code wider than this has been spoiled by an empty background at 1e10 m.
MAX_DEPTH_STEP = 0.1


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one record; see `Converter.read`.

    Raises:
        LayoutError: The shard or a JSON file is missing or outside the root.
        FormatError: The record is truncated, fails its CRC, or lacks a feature.
        ConventionError: Values break Kubric's conventions.
    """
    sources: list[SourceFile] = []
    config = read_config(root, Path(ref.location["path"]), sources)
    shard = inside(root, ref.location["shard"])
    span = RecordSpan(int(ref.location["offset"]), int(ref.location["length"]))
    payload, sha256 = read_record(shard, span, params.check_crc)
    sources.append(SourceFile(ref.location["shard"], span.length, sha256, span.offset))
    record = MoviRecord(
        parse_example(payload, f"{shard}: byte {span.offset}"), f"{shard}: byte {span.offset}"
    )
    return _stream(_Clip(record, config, ref, params), sources)


class _Clip:
    """One record with everything that the layers need, read and checked once."""

    def __init__(self, record: MoviRecord, config: Config, ref: SceneRef, params: Params) -> None:
        self.record, self.config, self.ref, self.params = record, config, ref, params
        width, height, num_frames = (
            int(record.scalar(f"metadata/{name}", "ints")) for name in ("width", "height", "num_frames")
        )
        if num_frames <= 0:
            raise FormatError(
                "The frame count must be positive.", where=record.place("metadata"), found=num_frames
            )
        self.size: Size = check_size(width, height, "A clip", record.place("metadata"))
        self.num_frames = num_frames
        self.tracks = _instances(record, config, num_frames)
        camera = _camera(record, num_frames)
        self.intrinsics = intrinsics_from_camera(camera, self.size, record.place("camera"))
        self.world_from_cam = camera_poses(camera, num_frames, record.place("camera"))
        self.motion = motion_record(self.tracks, np.arange(num_frames) / params.frame_rate)
        self.layers = [name for name in REQUIRED + OPTIONAL if name in REQUIRED or name in config.declared]
        self.images = {name: record.images(name, num_frames) for name in self.layers if name not in FLOWS}
        self.sampling = self._sampling()
        self.aux_intrinsics = self.intrinsics - self.sampling.shift_px * np.array(
            [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
        )
        self.depth_range = tuple(record.floats("metadata/depth_range", (2,)).tolist())

    def image(self, name: str, t: int) -> bytes:
        """Give a layer's PNG of a frame, checked."""
        data = bytes(self.images[name][t])
        check_png_kind(data, KINDS[name], self.size, self.place(name, t))
        return data

    def place(self, name: str, t: int) -> str:
        """Name a layer's frame in errors."""
        return f"{self.record.place(name)}, frame {t}"

    def ids(self, t: int) -> NDArray[np.uint8]:
        """Decode a frame's instance ids, (H, W)."""
        return decode_indices(self.image("segmentations", t), self.place("segmentations", t))

    def _sampling(self) -> Sampling:
        def object_pixels(t: int) -> tuple[NDArray[np.uint8], NDArray[Any]] | None:
            if "object_coordinates" not in self.layers:
                return None
            place = self.place("object_coordinates", t)
            return self.ids(t), decode_image(self.image("object_coordinates", t), place) / 65535.0

        return choose_sampling(
            self.params.render_size,
            self.size,
            self.config.name,
            object_pixels,
            self.intrinsics,
            self.world_from_cam,
            np.asarray(self.motion.world_from_box),
            self.record.where,
        )

    @property
    def depth_is_spoiled(self) -> bool:
        """Whether an empty background (1e10 m) has stretched the depth code beyond all use."""
        low, high = self.depth_range
        return bool((high - low) / 65535 > MAX_DEPTH_STEP)


def _camera(record: MoviRecord, num_frames: int) -> dict[str, Any]:
    camera: dict[str, Any] = {
        name: record.scalar(f"camera/{name}", "floats")
        for name in ("focal_length", "sensor_width", "field_of_view")
    }
    camera["positions"] = record.floats("camera/positions", (num_frames, 3))
    camera["quaternions"] = record.floats("camera/quaternions", (num_frames, 4))
    return camera


def _instances(record: MoviRecord, config: Config, num_frames: int) -> list[InstanceTracks]:
    if not record.has("instances/positions"):
        return []
    shapes = {"positions": (3,), "quaternions": (4,), "bboxes_3d": (8, 3)}
    arrays = {
        key: record.floats(f"instances/{key}", (-1, num_frames, *shape)) for key, shape in shapes.items()
    }
    counts = {key: len(value) for key, value in arrays.items()}
    if len(set(counts.values())) != 1:
        raise FormatError("Instance arrays differ in length.", where=record.place("instances"), found=counts)
    num = counts["positions"]
    check_instance_count(num, int(record.scalar("metadata/num_instances", "ints")), record.place("instances"))
    names = _instance_names(record, config, num)
    return [
        instance_tracks(
            {key: value[k] for key, value in arrays.items()},
            names[k],
            num_frames,
            record.place(f"instances[{k}]"),
        )
        for k in range(num)
    ]


def _instance_names(record: MoviRecord, config: Config, num: int) -> list[str]:
    if record.has("instances/asset_id"):
        names = record.texts("instances/asset_id")
    elif record.has("instances/shape_label"):
        labels = config.labels.get("instances/shape_label", ())
        names = [
            labels[i] if 0 <= i < len(labels) else f"shape {i}"
            for i in record.ints("instances/shape_label", (-1,))
        ]
    else:
        names = [f"instance {k}" for k in range(num)]
    if len(names) != num:
        raise FormatError(
            "Instance arrays differ in length.", where=record.where, expected=num, found=len(names)
        )
    return names


def _stream(clip: _Clip, sources: list[SourceFile]) -> SceneStream:
    record = assemble.scene_record(
        clip.ref,
        clip.params,
        size=clip.size,
        frame_rate=clip.params.frame_rate,
        intrinsics=clip.intrinsics,
        world_from_cam=clip.world_from_cam,
        layers=dict(_layers(clip)),
        motion=clip.motion,
        frame_names=[f"{i:05d}" for i in range(clip.num_frames)],
        metadata=_metadata(clip),
    )
    return SceneStream(record, _frames(clip), sources)


def _layers(clip: _Clip) -> Iterator[tuple[str, LayerRecord]]:
    aux = np.tile(clip.aux_intrinsics, (clip.num_frames, 1, 1)) if clip.sampling.shift_px else None
    for name in clip.layers:
        if name == "depth" and clip.depth_is_spoiled:
            continue
        codec = "array" if name in FLOWS or name == "depth" else "png"
        flow = _flow_range(clip, name) if name in FLOWS else None
        grid = None if name == "video" else aux
        yield LAYER_OF[name], assemble.layer_record(name, clip.size, codec, flow=flow, intrinsics=grid)


def _flow_range(clip: _Clip, name: str) -> FlowRange:
    key = f"metadata/{name}_range"
    return assemble.flow_range(clip.record.floats(key, (2,)), clip.record.place(key))


def _frames(clip: _Clip) -> Iterator[Frame]:
    width, height = clip.size
    flows = {
        name: clip.record.ints(name, (clip.num_frames, height, width, 2), np.uint16)
        for name in FLOWS
        if name in clip.layers
    }
    visibility = _visibility(clip)
    for t in range(clip.num_frames):
        layers: dict[str, Any] = {}
        for name in clip.layers:
            if name in flows:
                layers[LAYER_OF[name]] = flows[name][t]
            elif name != "depth":
                layers[LAYER_OF[name]] = clip.image(name, t)
            elif not clip.depth_is_spoiled:
                layers[LAYER_OF[name]] = assemble.z_from_distance(_distance(clip, t), clip.aux_intrinsics)
        seen = None if visibility is None else visibility[:, t]
        assemble.check_ids(clip.ids(t), seen, len(clip.tracks), clip.place("segmentations", t))
        yield Frame(VIEW, t, layers)


def _visibility(clip: _Clip) -> NDArray[np.int64] | None:
    """Give (K, T) pixel counts; they are of the rendered size, so downscaled configs have none to compare."""
    if clip.sampling.step != 1 or not clip.record.has("instances/visibility"):
        return None
    return clip.record.ints("instances/visibility", (len(clip.tracks), clip.num_frames))


def _distance(clip: _Clip, t: int) -> NDArray[np.float64]:
    low, high = clip.depth_range
    code = decode_image(clip.image("depth", t), clip.place("depth", t))
    return np.asarray(code / 65535.0 * (high - low) + low)


def _metadata(clip: _Clip) -> dict[str, Any]:
    record = clip.record
    out: dict[str, Any] = {
        "form": "tfds",
        "dataset": clip.config.name,
        "config": clip.config.config,
        "video_name": record.text("metadata/video_name"),
        "frame_rate_note": "TFDS records hold no frame rate; times follow the parameter frame_rate",
        "aux_sampling": clip.sampling.as_metadata(),
        "depth_range": list(clip.depth_range),
        "instances": _instance_metadata(clip),
        "collisions": _collisions(record),
    }
    if clip.depth_is_spoiled:
        out["depth_note"] = "z_depth left out: an empty background (1e10 m) spoiled the 16-bit depth range"
    if record.has("background"):
        out["background"] = record.text("background")
    if record.has("background_color"):
        out["background_color"] = record.floats("background_color", (3,)).tolist()
    if record.has("metadata/motion_blur"):
        out["motion_blur"] = record.scalar("metadata/motion_blur", "floats")
    return out


def _instance_metadata(clip: _Clip) -> list[dict[str, Any]]:
    record, num = clip.record, len(clip.tracks)
    columns: dict[str, list[Any]] = {"id": list(range(1, num + 1))}
    for name in ("mass", "friction", "restitution", "scale"):
        if record.has(f"instances/{name}"):
            columns[name] = record.floats(f"instances/{name}", (num,)).tolist()
    if record.has("instances/color"):
        columns["color"] = record.floats("instances/color", (num, 3)).tolist()
    if record.has("instances/asset_id"):
        columns["asset_id"] = record.texts("instances/asset_id")
    if record.has("instances/is_dynamic"):
        columns["is_dynamic"] = [bool(v) for v in record.ints("instances/is_dynamic", (num,))]
    for key in ("category", "shape_label", "size_label", "color_label", "material_label"):
        if record.has(f"instances/{key}"):
            names = clip.config.labels.get(f"instances/{key}", ())
            values = record.ints(f"instances/{key}", (num,)).tolist()
            columns[key] = [names[v] if 0 <= v < len(names) else v for v in values]
    return [{key: values[k] for key, values in columns.items()} for k in range(num)]


def _collisions(record: MoviRecord) -> dict[str, Any] | None:
    if not record.has("events/collisions/frame"):
        return None
    frames = record.ints("events/collisions/frame", (-1,))
    pairs = record.ints("events/collisions/instances", (len(frames), 2))
    force = record.floats("events/collisions/force", (len(frames),))
    ids = np.where(pairs == _FLOOR, 0, pairs + 1)
    rows = zip(ids[:, 0].tolist(), ids[:, 1].tolist(), frames.tolist(), force.tolist(), strict=True)
    return assemble.compact_collisions(rows)
