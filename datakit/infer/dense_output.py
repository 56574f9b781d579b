"""Dense tracks of each window in the reconstruction's world, one file a window."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datakit import geometry as g

from .files import PARTIAL_SUFFIX, sync_folder, write_npz
from .stitch import Placed, Reconstruction
from .window import WindowResult


def write_dense(folder: Path, rec: Reconstruction, windows: Sequence[WindowResult]) -> None:
    """Write FOLDER/<window>.npz; the folder appears when it is whole.

    Tracks of a window are those of its own frames; unlike single tracks they are not carried on into the next.

    Args:
        folder: Where to; what is there is replaced.
        rec: Tells where each window lies.
        windows: Read one at a time.
    """
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    for path in (partial, folder):
        if path.exists():
            shutil.rmtree(path)
    partial.mkdir()
    for number, place in enumerate(rec.placed):
        _write_window(partial / f"{number:05d}.npz", rec, place, windows[number])
    partial.rename(folder)
    sync_folder(folder.parent)


def _write_window(path: Path, rec: Reconstruction, place: Placed, window: WindowResult) -> None:
    dense = window.dense
    if dense is None:
        return
    scale = np.nan if place.fit is None else place.fit.scale
    points = np.empty_like(dense.points_cam, np.float32)
    for t in range(points.shape[1]):
        points[:, t] = g.transform_points(rec.world_from_cam[place.first + t], scale * dense.points_cam[:, t])
    write_npz(
        path,
        {
            "numbers": window.numbers,
            "times_s": window.times_s,
            "query_uv": dense.query_uv,
            "query_frame": dense.query_frame,
            "points_world": points,
            "visible": dense.visible,
            "confidence": dense.confidence,
            "track_of": dense.track_of,
            "z_depth": (scale * dense.z_depth).astype(np.float32),
            "saving": np.array(dense.saving),
            "covered": np.array(dense.share),
        },
    )
