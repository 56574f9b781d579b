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
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.dynamic_replica import annotations, rasters, trajectories
from converters.native.halves import z_of_code
from datakit.errors import DatakitError
from datakit.scene import encode_png
from datakit.schema.rules import is_rigid

COUNT = int(os.environ.get("DATAKIT_FUZZ", "150"))
fuzz = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None)

ROW: dict[str, Any] = {
    "sequence_name": "009850-3_obj",
    "frame_number": 0,
    "frame_timestamp": 0.0,
    "camera_name": "left",
    "image": {"path": "a/b.png", "size": [4, 6]},
    "depth": {"path": "a/d.png", "scale_adjustment": 1.0, "mask_path": None},
    "viewpoint": {
        "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "T": [0, 0, 5],
        "focal_length": [4, 4.5],
        "principal_point": [0.1, -0.2],
        "intrinsics_format": "ndc_isotropic",
    },
    "instance_id_map_path": {"path": "a/i.png"},
    "trajectories": {"path": None},
    "flow_forward": {"path": "a/f.png"},
}
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


SIZE = (6, 4)
DEPTH = encode_png(np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000)
BOTH = encode_png(np.arange(48, dtype=np.uint16).reshape(4, 12) * 1300)
MASK = encode_png(np.full((4, 6), 255, np.uint8))


@fuzz
@given(pngs(DEPTH) | damaged(DEPTH), st.sampled_from([1.0, 2.0, 1e-30, 1e30]))
def test_depth(data: bytes, scale: float) -> None:
    try:
        z = z_of_code(scale, rasters.NEAREST)[rasters.depth_codes(data, SIZE, "x")]
    except DatakitError:
        return
    assert z.shape == (4, 6) and (np.isnan(z) | ((z >= 1e-5) & np.isfinite(z))).all()


@fuzz
@given(pngs(BOTH) | damaged(BOTH), st.none() | pngs(MASK))
def test_flow(data: bytes, mask: bytes | None) -> None:
    try:
        flow = rasters.flow_codes(data, mask, SIZE, "x").view(np.float16)
    except DatakitError:
        return
    assert flow.shape == (4, 6, 2) and (np.isnan(flow).all(axis=-1) | np.isfinite(flow).all(axis=-1)).all()


@fuzz
@given(pngs(MASK) | damaged(MASK) | pngs(DEPTH))
def test_instances(data: bytes) -> None:
    with contextlib.suppress(DatakitError):
        assert rasters.instances(data, SIZE, "x").shape == (4, 6)


def _saved() -> bytes:
    buffer = io.BytesIO()
    content = {
        "traj_3d_world": torch.arange(15.0).reshape(5, 3),
        "verts_inds_vis": torch.ones(5, dtype=torch.bool),
        "instances": torch.ones(5),
        "img": torch.zeros(2, 2, 3, dtype=torch.uint8),
    }
    torch.save(content, buffer)
    return buffer.getvalue()


SAVED = _saved()


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
