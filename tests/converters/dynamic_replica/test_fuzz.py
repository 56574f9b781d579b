"""Any bytes at all: a typed error or a sound value, in memory that the input bounds. DATAKIT_FUZZ sets how many."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dynamic_replica import annotations, rasters, trajectories
from converters.native.halves import z_of_code
from datakit.errors import DatakitError
from datakit.schema.rules import is_rigid
from tests.converters.damage import FUZZ, JSON, damaged, json_objects, pngs

from .snippets import DEPTH_PNG, FLOW_PNG, MASK_PNG, ROW, SIZE, trajectory_file


@FUZZ
@given(json_objects(ROW))
def test_rows(row: dict[str, Any]) -> None:
    try:
        read = annotations._row(row, "x")
    except DatakitError:
        return
    assert is_rigid(read.world_from_cam) and np.isfinite(read.intrinsics).all() and min(read.size) > 0
    assert np.isfinite([read.time, read.depth_scale]).all()
    assert all(isinstance(path, str) for path in read.paths.values())


@FUZZ
@given(
    damaged(json.dumps([ROW, ROW]).encode(), JSON).map(gzip.compress)
    | damaged(gzip.compress(json.dumps([ROW] * 3).encode()))
)
def test_annotation_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "frame_annotations_valid.jgz"
    path.write_bytes(data)
    with contextlib.suppress(DatakitError):
        assert all(isinstance(item, dict) for item in annotations.objects(path))


@FUZZ
@given(pngs(DEPTH_PNG) | damaged(DEPTH_PNG), st.sampled_from([1.0, 2.0, 1e-30, 1e30]))
def test_depth(data: bytes, scale: float) -> None:
    try:
        z = z_of_code(scale, rasters.NEAREST)[rasters.depth_codes(data, SIZE, "x")]
    except DatakitError:
        return
    assert z.shape == (4, 6) and (np.isnan(z) | ((z >= 1e-5) & np.isfinite(z))).all()


@FUZZ
@given(pngs(FLOW_PNG) | damaged(FLOW_PNG), st.none() | pngs(MASK_PNG))
def test_flow(data: bytes, mask: bytes | None) -> None:
    try:
        flow = rasters.flow_codes(data, mask, SIZE, "x").view(np.float16)
    except DatakitError:
        return
    assert flow.shape == (4, 6, 2) and (np.isnan(flow).all(axis=-1) | np.isfinite(flow).all(axis=-1)).all()


@FUZZ
@given(pngs(MASK_PNG) | damaged(MASK_PNG) | pngs(DEPTH_PNG))
def test_instances(data: bytes) -> None:
    with contextlib.suppress(DatakitError):
        assert rasters.instances(data, SIZE, "x").shape == (4, 6)


SAVED = trajectory_file()


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Draw a torch archive whose members are damaged, with right checksums: opcodes of the pickle among them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SAVED)) as source, zipfile.ZipFile(out, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if draw(st.integers(0, 3)) == 0:
                content = draw(damaged(content))
            target.writestr(item.filename, content)
    return out.getvalue()


@FUZZ
@given(archives() | damaged(SAVED))
def test_trajectory_files(data: bytes) -> None:
    try:
        vertices = trajectories.read_vertices(data, "x")
    except DatakitError:
        return
    count = len(vertices.points_world)
    assert vertices.is_visible.shape == vertices.instance.shape == (count,)
    assert vertices.points_world.nbytes <= len(data)


def test_annotations_of_a_whole_sequence(tmp_path: Path) -> None:
    path = tmp_path / "frame_annotations_valid.jgz"
    path.write_bytes(gzip.compress(json.dumps([ROW]).encode()))
    (row,) = annotations.rows_of(path, ROW["sequence_name"])
    assert row.size == SIZE and set(row.paths) == {"image", "depth", "instances", "flow_forward"}
