"""Everything the report's page shows, as one JSON-able dict."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.motion import MotionKind, Visibility
from datakit.scene import Scene, View

from . import images
from .sampling import Cloud, ViewTracks, sample_cloud, sample_tracks

#: Long sides that panels are tried at, largest first.
_LONG_SIDES = (640, 512, 384, 320, 256, 224, 192, 160, 128, 96, 64)
#: Points and tracks of the whole report; they bound its size and keep the viewer at a smooth frame rate.
_FIXED_POINTS = 30_000
_MOVING_NUMBERS = 250_000
_MOVING_POINTS = 6_000
_TRACK_STEPS = 9_000
_MOST_TRACKS = 160
_JPEG_QUALITY = 85
_RANGE_FRAMES = 6
_LOG_RATIO = 6.0
_LISTED_SOURCES = 40

_TITLES = {
    "rgb": "Colour",
    "z_depth": "Depth (z)",
    "instances": "Instances",
    "normals_world": "Normals (world)",
    "flow_forward": "Flow to next frame",
    "flow_backward": "Flow to previous frame",
    "object_coords": "Object coordinates",
}
_UNITS = {"metric": "m", "sfm": "units (sfm)", "unknown": "units (unknown)"}


@dataclass(frozen=True)
class _Ranges:
    """What the colours of a view mean, the same in all its frames."""

    depth: tuple[float, float]
    depth_is_log: bool
    longest_flow: float


def build_payload(
    scene: Scene, certificate: Mapping[str, Any] | None, max_frames: int, max_bytes: int, seed: int
) -> dict[str, Any]:
    """Collect what the page shows.

    Args:
        scene: Open scene.
        certificate: A certificate as loaded from JSON, or None.
        max_frames: Most frames shown per view.
        max_bytes: What the images may take in the page, over all views.
        seed: Of the sampled pixels.

    Returns:
        A dict of plain JSON types; NaN is null.
    """
    views = list(scene.views.values())
    slots = {view.name: choose_frames(view.num_frames, max_frames) for view in views}
    ranges = {view.name: _ranges(view, slots[view.name]) for view in views}
    frames = _frames_within(views, slots, ranges, scene, max_bytes)
    fields, clouds = [], []
    for number, view in enumerate(views):
        shown = slots[view.name]
        rng = np.random.default_rng([seed, number])
        count = min(_MOST_TRACKS, max(24, _TRACK_STEPS // (len(shown) * len(views))))
        tracks = sample_tracks(scene, view, shown, count, rng)
        moving = min(_MOVING_POINTS, _MOVING_NUMBERS // (3 * len(shown))) // len(views)
        cloud = sample_cloud(scene, view, shown, _FIXED_POINTS // len(views), moving, rng)
        long_side, encoded = frames[view.name]
        fields.append(_view_fields(scene, view, shown, ranges[view.name], tracks, long_side, encoded))
        clouds.append(_cloud_fields(view, cloud))
    return {
        "format": "datakit-report",
        "version": 1,
        "tags": _tags(scene),
        "provenance": _provenance(scene),
        "metadata": scene.metadata,
        "instances": _instances(scene),
        "depth_palette": images.viridis().tobytes().hex(),
        "views": fields,
        "clouds": clouds,
        "certificate": None if certificate is None else dict(certificate),
    }


def choose_frames(num_frames: int, max_frames: int) -> NDArray[np.int64]:
    """Pick at most `max_frames` frames, evenly, with the first and the last.

    >>> choose_frames(5, 9).tolist(), choose_frames(101, 3).tolist()
    ([0, 1, 2, 3, 4], [0, 50, 100])
    """
    count = min(num_frames, max_frames)
    return np.unique(np.linspace(0, num_frames - 1, count).round().astype(np.int64))


def _tags(scene: Scene) -> dict[str, Any]:
    record = scene.record
    return {
        "dataset": scene.dataset,
        "id": scene.id,
        "split": scene.split,
        "scale": scene.scale,
        "unit": _UNITS[scene.scale],
        "time_kind": scene.time_kind,
        "licence": scene.licence,
        "citation": scene.citation,
        "source_conventions": record["source_conventions"],
        "schema_version": scene.schema_version,
        "pixel_convention": "corner origin: first pixel's centre is (0.5, 0.5)",
        "camera_axes": "OpenCV: x right, y down, z forward",
        "world_up": None if scene.world_up is None else scene.world_up.tolist(),
    }


def _provenance(scene: Scene) -> dict[str, Any]:
    given = scene.provenance
    sources = list(given["sources"])
    return {
        "converter": given["converter"],
        "converter_version": given["converter_version"],
        "params": given["params"],
        "fingerprint": given["fingerprint"],
        "num_sources": len(sources),
        "source_bytes": sum(int(source["size"]) for source in sources),
        "sources": sources[:_LISTED_SOURCES],
    }


def _instances(scene: Scene) -> list[dict[str, Any]]:
    motion = scene.motion
    rows = images.colour_rows(np.arange(len(motion.instance_ids)))
    colours = images.instance_colours(images.NUM_LEVELS)[rows]
    return [
        {"id": int(i), "name": name, "motion": MotionKind(int(kind)).name.lower(), "colour": _hex(colour)}
        for i, name, kind, colour in zip(
            motion.instance_ids, motion.instance_names, motion.instance_motion, colours, strict=True
        )
    ]


def _hex(rgb: NDArray[np.uint8]) -> str:
    return "#" + rgb.tobytes().hex()


def _shown_layers(view: View) -> list[str]:
    """Layers in the order of the panels; the backward flow only where there is no forward one."""
    return [
        name
        for name in _TITLES
        if name in view.layers and not (name == "flow_backward" and "flow_forward" in view.layers)
    ]


def _layer(view: View, name: str, frame: int) -> NDArray[Any] | None:
    if name == "rgb":
        return view.rgb(frame)
    if name.startswith("flow_"):
        return view.flow(frame, name.removeprefix("flow_"))
    readers = {
        "z_depth": view.z_depth,
        "instances": view.instances,
        "normals_world": view.normals,
        "object_coords": view.object_coords,
    }
    return readers[name](frame)


def _ranges(view: View, slots: NDArray[np.int64]) -> _Ranges:
    depths, lengths = [np.zeros(0)], [np.zeros(0)]
    flows = [name for name in _shown_layers(view) if name.startswith("flow_")]
    for frame in slots[np.unique(np.linspace(0, len(slots) - 1, _RANGE_FRAMES).round().astype(int))]:
        z = view.z_depth(int(frame))
        if z is not None:
            depths.append(z[np.isfinite(z) & (z > 0)].astype(np.float64))
        for name in flows:
            flow = _layer(view, name, int(frame))
            if flow is not None:
                length = np.hypot(flow[..., 0], flow[..., 1])
                lengths.append(length[np.isfinite(length)].astype(np.float64))
    lo, hi = _span(np.concatenate(depths))
    every = np.concatenate(lengths)
    longest = float(np.percentile(every, 99)) if every.size else 0.0
    return _Ranges((lo, hi), hi / lo > _LOG_RATIO, longest if longest > 0 else 1.0)


def _span(z: NDArray[np.float64]) -> tuple[float, float]:
    if not z.size:
        return 1.0, 2.0
    lo, hi = (float(value) for value in np.percentile(z, [0.5, 99.5]))
    # A flat depth still needs two ends for its colour bar.
    return (lo, hi) if hi - lo > 1e-6 * hi else (lo * 0.9, hi * 1.1)


def _encode(
    view: View, name: str, frame: int, long_side: int, ranges: _Ranges, known_ids: NDArray[np.uint32]
) -> bytes | None:
    raster = _layer(view, name, frame)
    if raster is None:
        return None
    size = images.fit_size(view.layer_size(name), long_side)
    if name == "rgb":
        return images.jpeg(images.shrink_rgb(raster, size), _JPEG_QUALITY, full_chroma=False)
    if name == "z_depth":
        return images.depth_png(raster, size, *ranges.depth, ranges.depth_is_log)
    if name == "instances":
        return images.instances_png(raster, size, known_ids)
    if name == "normals_world":
        return images.jpeg(images.direction_rgb(raster, size, -1.0), _JPEG_QUALITY, full_chroma=True)
    if name == "object_coords":
        return images.jpeg(images.direction_rgb(raster, size, 0.0), _JPEG_QUALITY, full_chroma=True)
    return images.jpeg(images.flow_rgb(raster, size, ranges.longest_flow), _JPEG_QUALITY, full_chroma=True)


def _encode_frames(
    view: View,
    frames: NDArray[np.int64],
    long_side: int,
    ranges: _Ranges,
    known_ids: NDArray[np.uint32],
) -> Iterator[dict[str, bytes]]:
    for frame in frames:
        encoded = {
            name: _encode(view, name, int(frame), long_side, ranges, known_ids)
            for name in _shown_layers(view)
        }
        yield {name: data for name, data in encoded.items() if data is not None}


def _frames_within(
    views: list[View],
    slots: Mapping[str, NDArray[np.int64]],
    ranges: Mapping[str, _Ranges],
    scene: Scene,
    max_bytes: int,
) -> dict[str, tuple[int, list[dict[str, bytes]]]]:
    """Encode all shown frames at the largest size that stays within the budget.

    The middle frame of each view foretells the size; where it foretells wrongly, the next smaller size is tried.
    """
    known_ids = scene.motion.instance_ids

    def encode(view: View, frames: NDArray[np.int64], long_side: int) -> list[dict[str, bytes]]:
        return list(_encode_frames(view, frames, long_side, ranges[view.name], known_ids))

    def foretell(long_side: int) -> int:
        middles = ((view, slots[view.name]) for view in views)
        return sum(len(s) * _num_bytes(encode(v, s[len(s) // 2 :][:1], long_side)) for v, s in middles)

    *larger, smallest = _LONG_SIDES
    for long_side in larger:
        if foretell(long_side) <= max_bytes:
            encoded = {view.name: (long_side, encode(view, slots[view.name], long_side)) for view in views}
            if sum(_num_bytes(frames) for _, frames in encoded.values()) <= max_bytes:
                return encoded
    return {view.name: (smallest, encode(view, slots[view.name], smallest)) for view in views}


def _num_bytes(frames: Iterable[Mapping[str, bytes]]) -> int:
    """Bytes of encoded frames as base64."""
    return sum(-(-len(data) // 3) * 4 for frame in frames for data in frame.values())


def _view_fields(
    scene: Scene,
    view: View,
    slots: NDArray[np.int64],
    ranges: _Ranges,
    tracks: ViewTracks,
    long_side: int,
    frames: list[dict[str, bytes]],
) -> dict[str, Any]:
    return {
        "name": view.name,
        "size": list(view.size),
        "num_frames": view.num_frames,
        "slots": slots.tolist(),
        "times": view.times[slots].tolist(),
        "frame_names": [view.frame_names[t] for t in slots],
        "camera_model": view.record["camera_model"],
        "num_known_poses": int(view.pose_is_known.sum()),
        "intrinsics": view.intrinsics[slots].reshape(-1, 9).tolist(),
        "world_from_cam": [_or_none(view.world_from_cam[t].ravel()) for t in slots],
        "path": _rows(view.world_from_cam[_path_frames(view), :3, 3], _world_digits(scene)),
        "layers": [
            _layer_fields(view, name, slots, ranges, scene, long_side) for name in _shown_layers(view)
        ],
        "frames": [{name: images.data_uri(data) for name, data in frame.items()} for frame in frames],
        "tracks": _track_fields(tracks, _world_digits(scene)),
    }


def _path_frames(view: View) -> NDArray[np.int64]:
    return choose_frames(view.num_frames, 2000)


def _layer_fields(
    view: View, name: str, slots: NDArray[np.int64], ranges: _Ranges, scene: Scene, long_side: int
) -> dict[str, Any]:
    width, height = view.layer_size(name)
    fields: dict[str, Any] = {
        "name": name,
        "title": _TITLES[name],
        "size": [width, height],
        "shown_size": list(images.fit_size((width, height), long_side)),
        "codec": view.record["layers"][name]["codec"],
    }
    own = view.layer_intrinsics(name)[slots]
    if not np.array_equal(own, view.intrinsics[slots]) or view.layer_size(name) != view.size:
        fields["intrinsics"] = own.reshape(-1, 9).tolist()
    if name == "z_depth":
        lo, hi = ranges.depth
        fields |= {
            "kind": view.depth_kind,
            "lo": lo,
            "hi": hi,
            "is_log": ranges.depth_is_log,
            "unit": _UNITS[scene.scale],
        }
    if name.startswith("flow_"):
        fields["longest_px"] = ranges.longest_flow
    return fields


def _track_fields(tracks: ViewTracks, digits: int) -> dict[str, Any]:
    return {
        "source_slot": tracks.source_slot.tolist(),
        "instance": tracks.instance.tolist(),
        "state": ["".join(map(str, row)) for row in tracks.state.tolist()],
        "uv_px": [_rows(uv, 3) for uv in tracks.uv_px],
        "points_world": [_rows(points, digits) for points in tracks.points_world],
        "state_names": {str(int(state)): state.name.lower() for state in Visibility},
    }


def _cloud_fields(view: View, cloud: Cloud) -> dict[str, Any]:
    return {
        "view": view.name,
        "fixed": _base64(cloud.fixed),
        "fixed_rgb": _base64(cloud.fixed_rgb),
        "moving": _base64(cloud.moving),
        "moving_rgb": _base64(cloud.moving_rgb),
        "momentary": _base64(cloud.momentary),
        "momentary_rgb": _base64(cloud.momentary_rgb),
        "momentary_slot": cloud.momentary_slot.tolist(),
    }


def _base64(array: NDArray[Any]) -> str:
    """Little-endian float32 (or bytes as they are) in base64."""
    data = array if array.dtype == np.uint8 else array.astype("<f4")
    return base64.b64encode(np.ascontiguousarray(data).tobytes()).decode("ascii")


def _world_digits(scene: Scene) -> int:
    """Decimals that keep seven significant digits of the scene's size."""
    centres = np.concatenate(
        [view.world_from_cam[view.pose_is_known, :3, 3] for view in scene.views.values()]
    )
    reach = float(np.abs(centres).max()) if centres.size else 1.0
    return int(np.clip(6 - np.floor(np.log10(max(reach, 1e-3))), 0, 12))


def _rows(values: NDArray[np.float64], digits: int) -> list[list[float] | None]:
    """(N, D) as lists, a row with any NaN as None."""
    is_known = np.isfinite(values.sum(axis=-1))
    rounded = np.round(np.where(is_known[:, None], values, 0.0), digits).tolist()
    return [row if known else None for row, known in zip(rounded, is_known.tolist(), strict=True)]


def _or_none(values: NDArray[np.float64]) -> list[float] | None:
    return values.tolist() if np.isfinite(values).all() else None
