"""Scenes of ours as ground truth: any benchmark can be measured on them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from datakit import geometry as g
from datakit.errors import LayoutError
from datakit.motion import Visibility, track
from datakit.scene import Scene, View, open_scene

from .clip import Benchmark, BenchmarkClip, Entry, ReadOptions, TruthTracks
from .lists import choose

#: Pixels tried for each track wanted; those that are not known in every frame are dropped.
_TRIES = 4


def read_scenes(root: Path, options: ReadOptions) -> Benchmark:
    """List the views of a scene file, or of all in a folder.

    Args:
        root: The file or the folder.
        options: Names, if only some are wanted; `max_tracks` and `seed` of the pixels of frame 0 that are followed.

    Raises:
        LayoutError: No scene there.
        FormatError: One cannot be read.
    """
    files = [root] if root.is_file() else sorted(root.glob("*.h5"))
    if not files:
        raise LayoutError("No scene here", where=root, expected="*.h5")
    there: dict[str, dict[str, tuple[Path, str]]] = {}
    for path in files:
        with open_scene(path) as scene:
            views = [name for name, view in scene.views.items() if "rgb" in view.layers]
            for view in views:
                name = scene.id if len(views) == 1 else f"{scene.id}.{view}"
                there.setdefault(scene.dataset, {})[name] = (path, view)
    entries: list[Entry] = []
    missing: list[str] = []
    for source, clips in there.items():
        names, gone = choose(options.names, clips, source)
        missing += gone
        for name in names:
            path, view = clips[name]
            load = partial(_load, path, view, f"{source}/{name}", options)
            entries.append(Entry(f"{source}/{name}", source, (path,), load))
    settings = {"tracks": options.max_tracks, "track_seed": options.seed, "query_frame": 0}
    return Benchmark("scenes", tuple(entries), tuple(missing), settings)


def _load(path: Path, name: str, clip: str, options: ReadOptions) -> BenchmarkClip:
    scene = open_scene(path)  # closed when the clip is forgotten; its frames are read until then
    view = scene.views[name]

    def z_depth(t: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        depth = view.z_depth(t)
        if depth is None:
            raise LayoutError("A frame has no depth", where=f"{path}, view {name}, frame {t}")
        return depth

    has_depth = "z_depth" in view.layers
    return BenchmarkClip(
        name=clip,
        source=scene.dataset,
        num_frames=view.num_frames,
        size=view.size,
        rgb=view.rgb,
        times_s=view.times,
        frame_names=view.frame_names,
        intrinsics=view.intrinsics,
        depth_intrinsics=view.depth_intrinsics if has_depth else None,
        world_from_cam=view.world_from_cam,
        z_depth=z_depth if has_depth else None,
        tracks=_tracks(scene, view, options) if has_depth else None,
    )


def _tracks(scene: Scene, view: View, options: ReadOptions) -> TruthTracks | None:
    """Follow pixels of frame 0, drawn without looking at what is there, through all frames."""
    if not view.pose_is_known.all():
        return None
    rng = np.random.default_rng(options.seed)
    count, size = _TRIES * options.max_tracks, np.array(view.size)
    # Whole pixels: depth is exact at their centres.
    uv = np.floor(rng.random((count, 2)) * size) + 0.5
    found = track(
        scene,
        view.name,
        np.repeat(uv, view.num_frames, axis=0),
        0,
        np.tile(np.arange(view.num_frames), count),
    )
    state = found.state.reshape(count, -1)
    keep = np.flatnonzero(((state != Visibility.UNKNOWN).all(axis=1)) & (state[:, 0] == Visibility.VISIBLE))
    keep = keep[: options.max_tracks]
    if not keep.size:
        return None
    world = found.points_world.reshape(count, -1, 3)[keep]
    xyz = g.transform_points(g.invert_rigid(view.world_from_cam), world)
    queries = np.concatenate([uv[keep], np.zeros((len(keep), 1))], axis=1)
    uv_px = found.uv_px.reshape(count, -1, 2)[keep]
    return TruthTracks(queries, state[keep] == Visibility.VISIBLE, xyz, uv_px)
