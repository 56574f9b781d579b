"""Writer of MOVi-E records in TFDS's layout, from the builder's rules (challenges/movi/movi_e.py)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError
from datakit.scene import encode_png
from datakit.worlds import World

from .write_common import Capture, capture
from .write_example import Value, serialise_example
from .write_features import CATEGORIES, SET_NAME, SET_VERSION, dataset_info, features_json
from .write_worker import quantise_flow

#: Form -> how many rendered pixels make one stored pixel, along each axis.
FORMS = {"tfds": 1, "tfds-half": 2, "tfds-quarter": 4}
#: The only rate MOVi sets have; their records do not store it.
FRAME_RATE = 12.0
_SPLIT = "train"
_RECORDS_PER_SHARD = 2
_TRACK_KEYS = ("positions", "quaternions", "velocities", "angular_velocities", "bboxes_3d", "image_positions")


def write_tfds(worlds: Iterable[World], out: Path, form: str) -> None:
    """Write worlds as the train split of one config, <out>/movi_e/<W>x<H>/1.0.0.

    Args:
        worlds: All of one size and number of frames, at 12 frames per second.
        out: Folder to fill.
        form: Key of `FORMS`.

    Raises:
        ConventionError: Worlds differ in size, length or rate, or do not divide by the factor; or see
            `write_common.capture`.
    """
    step = FORMS[form]
    grid: tuple[int, int, int] | None = None
    folder, num_bytes = out, 0
    lengths: list[int] = []
    shards: list[Path] = []
    for world in worlds:
        clip = capture(world)
        found = (clip.size[0] // step, clip.size[1] // step, len(clip.rgba))
        if grid is None:
            grid = found
            folder = out / SET_NAME / f"{grid[0]}x{grid[1]}" / SET_VERSION
            folder.mkdir(parents=True, exist_ok=True)
        _check_world(world, clip, step, found, grid)
        payload = serialise_example(record_features(clip, step))
        if not lengths or lengths[-1] == _RECORDS_PER_SHARD:
            lengths.append(0)
            shards.append(folder / f"{SET_NAME}-{_SPLIT}.tfrecord-{len(shards):05d}.partial")
            shards[-1].write_bytes(b"")
        with open(shards[-1], "ab") as file:
            file.write(frame_record(payload))
        lengths[-1] += 1
        num_bytes += len(payload)
    if grid is None:
        return
    for index, shard in enumerate(shards):
        shard.rename(folder / f"{SET_NAME}-{_SPLIT}.tfrecord-{index:05d}-of-{len(shards):05d}")
    _write_json(folder / "features.json", features_json(*grid))
    _write_json(
        folder / "dataset_info.json", dataset_info(f"{grid[0]}x{grid[1]}", {_SPLIT: (lengths, num_bytes)})
    )
    (folder / "instances-category.labels.txt").write_text("\n".join(CATEGORIES) + "\n")


def _check_world(
    world: World, clip: Capture, step: int, found: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    if world.fps != FRAME_RATE:
        raise ConventionError("MOVi records imply 12 frames per second.", where=world.name, found=world.fps)
    if any(n % step for n in clip.size):
        raise ConventionError(
            "A world's size does not divide.", where=world.name, expected=step, found=clip.size
        )
    if found != grid:
        raise ConventionError(
            "All clips of a config have one shape.", where=world.name, expected=grid, found=found
        )


def frame_record(payload: bytes) -> bytes:
    """Frame a payload as a TFRecord (tensorflow/core/lib/io/record_writer.cc)."""
    length = struct.pack("<Q", len(payload))
    return length + _masked(length) + payload + _masked(payload)


def _masked(data: bytes) -> bytes:
    crc = int(google_crc32c.extend(0, data))
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def record_features(clip: Capture, step: int) -> dict[str, Value]:
    """Flatten a rendered clip to the features of one record.

    Colour is averaged; every other layer is picked at offset floor((step - 1) / 2) and flow ranges are
    divided by the factor. Visibility and boxes stay those of the rendered size.

    Args:
        clip: From `write_common.capture`.
        step: Rendered pixels per stored pixel.
    """
    flows = {name: quantise_flow(flow) for name, flow in clip.flows.items()}
    depth = _pick(clip.depth, step)
    low, high = depth.min(), depth.max()
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.nan_to_num(np.round((depth - low) / (high - low) * 65535)).astype(np.uint16)
    features: dict[str, Value] = {
        "video": _pngs(_average(clip.rgba[..., :3], step)),
        "segmentations": _pngs(_pick(clip.segmentation.astype(np.uint8), step)),
        "depth": _pngs(codes),
        "normal": _pngs(_pick(clip.normal, step)),
        "object_coordinates": _pngs(_pick(clip.object_coordinates, step)),
        "metadata/depth_range": np.array([low, high]),
    }
    for name, (value_range, flow_codes) in flows.items():
        features[name] = _pick(flow_codes, step)
        features[f"metadata/{name}_range"] = np.array([value_range["min"], value_range["max"]]) / step
    return features | _scalars(clip, step) | _instances(clip.metadata["instances"]) | _no_events()


def _pick(frames: NDArray[Any], step: int) -> NDArray[Any]:
    offset = (step - 1) // 2
    return frames[:, offset::step, offset::step]


def _average(frames: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    num, height, width, channels = frames.shape
    blocks = frames.reshape(num, height // step, step, width // step, step, channels)
    return np.asarray(np.round(blocks.mean(axis=(2, 4))), dtype=np.uint8)


def _pngs(frames: NDArray[Any]) -> list[bytes]:
    return [encode_png(np.ascontiguousarray(frame)) for frame in frames]


def _scalars(clip: Capture, step: int) -> dict[str, Value]:
    meta, camera = clip.metadata["metadata"], clip.metadata["camera"]
    return {
        "metadata/video_name": [clip.name.encode()],
        "metadata/width": np.array([clip.size[0] // step]),
        "metadata/height": np.array([clip.size[1] // step]),
        "metadata/num_frames": np.array([meta["num_frames"]]),
        "metadata/num_instances": np.array([meta["num_instances"]]),
        "background": [meta["background"].encode()],
        **{
            f"camera/{key}": np.array(camera[key], dtype=np.float32).reshape(-1)
            for key in ("focal_length", "sensor_width", "field_of_view", "positions", "quaternions")
        },
    }


def _instances(instances: list[dict[str, Any]]) -> dict[str, Value]:
    def column(key: str, dtype: type) -> NDArray[Any]:
        return np.array([item[key] for item in instances], dtype=dtype).reshape(-1)

    def ragged(key: str, dtype: type) -> Iterator[tuple[str, Value]]:
        rows: list[NDArray[Any]] = [np.array(item[key], dtype=dtype).reshape(-1) for item in instances]
        yield f"instances/{key}/ragged_flat_values", np.concatenate([np.zeros(0, dtype), *rows])
        yield (
            f"instances/{key}/ragged_row_lengths_0",
            np.array([len(item[key]) for item in instances], dtype=np.int64),
        )

    return {
        **{
            f"instances/{key}": column(key, np.float32)
            for key in (*_TRACK_KEYS, "mass", "friction", "restitution")
        },
        "instances/scale": column("scale", np.float32),
        "instances/visibility": column("visibility", np.int64) % 65536,
        "instances/is_dynamic": column("is_dynamic", np.int64),
        "instances/category": np.array(
            [CATEGORIES.index(item["category"]) for item in instances], dtype=np.int64
        ),
        "instances/asset_id": [item["asset_id"].encode() for item in instances],
        **dict(ragged("bboxes", np.float32)),
        **dict(ragged("bbox_frames", np.int64)),
    }


def _no_events() -> dict[str, Value]:
    """Analytic worlds do not collide; TFDS writes empty lists."""
    empty = {"instances": np.int64, "frame": np.int64, "force": np.float32, "position": np.float32}
    empty |= {"image_position": np.float32, "contact_normal": np.float32}
    return {f"events/collisions/{key}": np.zeros(0, dtype) for key, dtype in empty.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True))
