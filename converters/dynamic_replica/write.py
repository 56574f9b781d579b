"""Analytic worlds in Dynamic Replica's own layout, written from the format's description."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError, UsageError
from datakit.motion.kinds import Visibility
from datakit.scene import encode_png
from datakit.worlds import World, WorldFrame

VIEWS = {"left": "camera", "right": "camera_1"}
#: The mesh's ids start at 1; nothing shows 0.
FIRST_ID = 1
_POINTS_PER_INSTANCE = 300
_PYTORCH3D_FROM_OPENCV = np.diag([-1.0, -1.0, 1.0])


def write_tree(worlds: Iterable[World], out: Path, form: str) -> None:
    """Write sequences and their annotation file; see `write_native`."""
    folder = out / "valid" if form == "split" else out
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for world in worlds:
        if set(VIEWS.values()) - set(world.views):
            raise ConventionError(
                "Dynamic Replica has two eyes.",
                where=world.name,
                expected=sorted(VIEWS.values()),
                found=[*world.views],
            )
        vertices = _vertices(world)
        for eye in VIEWS:
            rows += [_write_frame(world, eye, t, folder, vertices) for t in range(world.num_frames)]
            (folder / _source(world, eye) / "images" / "done.ok").touch()
    # The time of the archive is part of it; at zero the same worlds give the same bytes.
    with gzip.GzipFile(folder / "frame_annotations_valid.jgz", "wb", mtime=0) as file:
        file.write(json.dumps(rows).encode())
    if form == "flat":
        with gzip.GzipFile(folder / "frame_annotations_test.jgz", "wb", mtime=0) as file:
            file.write(b"[]")


def sequence_name(world: World) -> str:
    """Make a name like the release's: six hex digits, a number, "_obj"."""
    return f"{world.seed % (1 << 24):06x}-{len(world.instances)}_obj"


def _source(world: World, eye: str) -> str:
    return f"{sequence_name(world)}_source_{eye}"


def break_depth(folder: Path, world: World, number: int, eye: str = "left") -> Path:
    """Give a written frame depth that is valid and wrong, as frame 0 of 56aada-7_obj has (dynamic_stereo#23).

    Args:
        folder: That of the annotation file.
        world: What was written.
        number: The frame.
        eye: "left" or "right".

    Returns:
        The depth file.
    """
    source = _source(world, eye)
    path = folder / source / "depths" / f"{source}_{number:04d}.geometric.png"
    width, height = world.views[VIEWS[eye]].size
    wrong = np.random.default_rng([world.seed, number]).uniform(1, 9, size=(height, width))
    path.write_bytes(_halves(wrong))
    return path


def _vertices(world: World) -> dict[str, NDArray[Any]]:
    """Choose mesh vertices that the left eye sees at least once: (N, T, 3), (N, T) visible, (N,) ids."""
    points, ids = [], []
    for body in world.bodies:
        tracks = world.trajectories(body.id, _POINTS_PER_INSTANCE)
        points.append(tracks)
        ids.append(np.full(len(tracks), body.id + FIRST_ID))
    tracks, instance = np.concatenate(points), np.concatenate(ids)
    state, _, _ = world.see(VIEWS["left"], tracks.reshape(-1, 3), np.tile(world.times, len(tracks)))
    state = state.reshape(tracks.shape[:2])
    kept = (state == Visibility.VISIBLE).any(axis=1)
    # The flag means "nothing before it"; what is outside the picture may well have it.
    return {"points": tracks[kept], "visible": state[kept] != Visibility.OCCLUDED, "instance": instance[kept]}


def _write_frame(
    world: World, eye: str, t: int, folder: Path, vertices: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    frame = world.render(t, VIEWS[eye])
    source = _source(world, eye)
    last, stem = world.num_frames - 1, f"{source}_{t:04d}"
    # Both ways of naming a scale occur; the pixels then hold the rest.
    scale = 2.0 if t == 1 else 1.0
    files = {
        f"images/{source}-{t:04d}.png": _rgba(frame),
        f"depths/{stem}.geometric.png": _halves(_with_oddities(frame.z_depth / scale)),
        f"masks/{stem}.png": encode_png(np.where(frame.instances > 0, 255, 0).astype(np.uint8)),
        f"instance_id_maps/{stem}.png": encode_png((frame.instances + FIRST_ID).astype(np.uint8)),
    }
    paths: dict[str, str | None] = dict.fromkeys(("flow_forward", "flow_backward"))
    for name, values, absent in (
        ("flow_forward", frame.flow_forward, last),
        ("flow_backward", frame.flow_backward, 0),
    ):
        if t != absent:
            known = np.isfinite(values).all(axis=-1)
            both = np.concatenate([values[..., 0], values[..., 1]], axis=1)
            files[f"{name}/{stem}.png"] = _halves(np.nan_to_num(both))
            files[f"{name}_mask/{stem}.png"] = encode_png(np.where(known, 255, 0).astype(np.uint8))
            paths[name] = f"{source}/{name}/{stem}.png"
    for name, data in files.items():
        path = folder / source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    track = None
    if eye == "left":
        track = f"{source}/trajectories/{t:06d}.pth"
        _write_vertices(folder / track, world, frame, t, vertices)
    maps = f"{source}/instance_id_maps/{stem}.png"
    return {
        "sequence_name": sequence_name(world),
        "frame_number": t,
        "frame_timestamp": float(world.times[t]),
        "camera_name": eye,
        "image": {"path": f"{source}/images/{source}-{t:04d}.png", "size": list(frame.instances.shape)},
        "depth": {
            "path": f"{source}/depths/{stem}.geometric.png",
            "scale_adjustment": scale,
            "mask_path": None,
        },
        "mask": {"path": f"{source}/masks/{stem}.png", "mass": float((frame.instances > 0).sum())},
        "viewpoint": _viewpoint(world, eye, t),
        "meta": None,
        "instance_id_map_path": maps if eye == "right" else {"path": maps},
        "trajectories": {"path": track},
        **{name: {"path": path} for name, path in paths.items()},
        **{
            f"{name}_mask": {"path": path and path.replace(f"/{name}/", f"/{name}_mask/")}
            for name, path in paths.items()
        },
    }


def _rgba(frame: WorldFrame) -> bytes:
    rgba = np.dstack([frame.rgb[..., ::-1], np.full(frame.rgb.shape[:2], 255, np.uint8)])
    _, data = cv2.imencode(".png", rgba)
    return bytes(data)


def _with_oddities(z_depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put every code for "unknown" into the first row where nothing is hit, and into its first pixels."""
    out = z_depth.copy()
    out[~np.isfinite(out)] = 0.0
    out[0, :4] = (0.0, -0.0, np.inf, np.nan)
    return out


def _halves(values: NDArray[np.float64]) -> bytes:
    return encode_png(values.astype(np.float16).view(np.uint16))


def _viewpoint(world: World, eye: str, t: int) -> dict[str, Any]:
    """Express a camera as PyTorch3D does: row vectors, x left, y up, NDC by the shorter side."""
    view = world.views[VIEWS[eye]]
    cam_from_world = g.invert_rigid(view.world_from_cam[t])
    half, matrix = np.array(view.size) / 2, view.intrinsics[t]
    return {
        "R": (_PYTORCH3D_FROM_OPENCV @ cam_from_world[:3, :3]).T.tolist(),
        "T": (_PYTORCH3D_FROM_OPENCV @ cam_from_world[:3, 3]).tolist(),
        "focal_length": (matrix[[0, 1], [0, 1]] / half.min()).tolist(),
        "principal_point": ((half - matrix[:2, 2]) / half.min()).tolist(),
        "intrinsics_format": "ndc_isotropic",
    }


def _write_vertices(
    path: Path, world: World, frame: WorldFrame, t: int, vertices: dict[str, NDArray[Any]]
) -> None:
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            "Dynamic Replica's trajectories need torch", mend="pip install 'datakit[torch]'"
        ) from error
    points = vertices["points"][:, t]
    view = world.views[VIEWS["left"]]
    cam = g.transform_points(g.invert_rigid(view.world_from_cam[t]), points)
    with np.errstate(divide="ignore", invalid="ignore"):
        uvw = np.concatenate([(cam @ view.intrinsics[t].T)[:, :2] / cam[:, 2:], 1 / cam[:, 2:]], axis=1)
    uvw[0, 0] = np.inf
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "traj_2d": torch.from_numpy(uvw.astype(np.float32)),
        "traj_3d_world": torch.from_numpy(points.astype(np.float32)),
        "verts_inds_vis": torch.from_numpy(vertices["visible"][:, t]),
        "img": torch.from_numpy(frame.rgb),
        "instances": torch.from_numpy(vertices["instance"].astype(np.float32)),
    }
    torch.save(content, path)
