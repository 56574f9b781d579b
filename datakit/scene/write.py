"""Stream a scene into one HDF5 file.

Layout: contract fields are attributes (single values), datasets (arrays, texts, JSON) or groups (records), under
their own names. A layer's frames are either `data`, (T, H, W[, C]) chunked one by one, or `bytes` plus
`offsets` (T + 1). All arrays carry checksums; the file holds no times, so the same input gives the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError
from datakit.schema import SCHEMA_VERSION, check_record, raise_first, table

from .codecs import check_image
from .records import Frame, LayerRecord, SceneRecord, SceneStream, ViewRecord

PARTIAL_SUFFIX = ".partial"
_BYTES_CHUNK = 1 << 18


def write_scene(path: str | Path, stream: SceneStream) -> None:
    """Write a scene; the file appears under its name only when whole and on disk.

    Args:
        path: Where to; an existing file is replaced at the end, never written into.
        stream: Record, frames (of each view in order 0..T-1, views in any interleaving) and sources.

    Raises:
        ConventionError: The record or a frame breaks the contract.
        DatakitError: Whatever the stream raises while it reads its source; nothing is left behind.
    """
    target = Path(path)
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_scene_record(stream.record)
    try:
        # v110 object headers carry checksums of their own.
        # The chunk cache is per dataset; frames are written once and in order, so one chunk is enough.
        with h5py.File(partial, "w", libver=("v110", "v110"), rdcc_nbytes=_BYTES_CHUNK) as file:
            _write_header(file, stream.record)
            _write_frames(file, stream)
            sources = [asdict(source) for source in stream.sources]
            _write_text(file["provenance"], "sources", json.dumps(sources, sort_keys=True))
        _sync(partial)
        os.replace(partial, target)
        _sync(target.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scene_constants() -> dict[str, str]:
    """Return the tags that are the same on every scene: axes, pixel and pose conventions."""
    return {spec.name: spec.value for spec in table("scene").fields.values() if spec.kind == "const"}


def check_scene_record(record: SceneRecord) -> None:
    """Check a scene record and all records in it.

    Raises:
        ConventionError: Naming the first field that breaks the contract.
    """
    raise_first(scene_problems(vars(record) | scene_constants()))


def scene_problems(values: Mapping[str, Any]) -> list[ConventionError]:
    """List every problem of a scene given as field -> value, nested records as objects or mappings."""
    problems = check_record("scene", values, "scene", {})
    motion, views = _fields(values.get("motion")), values.get("views") or {}
    problems += check_record("provenance", _fields(values.get("provenance")), "scene.provenance", {})
    motion_dims: dict[str, int] = {}
    problems += check_record("motion", motion, "scene.motion", motion_dims)
    for name, view in views.items():
        problems += _view_problems(_fields(view), f"scene.views[{name}]", motion_dims)
    return problems


def _fields(record: Any) -> Mapping[str, Any]:
    if record is None:
        return {}
    return record if isinstance(record, Mapping) else vars(record)


def _view_problems(
    view: Mapping[str, Any], where: str, motion_dims: Mapping[str, int]
) -> list[ConventionError]:
    dims: dict[str, int] = {}
    problems = check_record("view", view, where, dims)
    index = view.get("motion_index")
    if isinstance(index, np.ndarray) and index.size and index.max() >= motion_dims.get("M", 0):
        problems.append(
            ConventionError(
                "motion_index points outside the motion clock",
                where=f"{where}.motion_index",
                expected=f"below {motion_dims.get('M', 0)}",
                found=int(index.max()),
            )
        )
    for name, layer in (view.get("layers") or {}).items():
        fields = _fields(layer)
        # S and C are the layer's own.
        problems += check_record("layer", fields, f"{where}.layers[{name}]", dict(dims))
        problems += _code_problems(fields, f"{where}.layers[{name}]")
        if (name == "z_depth") != (fields.get("depth_kind") is not None):
            problems.append(
                ConventionError(
                    "Only z_depth has a depth_kind, and it must",
                    where=f"{where}.layers[{name}].depth_kind",
                    expected=", ".join(table("layer").fields["depth_kind"].values),
                    found=fields.get("depth_kind"),
                )
            )
    return problems


def _code_problems(layer: Mapping[str, Any], where: str) -> list[ConventionError]:
    """Check that every sample of a coded layer has a value."""
    values, row = layer.get("code_values"), layer.get("code_values_row")
    if values is None and row is None:
        return []
    bits = {"uint8": 8, "uint16": 16}.get(str(layer.get("dtype")), 0)
    rows, codes = values.shape if isinstance(values, np.ndarray) and values.ndim == 2 else (0, 0)
    problems = []
    if codes != 1 << bits or not rows or len(layer.get("value_scale") or ()):
        problems.append(
            ConventionError(
                "code_values do not fit the samples",
                where=f"{where}.code_values",
                expected="(S, 256) for uint8 or (S, 65536) for uint16, and no value_scale",
                found=f"({rows}, {codes}) for {layer.get('dtype')}, value_scale {layer.get('value_scale')}",
            )
        )
    elif isinstance(row, np.ndarray) and row.size and not 0 <= row.min() <= row.max() < rows:
        problems.append(
            ConventionError(
                "code_values_row points outside code_values",
                where=f"{where}.code_values_row",
                expected=f"0..{rows - 1}",
                found=f"{row.min()}..{row.max()}",
            )
        )
    return problems


# --- header -------------------------------------------------------------------------------------------------------


def _write_header(file: h5py.File, record: SceneRecord) -> None:
    file.attrs["format"] = "datakit-scene"
    file.attrs["schema_version"] = SCHEMA_VERSION
    _write_record(file, "scene", vars(record) | scene_constants())


def _write_record(group: h5py.Group, record: str, values: Mapping[str, Any]) -> None:
    for name, spec in table(record).fields.items():
        value = values.get(name)
        if value is None:
            continue
        if spec.kind == "record":
            _write_record(_group(group, name), spec.record, _fields(value))
        elif spec.kind == "records":
            parent = _group(group, name)
            parent.attrs["order"] = json.dumps(list(value))
            for key, item in value.items():
                _write_record(_group(parent, key), spec.record, _fields(item))
        elif spec.kind == "arrays":
            parent = _group(group, name)
            for key, item in value.items():
                _write_array(parent, key, item)
        elif spec.kind == "array":
            _write_array(group, name, value)
        elif spec.kind == "strings":
            _write_text(group, name, json.dumps(list(value)))
        elif spec.kind == "json":
            _write_text(group, name, json.dumps(value, sort_keys=True))
        elif spec.kind == "string":
            _write_text(group, name, value)
        else:
            kinds = {"ints": np.int64, "floats": np.float64}
            group.attrs[name] = np.asarray(value, kinds[spec.kind]) if spec.kind in kinds else value


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    if not name or "/" in name or name in (".", ".."):
        raise ConventionError("A name cannot be used in a scene file", expected="no slash", found=repr(name))
    return parent.create_group(name)


def _write_text(group: h5py.Group, name: str, text: str) -> None:
    # As bytes rather than as an HDF5 string: these may exceed an attribute's 64 KiB and get a checksum this way.
    _write_array(group, name, np.frombuffer(text.encode("utf-8"), np.uint8))


def _write_array(group: h5py.Group, name: str, value: NDArray[Any]) -> None:
    if value.size == 0:
        group.create_dataset(name, data=value)
    else:
        group.create_dataset(name, data=value, chunks=True, fletcher32=True, **_codec())


def _codec() -> Mapping[str, Any]:
    # On float depth of 640x480, rendered, from half floats and from noisy millimetres, half the time of Bitshuffle with
    # zstd at level 3 (2.2, 1.9, 2.7 against 4.8, 3.5, 4.9 ms a frame) and fewer bytes (300, 59, 697 against 356, 107,
    # 724 KiB).
    return hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)


def _raster_codec(first: NDArray[Any]) -> Mapping[str, Any]:
    """Choose by a layer's first frame: LZ4 after a shuffle, or zstd where that halves it.

    Rasters are most of what a conversion compresses. On 640x480 depth, noisy millimetres, half floats with noise, and
    rendered, LZ4 takes 2.5, 1.9 and 1.3 ms a frame where shuffled zstd at level 1 takes 6.6, 4.0 and 2.9, for 815, 305
    and 90 KiB against 740, 416 and 63. Bits that never change (half floats as floats) want Bitshuffle, which takes
    1.6 times as long: on 16-bit flow of 1280x720, 8.0 ms and 1665 KiB against 5.0 and 1916, so it has to save a
    quarter. Rasters that are nearly empty (lidar depth, labels) want neither: 12 ms and 141 kB for 1920x1280 with
    30,558 points, where shuffled LZ4 takes 16 ms and 512 kB.
    """
    codecs = [
        hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=shuffle)
        for shuffle in (hdf5plugin.Blosc.SHUFFLE, hdf5plugin.Blosc.BITSHUFFLE)
    ]
    codecs.append(hdf5plugin.Zstd(clevel=1))
    with h5py.File("trial", "w", driver="core", backing_store=False) as file:
        sizes = []
        for number, codec in enumerate(codecs):
            data = _make_rasters(file.create_group(str(number)), 1, first, codec)
            data[0] = first
            data.flush()
            sizes.append(data.id.get_storage_size())
    if 2 * sizes[2] < min(sizes[:2]):
        return codecs[2]
    return codecs[1 if 4 * sizes[1] < 3 * sizes[0] else 0]


def _make_rasters(
    group: h5py.Group, num_frames: int, like: NDArray[Any], codec: Mapping[str, Any]
) -> h5py.Dataset:
    shape = (num_frames, *like.shape)
    return group.create_dataset("data", shape, like.dtype, chunks=(1, *like.shape), fletcher32=True, **codec)


# --- frames -------------------------------------------------------------------------------------------------------


def _write_frames(file: h5py.File, stream: SceneStream) -> None:
    views = stream.record.views
    sinks = {name: _make_sinks(file["views"][name]["layers"], view) for name, view in views.items()}
    done = dict.fromkeys(views, 0)
    for frame in stream.frames:
        where = f"{stream.record.id}, view {frame.view}, frame {frame.index}"
        if frame.view not in views:
            raise ConventionError("Frame of an undeclared view", where=where, expected=list(views))
        if frame.index != done[frame.view]:
            raise ConventionError(
                "Frames of a view must come in order", where=where, expected=done[frame.view]
            )
        _write_frame(sinks[frame.view], views[frame.view], frame, where)
        done[frame.view] += 1
    for name, view in views.items():
        if done[name] != len(view.times):
            raise ConventionError(
                "Frames are missing",
                where=f"view {name}",
                expected=f"{len(view.times)} frames",
                found=done[name],
            )
        for sink in sinks[name].values():
            sink.finish()


class _EncodedSink:
    """Appends image bytes to `bytes`, keeping `offsets`; whole chunks go to the file, less than one is pending."""

    def __init__(self, group: h5py.Group, layer: LayerRecord, num_frames: int) -> None:
        self.group, self.layer = group, layer
        self.offsets, self.pending, self.written = [0], bytearray(), 0
        self.bytes = group.create_dataset(
            "bytes", (0,), np.uint8, maxshape=(None,), chunks=(_BYTES_CHUNK,), fletcher32=True
        )

    def add(self, value: Any, where: str) -> None:
        if not isinstance(value, bytes):
            raise ConventionError(
                f"A {self.layer.codec} layer takes bytes", where=where, found=type(value).__name__
            )
        size = check_image(self.layer.codec, value, where)
        if size != tuple(self.layer.size):
            raise ConventionError(
                "Image has another size than its layer", where=where, expected=self.layer.size, found=size
            )
        self.offsets.append(self.offsets[-1] + len(value))
        self.pending += value
        if len(self.pending) >= _BYTES_CHUNK:
            self._flush(len(self.pending) // _BYTES_CHUNK * _BYTES_CHUNK)

    def _flush(self, count: int) -> None:
        end = self.written + count
        self.bytes.resize((end,))
        self.bytes[self.written :] = np.frombuffer(bytes(self.pending[:count]), np.uint8)
        del self.pending[:count]
        self.written = end

    def finish(self) -> None:
        if self.pending:
            self._flush(len(self.pending))
        _write_array(self.group, "offsets", np.asarray(self.offsets, np.int64))


class _ArraySink:
    """Fills `data`, one chunk a frame."""

    def __init__(self, group: h5py.Group, layer: LayerRecord, num_frames: int) -> None:
        width, height = layer.size
        channels = () if layer.num_channels == 1 else (layer.num_channels,)
        self.shape, self.dtype = (height, width, *channels), np.dtype(layer.dtype)
        self.group, self.num_frames, self.count = group, num_frames, 0
        self.data: h5py.Dataset | None = None

    def add(self, value: Any, where: str) -> None:
        found = (getattr(value, "shape", None), getattr(value, "dtype", None))
        if found != (self.shape, self.dtype):
            raise ConventionError(
                "Raster differs from its layer", where=where, expected=(self.shape, self.dtype), found=found
            )
        if self.data is None:
            self.data = _make_rasters(self.group, self.num_frames, value, _raster_codec(value))
        self.data[self.count] = value
        self.count += 1

    def finish(self) -> None:
        """Nothing is pending: every frame was written by `add`."""


def _make_sinks(group: h5py.Group, view: ViewRecord) -> dict[str, _EncodedSink | _ArraySink]:
    return {
        name: (_ArraySink if layer.codec == "array" else _EncodedSink)(group[name], layer, len(view.times))
        for name, layer in view.layers.items()
    }


def _write_frame(
    sinks: Mapping[str, _EncodedSink | _ArraySink], view: ViewRecord, frame: Frame, where: str
) -> None:
    if set(frame.layers) != set(view.layers):
        raise ConventionError(
            "Frame has other layers than its view",
            where=where,
            expected=sorted(view.layers),
            found=sorted(frame.layers),
        )
    for name, value in frame.layers.items():
        sinks[name].add(value, f"{where}, layer {name}")
