"""Write a reconstruction: as a scene of the contract, and from that scene as arrays, points, COLMAP, page and rerun."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.export import export_colmap
from datakit.motion import Visibility
from datakit.scene import Scene, View, open_scene, write_scene

from .cloud import CloudOptions, frame_points
from .dense_output import write_dense
from .files import sync_folder, write_npz_parts
from .ply import write_ply
from .rerun_log import write_rerun
from .scene_output import STATIC_ID, VIEW, scene_stream
from .stitch import Reconstruction
from .video import FrameSource
from .viewer import ViewerOptions, write_viewer
from .window import WindowResult

#: Name -> file or folder in the job's folder, in the order in which they are made.
OUTPUTS = {
    "scene": "scene.h5",
    "npz": "arrays.npz",
    "ply": "points.ply",
    "colmap": "colmap",
    "viewer": "viewer.html",
    "rerun": "scene.rrd",
}
#: Made whenever dense tracks were asked for.
DENSE_FOLDER = "dense"
DEFAULT_OUTPUTS = ("scene", "npz", "ply", "colmap", "viewer")


@dataclass(frozen=True)
class OutputOptions:
    """What is written, and how much of it.

    Attributes:
        kinds: Names of `OUTPUTS`; the scene is always made.
        points: Largest number of points in the PLY file.
        viewer_points: Largest number of points in the page.
        drop: Share of the least confident depths that point clouds leave out.
        licence: Of the video, as stored in the scene; None for what its source says.
    """

    kinds: tuple[str, ...] = DEFAULT_OUTPUTS
    points: int = 2_000_000
    viewer_points: int = 150_000
    drop: float = 0.15
    licence: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(OUTPUTS))
        if unknown:
            raise UsageError("Unknown output", expected=", ".join(OUTPUTS), found=", ".join(unknown))
        CloudOptions(self.points, self.drop)
        ViewerOptions(self.viewer_points, drop=self.drop)


def write_outputs(
    out: Path,
    rec: Reconstruction,
    windows: Sequence[WindowResult],
    source: FrameSource,
    provenance: Mapping[str, Any],
    options: OutputOptions,
    say: Callable[[str], None],
) -> dict[str, Path]:
    """Write everything that was asked for; each appears under its name when it is whole.

    Args:
        out: The job's folder.
        rec: What was inferred.
        windows: What it was joined from.
        source: Where the pictures come from.
        provenance: Model and parameters, as plain data.
        options: What to write.
        say: Told what is being made.

    Returns:
        Name -> path of what was written.
    """
    written = {"scene": out / OUTPUTS["scene"]}
    say(f"writing {written['scene']}")
    write_scene(written["scene"], scene_stream(rec, source, provenance, options.licence))
    if rec.params.dense:
        written["dense"] = out / DENSE_FOLDER
        say(f"writing {written['dense']}")
        write_dense(written["dense"], rec, windows)
    with open_scene(written["scene"]) as scene:
        makers: dict[str, Callable[[Path], object]] = {
            "npz": lambda path: write_arrays(path, scene),
            "ply": lambda path: write_ply(
                path, frame_points(scene, scene.views[VIEW], CloudOptions(options.points, options.drop))
            ),
            "colmap": lambda path: _write_colmap(path, scene),
            "viewer": lambda path: write_viewer(
                scene,
                path,
                ViewerOptions(options.viewer_points, drop=options.drop),
                facts=_facts(provenance),
                notes=_notes(scene),
            ),
            "rerun": lambda path: write_rerun(
                path, scene, scene.views[VIEW], CloudOptions(drop=options.drop)
            ),
        }
        for name, maker in makers.items():
            if name in options.kinds:
                written[name] = out / OUTPUTS[name]
                say(f"writing {written[name]}")
                maker(written[name])
    return written


# --- what is made from the scene -------------------------------------------------------------------------------------


def write_arrays(path: Path, scene: Scene) -> None:
    """Write an .npz of a scene's view: see docs/infer.md for what is in it. Depth is streamed frame by frame."""
    view, motion = scene.views[VIEW], scene.motion
    width, height = view.depth_size
    maps = (view.num_frames, height, width)
    whole: dict[str, NDArray[Any]] = {
        "size": np.array(view.size, np.int64),
        "times_s": view.times,
        "frame_names": np.array(view.frame_names),
        "intrinsics": view.intrinsics,
        "depth_intrinsics": view.depth_intrinsics,
        "world_from_cam": view.world_from_cam,
    }
    if motion.points_world is not None:
        tracks_cam = np.full(motion.points_world.shape, np.nan, np.float32)
        for t in range(view.num_frames):
            cam_from_world = g.invert_rigid(view.world_from_cam[t])
            tracks_cam[:, t] = g.transform_points(cam_from_world, motion.points_world[:, t])
        state = motion.point_state[VIEW]
        whole |= {
            "tracks_world": motion.points_world,
            "tracks_cam": tracks_cam,
            "tracks_state": state,
            "tracks_visible": state == Visibility.VISIBLE,
            "tracks_moving": np.asarray(motion.point_instance != STATIC_ID),
        }
    parts = {name: (array.shape, array.dtype, [array]) for name, array in whole.items()}
    streamed = {
        "z_depth": (view.z_depth, "float32"),
        "confidence": (view.depth_confidence, "float32"),
        "moving": (view.instances, "uint8"),
    }
    for name, (read, dtype) in streamed.items():
        parts[name] = (maps, np.dtype(dtype), map(read, range(view.num_frames)))  # type: ignore[assignment]
    write_npz_parts(path, parts)


def _write_colmap(path: Path, scene: Scene) -> None:
    """Write the COLMAP workspace beside its place and rename it there."""
    partial = path.with_name(f"{path.name}.partial")
    for folder in (partial, path):
        if folder.exists():
            shutil.rmtree(folder)
    export_colmap(scene, partial)
    partial.rename(path)
    sync_folder(path.parent)


def seam_text(seam: Mapping[str, Any]) -> str:
    """Say how a bad seam disagrees, from its plain data."""
    where = f"the seam at frames {seam['first']} to {seam['last']}"
    if seam["method"] == "none":
        return f"{where} holds nothing together: its poses are unknown"
    if seam["scale_from_cameras"] is None:
        return f"{where} was fitted by {seam['method']} alone"
    return (
        f"{where} disagrees: scale {seam['scale']:.3g} from points, {seam['scale_from_cameras']:.3g} from cameras; "
        f"rotations {seam['rotation_deg'] or 0:.2g} degrees apart"
    )


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = provenance.get("model", {})
    facts = [("model", str(model.get("name", "unknown")))]
    sha256 = model.get("sha256") or model.get("weights_sha256")
    if sha256:
        facts.append(("weights", f"sha256 {str(sha256)[:12]}"))
    return facts


def _notes(scene: Scene) -> list[tuple[str, bool]]:
    notes = [(str(note), True) for note in scene.metadata["notes"]]
    view: View = scene.views[VIEW]
    for seam in scene.metadata["seams"]:
        if seam.get("is_bad"):
            notes.append((f"{seam_text(seam)}; what comes after it is doubtful", True))
    missing = int((~view.pose_is_known).sum())
    if missing:
        notes.append((f"{missing} frames without a pose", True))
    return notes
