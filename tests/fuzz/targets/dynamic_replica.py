"""Dynamic Replica: annotations, depth, flow, instances and trajectories."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from datakit.errors import DatakitError

from .kit import EDITS, Target, edited, right_png


def make(folder: Path) -> dict[str, Target]:
    from converters.dynamic_replica import annotations, rasters, reading, trajectories
    from converters.native.halves import z_of_code
    from tests.converters.dynamic_replica.snippets import (
        DEPTH_PNG,
        FLOW_PNG,
        MASK_PNG,
        ROW,
        SIZE,
        trajectory_file,
    )

    files, path = reading.Files(folder, Path()), folder / "frame_annotations_valid.jgz"

    def row_of(found: Any) -> None:
        row = annotations._row(found, "x")
        pose = row.world_from_cam
        assert np.isfinite(pose).all() and np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() < 1e-3
        for name in row.paths:
            with contextlib.suppress(DatakitError):
                files.has(row, name)

    def rows() -> None:
        for found in annotations.objects(path):
            row_of(found)

    def notes(data: bytes) -> None:
        path.write_bytes(gzip.compress(data, 1))
        rows()

    def packed(data: bytes) -> None:
        path.write_bytes(data)
        rows()

    # Made once: what instrumented code compares, Atheris never lets go.
    z_of = z_of_code(1.5, rasters.NEAREST)

    def flow(data: bytes) -> None:
        """Flow where it is of that width, else its mask."""
        png = right_png(data)
        is_wide = png[16:20] == FLOW_PNG[16:20]
        rasters.flow_codes(*((png, MASK_PNG) if is_wide else (FLOW_PNG, png)), SIZE, "x")

    saved = trajectory_file()
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))

    def pth(data: bytes) -> None:
        vertices = trajectories.read_vertices(data, "x")
        assert vertices.points_world.nbytes <= len(data)

    def pickle_in_pth(data: bytes) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            for name, stored in members.items():
                target.writestr(name, data if name == pickled else stored)
        pth(out.getvalue())

    text = json.dumps([ROW, {**ROW, "camera_name": "right", "frame_number": 1}]).encode()
    return {
        "replica-annotations": Target([text], notes),
        "replica-values": Target(EDITS, lambda data: row_of(edited(ROW, data))),
        "replica-jgz": Target([gzip.compress(text, mtime=0)], packed),
        "replica-depth": Target(
            [DEPTH_PNG],
            lambda d: z_of[rasters.depth_codes(right_png(d), SIZE, "x")],
        ),
        "replica-flow": Target([FLOW_PNG, MASK_PNG], flow),
        "replica-instances": Target(
            [MASK_PNG, DEPTH_PNG], lambda d: rasters.instances(right_png(d), SIZE, "x")
        ),
        "replica-pickle": Target([members[pickled]], pickle_in_pth),
        "replica-pth": Target([saved], pth),
    }
