"""Open a scene file and read it frame by frame. Nothing is loaded before it is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import h5py
import hdf5plugin  # noqa: F401  registers the filters that scene files use
import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import ConventionError, FormatError, UsageError
from datakit.schema import SCHEMA_VERSION, table

from .codecs import decode_image
from .records import MotionRecord

Float = NDArray[np.float64]


def open_scene(path: str | Path) -> Scene:
    """Open a scene file lazily; use it as a context manager or call `close`.

    Args:
        path: A file written by `datakit convert`.

    Raises:
        FormatError: Missing, truncated, or not a scene file.
        ConventionError: The file has another major version of the contract.
    """
    return Scene(Path(path))


#: What h5py and the parsing of its content raise on damaged bytes.
_DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


def _open_file(path: Path) -> h5py.File:
    try:
        # HDF5's default chunk cache, 8 MiB a dataset since version 2, would outgrow the frames that are asked for.
        file = h5py.File(path, "r", rdcc_nbytes=1 << 20)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    try:
        is_scene, version = file.attrs.get("format") == "datakit-scene", str(file.attrs.get("schema_version"))
    except _DAMAGE as error:
        file.close()
        raise _damaged(path, error) from error
    if is_scene and version.split(".")[0] == SCHEMA_VERSION.split(".")[0]:
        return file
    file.close()
    if not is_scene:
        raise FormatError("Not a scene file", where=path, expected="format = datakit-scene")
    raise ConventionError(
        "Scene has another version of the contract",
        where=path,
        expected=SCHEMA_VERSION,
        found=version,
        mend="datakit.scene.migrate_scene(path), or convert again",
    )


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        "Scene file cannot be read",
        where=path,
        expected="a scene written by datakit",
        found=error,
        mend="convert the scene again",
    )


def read_record(group: h5py.Group, record: str) -> dict[str, Any]:
    """Read the fields of a record from its group; nested records come as dicts, absent fields are left out."""
    out: dict[str, Any] = {}
    for name, spec in table(record).fields.items():
        if name not in group and name not in group.attrs:
            continue
        if spec.kind == "record":
            out[name] = read_record(group[name], spec.record)
        elif spec.kind == "records":
            order = json.loads(group[name].attrs["order"])
            out[name] = {key: read_record(group[name][key], spec.record) for key in order}
        elif spec.kind == "arrays":
            out[name] = {key: group[name][key][()] for key in group[name]}
        elif spec.kind == "array":
            out[name] = group[name][()]
        elif spec.kind == "string":
            out[name] = _text(group[name])
        elif spec.kind in ("json", "strings"):
            out[name] = json.loads(_text(group[name]))
        else:
            out[name] = _plain(group.attrs[name], spec.kind)
    return out


def _text(dataset: h5py.Dataset) -> str:
    return bytes(dataset[()]).decode("utf-8")


def _plain(value: Any, kind: str) -> Any:
    if kind in ("ints", "floats"):
        return tuple(np.asarray(value).tolist())
    return value.item() if isinstance(value, np.generic) else value


class Scene:
    """A scene on disk. Attributes are the fields of `schemas/scene.yaml`; frames are read through `views`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open_file(path)
        try:
            self._record = read_record(self._file, "scene")
            self.views: Mapping[str, View] = MappingProxyType(
                {
                    name: View(name, record, self._file["views"][name]["layers"], path)
                    for name, record in self._record["views"].items()
                }
            )
        except _DAMAGE as error:
            self._file.close()
            raise _damaged(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; views cannot be read afterwards."""
        self._file.close()

    def __repr__(self) -> str:
        return f"Scene({self.dataset}/{self.id}, {len(self.views)} view(s), {self.scale})"

    @property
    def record(self) -> Mapping[str, Any]:
        """Every contract field as plain data, arrays included."""
        return self._record

    @property
    def schema_version(self) -> str:
        """Version of the contract the file was written in."""
        return str(self._file.attrs["schema_version"])

    @property
    def dataset(self) -> str:
        """Name of the dataset's converter."""
        return str(self._record["dataset"])

    @property
    def id(self) -> str:
        """Unique within the dataset."""
        return str(self._record["id"])

    @property
    def split(self) -> str:
        """The dataset's official split, or "none"."""
        return str(self._record["split"])

    @property
    def scale(self) -> str:
        """Unit of the world frame: "metric", "sfm" or "unknown"."""
        return str(self._record["scale"])

    @property
    def time_kind(self) -> str:
        """Either "sequence" or "set"."""
        return str(self._record["time_kind"])

    @property
    def licence(self) -> str:
        """Licence id of the source."""
        return str(self._record["licence"])

    @property
    def citation(self) -> str:
        """How to cite the source."""
        return str(self._record["citation"])

    @property
    def world_up(self) -> Float | None:
        """(3,) unit vector against gravity in the world frame, or None."""
        up = self._record.get("world_up")
        return None if up is None else np.asarray(up, dtype=np.float64)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Converter, version, parameters, fingerprint and sources."""
        return self._record["provenance"]  # type: ignore[no-any-return]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Extras of the source."""
        return self._record["metadata"]  # type: ignore[no-any-return]

    @cached_property
    def motion(self) -> MotionRecord:
        """The motion record; arrays in memory."""
        fields = dict(self._record["motion"])
        fields["instance_names"] = tuple(fields["instance_names"])
        return MotionRecord(**fields)

    def track(
        self,
        view: str,
        uv_px: ArrayLike,
        t_src: ArrayLike,
        t_tgt: ArrayLike,
        *,
        view_tgt: str | None = None,
        via: str = "motion",
    ) -> Any:
        """Follow points from pixels of one frame to the times of others; see `datakit.motion.track`."""
        from datakit.motion import track

        return track(self, view, uv_px, t_src, t_tgt, view_tgt=view_tgt, via=via)


class View:
    """One camera stream of an open scene."""

    def __init__(self, name: str, record: Mapping[str, Any], layers: h5py.Group, path: Path) -> None:
        self.name = name
        self.record = record
        self._layers = layers
        self._path = path

    def __repr__(self) -> str:
        return f"View({self.name!r}, {self.num_frames} frames, {self.size[0]}x{self.size[1]}, {', '.join(self.layers)})"

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.times)

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the colour grid."""
        width, height = self.record["size"]
        return width, height

    @property
    def times(self) -> Float:
        """(T,) seconds."""
        return self.record["times"]  # type: ignore[no-any-return]

    @property
    def frame_names(self) -> tuple[str, ...]:
        """T native frame names."""
        return tuple(self.record["frame_names"])

    @property
    def intrinsics(self) -> Float:
        """(T, 3, 3) px of the colour grid, corner origin."""
        return self.record["intrinsics"]  # type: ignore[no-any-return]

    @property
    def world_from_cam(self) -> Float:
        """(T, 4, 4), OpenCV axes; NaN where not pose_is_known."""
        return self.record["world_from_cam"]  # type: ignore[no-any-return]

    @property
    def pose_is_known(self) -> NDArray[np.bool_]:
        """(T,) bool."""
        return self.record["pose_is_known"]  # type: ignore[no-any-return]

    @property
    def motion_index(self) -> NDArray[np.int64]:
        """(T,) sample of the scene's motion clock of each frame; -1 for none."""
        return self.record["motion_index"]  # type: ignore[no-any-return]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the raster layers this view has."""
        return tuple(self.record["layers"])

    def layer_size(self, name: str) -> tuple[int, int]:
        """(W, H) of a layer's grid."""
        width, height = self._layer(name)["size"]
        return width, height

    def layer_intrinsics(self, name: str) -> Float:
        """(T, 3, 3) px of a layer's grid, corner origin."""
        return self._layer(name).get("intrinsics", self.intrinsics)  # type: ignore[no-any-return]

    @property
    def depth_size(self) -> tuple[int, int]:
        """(W, H) of the depth grid; the colour grid's where there is no depth."""
        return self.layer_size("z_depth") if "z_depth" in self.layers else self.size

    @property
    def depth_intrinsics(self) -> Float:
        """(T, 3, 3) px of the depth grid; equal to `intrinsics` where the grids coincide."""
        return self.layer_intrinsics("z_depth") if "z_depth" in self.layers else self.intrinsics

    @property
    def depth_kind(self) -> str | None:
        """Where depth comes from: "rendered", "sensor", "mvs", "lidar", "pseudo"; None without depth."""
        return self._layer("z_depth")["depth_kind"] if "z_depth" in self.layers else None

    def rgb(self, t: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 colour of frame t.

        Raises:
            ConventionError: The view has no colour.
        """
        value = self._read("rgb", t)
        if value is None:
            raise ConventionError("View has no colour layer", where=f"{self._path}, view {self.name}")
        return np.asarray(value, dtype=np.uint8)

    def z_depth(self, t: int) -> NDArray[np.float32] | None:
        """(H, W) float32 depth along the optical axis on the depth grid, NaN unknown; None without depth."""
        return self._read("z_depth", t)  # type: ignore[no-any-return]

    def instances(self, t: int) -> NDArray[np.uint32] | None:
        """(H, W) uint32 instance ids, 0 = background; None where the source has none."""
        value = self._read("instances", t)
        return None if value is None else value.astype(np.uint32)

    def normals(self, t: int) -> NDArray[np.float32] | None:
        """(H, W, 3) float32 unit normals in the world frame, facing the camera, NaN unknown; or None."""
        return self._read("normals_world", t)  # type: ignore[no-any-return]

    def flow(self, t: int, direction: str) -> NDArray[np.float32] | None:
        """(H, W, 2) float32 (du, dv) px from frame t to its neighbour, NaN unknown; or None.

        Args:
            t: Frame.
            direction: "forward" (to t + 1) or "backward" (to t - 1).
        """
        if direction not in ("forward", "backward"):
            raise UsageError("Unknown flow direction", expected="forward or backward", found=direction)
        return self._read(f"flow_{direction}", t)  # type: ignore[no-any-return]

    def object_coords(self, t: int) -> NDArray[np.float32] | None:
        """(H, W, 3) float32 position in the instance's box, [0, 1]^3; or None."""
        return self._read("object_coords", t)  # type: ignore[no-any-return]

    def foreground(self, t: int) -> NDArray[np.float32] | None:
        """(H, W) float32 probability of the thing the capture is of, in [0, 1]; or None."""
        return _as_float(self._read("foreground", t))

    def depth_confidence(self, t: int) -> NDArray[np.float32] | None:
        """(H, W) float32 the source's confidence in its depth, in [0, 1], on the layer's own grid; or None."""
        return _as_float(self._read("depth_confidence", t))

    def encoded(self, name: str, t: int) -> bytes:
        """Return the stored image bytes of an encoded layer, as the source had them."""
        layer = self._layer(name)
        if layer["codec"] == "array":
            raise UsageError("Layer is stored as an array", where=name, expected="png or jpeg")
        self._check_index(t)
        group = self._layers[name]
        start, end = group["offsets"][t : t + 2]
        return bytes(group["bytes"][int(start) : int(end)])

    def _layer(self, name: str) -> Mapping[str, Any]:
        layers = self.record["layers"]
        if name not in layers:
            raise UsageError(
                "View has no such layer", where=f"view {self.name}", expected=list(layers), found=name
            )
        return layers[name]  # type: ignore[no-any-return]

    def _check_index(self, t: int) -> None:
        if not 0 <= t < self.num_frames:
            raise UsageError(
                "No such frame", where=f"view {self.name}", expected=f"0..{self.num_frames - 1}", found=t
            )

    def _read(self, name: str, t: int) -> Any:
        if name not in self.record["layers"]:
            return None
        layer = self._layer(name)
        where = f"{self._path}, view {self.name}, layer {name}, frame {t}"
        self._check_index(t)
        try:
            if layer["codec"] == "array":
                sample = self._layers[name]["data"][t]
            else:
                sample = decode_image(self.encoded(name, t), where)
        except _DAMAGE as error:
            raise FormatError(
                "Frame is damaged", where=where, found=error, mend="convert the scene again"
            ) from error
        width, height = layer["size"]
        shape = (height, width) if layer["num_channels"] == 1 else (height, width, layer["num_channels"])
        if sample.shape != shape or sample.dtype != layer["dtype"]:
            raise FormatError(
                "Frame differs from its layer",
                where=where,
                expected=(shape, layer["dtype"]),
                found=(sample.shape, sample.dtype),
            )
        try:
            return _to_value(sample, layer, t)
        except IndexError as error:
            raise FormatError(
                "Samples have codes without a value", where=where, found=error, mend="convert the scene again"
            ) from error


def _as_float(value: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if value is None else value.astype(np.float32)


def _to_value(sample: NDArray[Any], layer: Mapping[str, Any], t: int) -> NDArray[Any]:
    if layer["channels"]:
        sample = sample[..., list(layer["channels"])]
    if "code_values" in layer:
        row = layer["code_values_row"][t] if "code_values_row" in layer else 0
        return np.take(layer["code_values"][row], sample)
    if layer["value_scale"]:
        # In float64, because 16-bit codes times a range lose up to a tenth of a step in float32.
        value = sample * np.asarray(layer["value_scale"]) + np.asarray(layer["value_offset"])
        return value.astype(np.float32)  # type: ignore[no-any-return]
    return sample
