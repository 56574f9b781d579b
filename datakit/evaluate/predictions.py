"""A folder of predictions: one file a clip, by name. Anybody's model can write it; docs/evaluate.md has the format.

`<folder>/<source>/<clip>.npz` (or `.h5`, a scene of ours); without the source's folder where names do not clash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import FormatError, UsageError
from datakit.infer.files import atomic_file, write_npz
from datakit.motion import Visibility
from datakit.scene import Scene, View, open_scene

from .benchmarks import BenchmarkClip
from .benchmarks.npz import Npz, open_npz

Array = NDArray[Any]
#: Says in a folder which model filled it.
_CLAIM = "model.json"
#: Names of TAPVid-3D's and TAP-Vid's own result files; their arrays are (T, N, ...).
_OFFICIAL = {"tracks_XYZ": "tracks_xyz", "visibility": "visible"}


@dataclass(frozen=True)
class Prediction:
    """What a model said of a clip. Everything is optional; a benchmark names what it needs.

    Attributes:
        tracks_xyz: (N, T, 3) float64 of the benchmark's queries, in the camera of each frame; NaN: no answer.
        tracks_world: (N, T, 3) float64 in one frame for the whole clip; by custom the camera of frame 0.
        tracks_uv: (N, T, 2) float64 px of the original images, corner origin.
        visible: (N, T) bool, of the tracks.
        z_depth: (T, h, w) float32, any size; NaN: no answer.
        world_from_cam: (T, 4, 4) float64; NaN: no answer.
        intrinsics: (T, 3, 3) float64 px of a picture of `z_depth`'s size (w, h).
        points_world: (T, h, w, 3) float32 point maps in one frame for the clip.
    """

    tracks_xyz: Array | None = None
    tracks_world: Array | None = None
    tracks_uv: Array | None = None
    visible: Array | None = None
    z_depth: Array | None = None
    world_from_cam: Array | None = None
    intrinsics: Array | None = None
    points_world: Array | None = None


_TRACK_ARRAYS = {"tracks_xyz": (3,), "tracks_world": (3,), "tracks_uv": (2,), "visible": ()}


def find_prediction(folder: Path, name: str) -> Path | None:
    """Return the file that holds the prediction of the clip `source/clip`, or None.

    Args:
        folder: The predictions.
        name: Of the clip.
    """
    source, _, clip = name.partition("/")
    places = (folder / source / clip, folder / clip, folder / f"{source}_{clip}")
    candidates = [place.with_name(place.name + suffix) for place in places for suffix in (".npz", ".h5")]
    root = folder.resolve()
    return next((path for path in candidates if path.is_file() and path.resolve().is_relative_to(root)), None)


def read_prediction(path: Path, clip: BenchmarkClip, wanted: set[str]) -> Prediction:
    """Read the parts of a prediction that are wanted and there.

    Args:
        path: An `.npz`, or a scene of ours.
        clip: The benchmark's clip; shapes must fit its tracks and frames.
        wanted: Names of fields of `Prediction`.

    Raises:
        FormatError: The file is damaged, or an array does not fit the clip.
    """
    if path.suffix == ".h5":
        return _of_scene(path, clip, wanted)
    with open_npz(path) as npz:
        arrays = {name: _track_array(npz, name, clip) for name in _TRACK_ARRAYS if name in wanted}
        for name in ("z_depth", "world_from_cam", "intrinsics", "points_world"):
            if name in wanted and name in npz:
                arrays[name] = _frame_array(npz, name, clip)
    return Prediction(**{name: array for name, array in arrays.items() if array is not None})


def write_prediction(path: Path, prediction: Prediction) -> None:
    """Write a prediction as `.npz`, whole or not at all; the same arrays give the same bytes."""
    arrays = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    kept = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    write_npz(path, kept | {"axes": np.array(b"nt")})


def claim_predictions(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say in a folder which model fills it; predictions of one model are never taken for another's.

    Args:
        folder: Of the predictions; made if missing.
        facts: What they follow from, JSON-able.

    Raises:
        UsageError: It holds predictions of another model, or of nobody knows whom.
    """
    place, text = folder / _CLAIM, json.dumps(facts, indent=1, sort_keys=True) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    if place.is_file():
        if place.read_text(encoding="utf-8") != text:
            raise UsageError(
                "The predictions there are of another model, or were asked for otherwise",
                where=place,
                mend="name another folder, or delete this one",
            )
        return
    found = next((path for path in folder.rglob("*") if path.suffix in (".npz", ".h5")), None)
    if found is not None:
        raise UsageError(
            "The predictions there were not made by --model",
            where=found,
            mend="name another folder, or measure them without --model",
        )
    with atomic_file(place) as file:
        file.write(text.encode())


def _track_array(npz: Npz, name: str, clip: BenchmarkClip) -> Array | None:
    """Read an array of tracks as (N, T, ...), whichever of both orders it is stored in."""
    official = next((own for own, ours in _OFFICIAL.items() if ours == name and own in npz), None)
    stored = name if name in npz else official
    if stored is None or clip.tracks is None:
        return None
    array = npz.array(stored)
    tail = _TRACK_ARRAYS[name]
    num_tracks, num_frames = len(clip.tracks.query_xyt), clip.num_frames
    shapes = {"nt": (num_tracks, num_frames, *tail), "tn": (num_frames, num_tracks, *tail)}
    axes = _axes(npz, stored, array, shapes)
    if axes is None:
        raise FormatError(
            "A prediction does not fit its clip",
            where=f"{npz.path}, {stored}",
            expected=f"{shapes['nt']}, or {shapes['tn']}",
            found=array.shape,
            mend="one row for each query of the benchmark, in its order",
        )
    ordered = array if axes == "nt" else np.swapaxes(array, 0, 1)
    if name == "visible":
        return np.asarray(ordered > 0.5)
    return _floats(npz, stored, ordered)


def _axes(npz: Npz, stored: str, array: Array, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Say which order an array is in: as `axes` says, else the one its shape fits."""
    if "axes" in npz:
        said = npz.array("axes").astype(str).tolist()
        return said if said in shapes and array.shape == shapes[said] else None
    fitting = [axes for axes, shape in shapes.items() if array.shape == shape]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    if stored in _OFFICIAL:
        return "tn"
    raise FormatError(
        "As many tracks as frames: the order of an array cannot be told",
        where=f"{npz.path}, {stored}",
        expected='an array axes of "nt" or "tn" beside it',
        mend='np.savez(..., axes="nt") where rows are tracks',
    )


def _frame_array(npz: Npz, name: str, clip: BenchmarkClip) -> Array:
    array = npz.array(name)
    if name == "intrinsics" and array.shape == (3, 3):
        array = np.tile(array, (clip.num_frames, 1, 1))
    tails = {"z_depth": 3, "world_from_cam": 3, "intrinsics": 3, "points_world": 4}
    fixed = {"world_from_cam": (4, 4), "intrinsics": (3, 3), "points_world": (3,)}.get(name, ())
    is_right = array.ndim == tails[name] and array.shape[array.ndim - len(fixed) :] == fixed
    if not is_right or len(array) != clip.num_frames or 0 in array.shape:
        raise FormatError(
            "A prediction does not fit its clip",
            where=f"{npz.path}, {name}",
            expected=f"{clip.num_frames} frames of {tails[name] - 1} axes {fixed or ''}".rstrip(),
            found=array.shape,
        )
    return _floats(npz, name, array)


def _floats(npz: Npz, name: str, array: Array) -> Array:
    if array.dtype.kind not in "iuf":
        raise FormatError("Not numbers", where=f"{npz.path}, {name}", expected="floats", found=array.dtype)
    return np.asarray(array, np.float32 if name in ("z_depth", "points_world") else np.float64)


def _of_scene(path: Path, clip: BenchmarkClip, wanted: set[str]) -> Prediction:
    with open_scene(path) as scene:
        view = next(iter(scene.views.values()))
        if view.num_frames != clip.num_frames:
            raise FormatError(
                "A prediction does not fit its clip",
                where=path,
                expected=f"{clip.num_frames} frames",
                found=f"{view.num_frames} frames",
            )
        arrays: dict[str, Any] = {}
        if "world_from_cam" in wanted:
            arrays["world_from_cam"] = view.world_from_cam
        if "z_depth" in wanted and "z_depth" in view.layers:
            arrays["z_depth"] = np.stack([np.asarray(view.z_depth(t)) for t in range(view.num_frames)])
        if "intrinsics" in wanted:
            arrays["intrinsics"] = view.depth_intrinsics
        if clip.tracks is not None and wanted & set(_TRACK_ARRAYS):
            arrays |= _tracks_of_scene(scene, view, len(clip.tracks.query_xyt), path)
        return Prediction(**{name: array for name, array in arrays.items() if name in wanted})


def _tracks_of_scene(scene: Scene, view: View, num_tracks: int, path: Path) -> dict[str, Array]:
    """Explicit trajectories of a scene as answers to the queries, in order; {} if it has none."""
    points = scene.motion.points_world
    if points is None:
        return {}
    if len(points) != num_tracks:
        raise FormatError(
            "A scene's trajectories are not the answers to the queries",
            where=path,
            expected=f"{num_tracks} of them, in the benchmark's order",
            found=len(points),
        )
    at = view.motion_index
    world = np.where((at >= 0)[:, None], np.asarray(points, np.float64)[:, np.maximum(at, 0)], np.nan)
    xyz = g.transform_points(g.invert_rigid(view.world_from_cam), world)
    out = {"tracks_world": world, "tracks_xyz": xyz}
    state = scene.motion.point_state.get(view.name)
    if state is not None:
        out["visible"] = np.asarray(state == Visibility.VISIBLE)
    return out
