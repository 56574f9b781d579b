"""Any bytes at all: a typed error or a sound value, in memory that the input bounds. DATAKIT_FUZZ sets how many."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.dynamic_replica import annotations, rasters, trajectories
from converters.native.halves import z_of_code
from datakit.errors import DatakitError
from datakit.schema.rules import is_rigid

from .snippets import DEPTH_PNG, FLOW_PNG, MASK_PNG, ROW, SIZE, trajectory_file

COUNT = int(os.environ.get("DATAKIT_FUZZ", "150"))
fuzz = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None)

PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b'"',
    b"NaN",
    b"1e999",
    b"-1",
    b"null",
    b"\xff",
    b"\\ud800",
    b"\0",
    b"9" * 30,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*ROW, "path", "size", "R"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, seed: bytes) -> bytes:
    """Draw bytes: the seed with up to four pieces cut, overwritten or put in."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        data[at:end] = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
    return bytes(data)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a row with up to three values replaced by anything."""
    out = json.loads(json.dumps(ROW))
    for _ in range(draw(st.integers(0, 3))):
        holder = draw(st.sampled_from([out, *(v for v in out.values() if isinstance(v, dict) and v)]))
        holder[draw(st.sampled_from(sorted(holder)))] = draw(json_values)
    return out


@st.composite
def pngs(draw: st.DrawFn, seed: bytes) -> bytes:
    """Draw a PNG whose chunks are damaged and then given right checksums, so that damage reaches the decoder."""
    out, at = seed[:8], 8
    while at < len(seed):
        (length,) = struct.unpack_from(">I", seed, at)
        chunk = seed[at + 4 : at + 8 + length]
        chunk = (draw(damaged(chunk)) if draw(st.booleans()) else chunk).ljust(4, b"x")
        out += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + length
    return out


@fuzz
@given(rows())
def test_rows(row: dict[str, Any]) -> None:
    try:
        read = annotations._row(row, "x")
    except DatakitError:
        return
    assert is_rigid(read.world_from_cam) and np.isfinite(read.intrinsics).all() and min(read.size) > 0
    assert np.isfinite([read.time, read.depth_scale]).all()
    assert all(isinstance(path, str) for path in read.paths.values())


@fuzz
@given(
    damaged(json.dumps([ROW, ROW]).encode()).map(gzip.compress)
    | damaged(gzip.compress(json.dumps([ROW] * 3).encode()))
)
def test_annotation_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "frame_annotations_valid.jgz"
    path.write_bytes(data)
    with contextlib.suppress(DatakitError):
        assert all(isinstance(item, dict) for item in annotations.objects(path))


@fuzz
@given(pngs(DEPTH_PNG) | damaged(DEPTH_PNG), st.sampled_from([1.0, 2.0, 1e-30, 1e30]))
def test_depth(data: bytes, scale: float) -> None:
    try:
        z = z_of_code(scale, rasters.NEAREST)[rasters.depth_codes(data, SIZE, "x")]
    except DatakitError:
        return
    assert z.shape == (4, 6) and (np.isnan(z) | ((z >= 1e-5) & np.isfinite(z))).all()


@fuzz
@given(pngs(FLOW_PNG) | damaged(FLOW_PNG), st.none() | pngs(MASK_PNG))
def test_flow(data: bytes, mask: bytes | None) -> None:
    try:
        flow = rasters.flow_codes(data, mask, SIZE, "x").view(np.float16)
    except DatakitError:
        return
    assert flow.shape == (4, 6, 2) and (np.isnan(flow).all(axis=-1) | np.isfinite(flow).all(axis=-1)).all()


@fuzz
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


@fuzz
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
