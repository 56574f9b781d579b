"""Kubric worker output folders: one file per layer and frame beside three JSON files."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, field, identifier, inside, numbers, read_source
from converters.native.png import check_png_kind
from datakit.convert.api import SceneRef
from datakit.errors import ConventionError, FormatError, LayoutError
from datakit.scene.records import Frame, LayerRecord, SceneStream, SourceFile

from . import assemble
from .assemble import LAYER_OF, FlowRange, Size
from .camera import camera_poses, intrinsics_from_camera
from .card import VIEW
from .images import KINDS, decode_indices
from .metadata import parse_json
from .motion import check_instance_count, instance_tracks, motion_record
from .params import Params
from .tiff import read_tiff_float32

REQUIRED = ("rgba", "depth", "segmentation")
OPTIONAL = ("forward_flow", "backward_flow", "normal", "object_coordinates")
FLOWS = ("forward_flow", "backward_flow")
FRAME_FILE = re.compile(rf"({'|'.join(REQUIRED + OPTIONAL)})_(\d{{5,}})\.(png|tiff)")
#: Instance fields that the motion record, the layers or nothing needs.
_NOT_METADATA = {
    "positions",
    "quaternions",
    "velocities",
    "angular_velocities",
    "bboxes_3d",
    "image_positions",
    "bboxes",
    "bbox_frames",
    "visibility",
}
#: A flow of two image widths a frame is no fraction of the image any more.
_MAX_FRACTION = 2.0


def is_clip(names: set[str]) -> bool:
    """Tell from its file names whether a folder is (or was meant to be) a worker's output."""
    return any(FRAME_FILE.fullmatch(name) for name in names) or {"metadata.json", "data_ranges.json"} <= names


def clip_ref(root: Path, relative: Path) -> SceneRef:
    """Describe a clip folder from its file names and sizes.

    Args:
        root: The dataset's root.
        relative: The folder below it, "." for the root itself.
    """
    files = sorted(
        (name, inside(root, relative / name).stat().st_size)
        for name in os.listdir(root / relative)
        if FRAME_FILE.fullmatch(name) or name in ("metadata.json", "data_ranges.json", "events.json")
    )
    digest = hashlib.sha256("".join(f"{name}\0{size}\n" for name, size in files).encode())
    name = root.resolve().name if relative == Path() else "-".join(relative.parts)
    return SceneRef(
        id=identifier(name),
        split="none",
        location={"form": "worker", "path": relative.as_posix()},
        fingerprint=digest.hexdigest(),
        num_frames=sum(name.startswith("rgba_") for name, _ in files),
        num_bytes=sum(size for _, size in files),
    )


def frame_files(folder: Path, num_frames: int) -> dict[str, list[str]]:
    """Find every layer's files.

    Args:
        folder: The clip.
        num_frames: As metadata.json says.

    Returns:
        Native layer -> its file names by frame, for the layers that are there.

    Raises:
        LayoutError: A required layer is absent, a layer misses frames, or has frames beyond the clip.
    """
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for name in os.listdir(folder):
        match = FRAME_FILE.fullmatch(name)
        if match and match[3] == _suffix(match[1]):
            found[match[1]][int(match[2])] = name
    files = {}
    for layer in REQUIRED + OPTIONAL:
        frames = found.get(layer, {})
        if not frames and layer in OPTIONAL:
            continue
        missing = next((i for i in range(num_frames) if i not in frames), None)
        wrong = [missing] if missing is not None else sorted(i for i in frames if i >= num_frames)
        if wrong:
            raise LayoutError(
                "A layer's files do not match num_frames.",
                where=folder / f"{layer}_{wrong[0]:05d}.{_suffix(layer)}",
                expected=f"frames 0..{num_frames - 1}",
                found=f"{len(frames)} files; {'extra' if missing is None else 'missing'}: {wrong[:8]}",
                mend="Render or copy the clip again.",
            )
        files[layer] = [frames[i] for i in range(num_frames)]
    return files


def _suffix(layer: str) -> str:
    return "tiff" if layer == "depth" else "png"


@dataclass(frozen=True)
class Clip:
    """A clip's metadata, read and checked.

    Attributes:
        where: metadata.json, for errors.
        raw: The parsed file.
        size: (W, H).
        num_frames: T.
        frame_rate: Frames per second.
        flow_is_fraction: True for the clips of MOVi-F's own worker.
    """

    where: str
    raw: dict[str, Any]
    size: Size
    num_frames: int
    frame_rate: float
    flow_is_fraction: bool


def read_clip(data: bytes, where: str) -> Clip:
    """Parse metadata.json.

    MOVi-F's worker stored `height` and `width` in place of `resolution`, and flow as a fraction of the image
    (challenges/movi/movi_f.py); the first is the mark of the second.

    Raises:
        FormatError, ConventionError: A field is missing, malformed or inconsistent.
    """
    raw = parse_json(data, where)
    meta = field(raw, "metadata", where)
    if not isinstance(meta, dict):
        raise FormatError("Not an object.", where=f"{where}: metadata", found=type(meta).__name__)
    of_movi_f = "resolution" not in meta and "width" in meta and "height" in meta
    pair = [meta["width"], meta["height"]] if of_movi_f else field(meta, "resolution", f"{where}: metadata")
    width, height = numbers(pair, (2,), f"{where}: metadata.resolution").tolist()
    size = check_size(width, height, "A clip", f"{where}: metadata.resolution")
    num_frames = int(
        numbers(field(meta, "num_frames", f"{where}: metadata"), (), f"{where}: metadata.num_frames")
    )
    rate = float(
        numbers(field(meta, "frame_rate", f"{where}: metadata"), (), f"{where}: metadata.frame_rate")
    )
    if min(num_frames, rate) <= 0:
        raise FormatError(
            "Frame count and frame rate must be positive.",
            where=f"{where}: metadata",
            found=(num_frames, rate),
        )
    instances = field(raw, "instances", where)
    if not isinstance(instances, list):
        raise FormatError("Not a list.", where=f"{where}: instances", found=type(instances).__name__)
    declared = numbers(meta.get("num_instances", len(instances)), (), f"{where}: metadata.num_instances")
    check_instance_count(len(instances), int(declared), f"{where}: instances")
    return Clip(
        where=where,
        raw=raw,
        size=size,
        num_frames=num_frames,
        frame_rate=rate,
        flow_is_fraction=of_movi_f,
    )


def _visibility(clip: Clip) -> NDArray[np.int64] | None:
    """Read (K, T) pixel counts; None where the source has none."""
    instances = clip.raw["instances"]
    if not all(isinstance(item, dict) and "visibility" in item for item in instances):
        return None
    rows = [
        assemble.integer_counts(
            item["visibility"], (clip.num_frames,), f"{clip.where}: instances[{k}].visibility"
        )
        for k, item in enumerate(instances)
    ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), clip.num_frames)


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open a clip folder; see `Converter.read`.

    Raises:
        LayoutError: A file is missing or leaves the root.
        FormatError: A file is truncated or malformed.
        ConventionError: Values break Kubric's conventions.
    """
    relative = Path(ref.location["path"])
    folder = inside(root, relative)
    sources: list[SourceFile] = []
    where = folder / "metadata.json"
    clip = read_clip(read_source(root, relative / "metadata.json", sources), str(where))
    files = frame_files(folder, clip.num_frames)
    intrinsics = intrinsics_from_camera(field(clip.raw, "camera", where), clip.size, f"{where}: camera")
    world_from_cam = camera_poses(clip.raw["camera"], clip.num_frames, f"{where}: camera")
    tracks = [
        instance_tracks(item, _name(item, k), clip.num_frames, f"{where}: instances[{k}]")
        for k, item in enumerate(clip.raw["instances"])
    ]
    ranges = _flow_ranges(root, relative, clip, files, sources)
    record = assemble.scene_record(
        ref,
        params,
        size=clip.size,
        frame_rate=clip.frame_rate,
        intrinsics=intrinsics,
        world_from_cam=world_from_cam,
        layers={LAYER_OF[name]: _layer(name, clip.size, ranges) for name in files},
        motion=motion_record(tracks, np.arange(clip.num_frames) / clip.frame_rate),
        frame_names=[f"{i:05d}" for i in range(clip.num_frames)],
        metadata=_metadata(clip, _collisions(root, relative, sources)),
    )
    return SceneStream(record, _frames(root, relative, clip, files, intrinsics, sources), sources)


def _name(instance: Any, index: int) -> str:
    for key in ("asset_id", "description", "shape"):
        if isinstance(instance, dict) and instance.get(key):
            return str(instance[key])
    return f"instance {index}"


def _layer(native: str, size: Size, ranges: Mapping[str, FlowRange]) -> LayerRecord:
    return assemble.layer_record(native, size, "png", flow=ranges.get(native))


def _flow_ranges(
    root: Path, relative: Path, clip: Clip, files: Mapping[str, Any], sources: list[SourceFile]
) -> dict[str, FlowRange]:
    flows = [name for name in FLOWS if name in files]
    if not flows:
        return {}
    where = f"{root / relative / 'data_ranges.json'}"
    values = parse_json(read_source(root, relative / "data_ranges.json", sources), where)
    ranges = {}
    for name in flows:
        pair = field(values, name, where)
        both = [field(pair, key, f"{where}: {name}") for key in ("min", "max")]
        ranges[name] = assemble.flow_range(
            both, f"{where}: {name}", _pixels_per_unit(clip, both, f"{where}: {name}")
        )
    return ranges


def _pixels_per_unit(clip: Clip, pair: list[float], where: str) -> float:
    if not clip.flow_is_fraction:
        return 1.0
    width, height = clip.size
    largest = np.abs(numbers(pair, (2,), where)).max()
    if width != height or largest > _MAX_FRACTION:
        raise ConventionError(
            "Metadata look like MOVi-F's worker, but the flow is no fraction of a square image.",
            where=where,
            expected=f"|flow| <= {_MAX_FRACTION} of a square image",
            found=f"{largest} of {clip.size}",
            mend="If the flow is in pixels, write metadata.resolution in place of width and height.",
        )
    return float(width)


def _collisions(root: Path, relative: Path, sources: list[SourceFile]) -> dict[str, Any] | None:
    """Read events.json if it is there; ids are index + 1, so that -1 (floor) becomes 0 (background)."""
    if not (root / relative / "events.json").exists():
        return None
    where = f"{root / relative / 'events.json'}"
    events = field(
        parse_json(read_source(root, relative / "events.json", sources), where), "collisions", where
    )
    try:
        rows = [(e["instances"][0], e["instances"][1], e["frame"], e["force"]) for e in events]
    except (KeyError, TypeError, IndexError) as err:
        raise FormatError(
            "A collision is malformed.",
            where=f"{where}: collisions",
            expected="instances, frame, force",
            found=err,
        ) from err
    table = numbers(rows, (len(rows), 4), f"{where}: collisions") if rows else np.zeros((0, 4))
    ids, (frames, forces) = table[:, :2].astype(int) + 1, table[:, 2:].T.tolist()
    return assemble.compact_collisions(zip(*ids.T.tolist(), frames, forces, strict=True))


def _metadata(clip: Clip, collisions: dict[str, Any] | None) -> dict[str, Any]:
    instances = [
        {"id": k, **{key: value for key, value in item.items() if key not in _NOT_METADATA}}
        for k, item in enumerate(clip.raw["instances"], start=1)
    ]
    return {
        "form": "worker",
        "flags": clip.raw.get("flags", {}),
        "metadata": clip.raw["metadata"],
        "instances": instances,
        "collisions": collisions,
    }


def _frames(
    root: Path,
    relative: Path,
    clip: Clip,
    files: Mapping[str, list[str]],
    intrinsics: NDArray[np.float64],
    sources: list[SourceFile],
) -> Iterator[Frame]:
    visibility, num_instances = _visibility(clip), len(clip.raw["instances"])
    for t in range(clip.num_frames):
        layers: dict[str, Any] = {}
        for native, names in files.items():
            data = read_source(root, relative / names[t], sources)
            where = str(root / relative / names[t])
            if native == "depth":
                distance = _distance(data, clip.size, where)
                layers[LAYER_OF[native]] = assemble.z_from_distance(distance, intrinsics)
                continue
            check_png_kind(data, KINDS[native], clip.size, where)
            if native == "segmentation":
                seen = None if visibility is None else visibility[:, t]
                assemble.check_ids(decode_indices(data, where), seen, num_instances, where)
            layers[LAYER_OF[native]] = data
        yield Frame(VIEW, t, layers)


def _distance(data: bytes, size: Size, where: str) -> NDArray[np.float32]:
    distance = read_tiff_float32(data, where)
    if distance.shape != size[::-1]:
        raise FormatError(
            "An image has the wrong size.", where=where, expected=size, found=distance.shape[::-1]
        )
    return distance
