"""Any bytes at all: a typed error or a sound value, in memory that the input bounds. DATAKIT_FUZZ sets how many."""

from __future__ import annotations

import gzip
import json
import os
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.co3dv2 import Params
from converters.co3dv2.annotations import parse_frame, parse_sequence
from converters.co3dv2.camera import intrinsics_of, pose_of
from converters.co3dv2.images import check_mask, depth_codes, is_black, mask_bits
from converters.co3dv2.jgz import Unpacked, array_items
from converters.co3dv2.setlists import parse_list
from converters.native.halves import z_of_code
from datakit.errors import DatakitError
from datakit.schema.rules import is_rigid

from .snippets import DEPTH_PNG, FRAME, MASK_PNG, SET_LIST

COUNT = int(os.environ.get("DATAKIT_FUZZ", "150"))
fuzz = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None)

TEXT = json.dumps([FRAME, FRAME]).encode()
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
    b"true",
    b"\xff",
    b"\xc3",
    b"\\ud800",
    b"\0",
    b"9" * 30,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*FRAME, "path", "size", "R"]), inner, max_size=4)
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
def frames(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a frame annotation with up to three values replaced by anything."""
    out = json.loads(json.dumps(FRAME))
    for _ in range(draw(st.integers(0, 3))):
        holder = draw(st.sampled_from([out, *(v for v in out.values() if isinstance(v, dict) and v)]))
        holder[draw(st.sampled_from(sorted(holder)))] = draw(json_values)
    return out


def chunked(png: bytes) -> list[bytes]:
    """Split a PNG into its chunks, without lengths and checksums."""
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        chunks.append(png[at + 4 : at + 8 + length])
        at += 12 + length
    return chunks


@st.composite
def pngs(draw: st.DrawFn, seed: bytes) -> bytes:
    """Draw a PNG whose chunks are damaged and then given right checksums, so that damage reaches the decoder."""
    chunks = [draw(damaged(chunk)) if draw(st.booleans()) else chunk for chunk in chunked(seed)]
    return seed[:8] + b"".join(
        struct.pack(">I", max(0, len(c) - 4))
        + c.ljust(4, b"x")
        + struct.pack(">I", zlib.crc32(c.ljust(4, b"x")))
        for c in chunks
    )


@fuzz
@given(damaged(TEXT) | st.binary(max_size=200), st.integers(1, 64))
def test_array_text(data: bytes, size: int) -> None:
    pieces = [data[k : k + size] for k in range(0, len(data), size)]
    try:
        items = list(array_items(pieces, "x"))
    except DatakitError:
        return
    assert [item.value for item in items] == [item.value for item in array_items([data], "x")]
    assert all(data[item.start : item.end] == item.raw for item in items)


@fuzz
@given(damaged(gzip.compress(TEXT, mtime=0)) | st.binary(max_size=100))
def test_gzip(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            made = b"".join(Unpacked(Path(file.name)).pieces())
        except DatakitError:
            return
    assert len(made) <= 1100 * len(data)


@fuzz
@given(frames())
def test_frame_annotation(item: dict[str, Any]) -> None:
    try:
        note = parse_frame(item, "x")
    except DatakitError:
        return
    assert min(note.size) > 0 and note.depth_scale > 0
    if note.viewpoint is not None:
        k, (pose, why) = intrinsics_of(note.viewpoint, note.size), pose_of(note.viewpoint, Params())
        assert k is None or (np.isfinite(k).all() and min(k[0, 0], k[1, 1]) > 0)
        assert why if pose is None else bool(is_rigid(pose))


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["sequence_name", "video", "point_cloud", "viewpoint_quality_score"]), json_values
    )
)
def test_sequence_annotation(item: dict[str, Any]) -> None:
    try:
        parse_sequence({"sequence_name": "s", **item}, "x")
    except DatakitError:
        return


@fuzz
@given(damaged(SET_LIST) | st.binary(max_size=100))
def test_set_list(data: bytes) -> None:
    try:
        found = parse_list(data, "x")
    except DatakitError:
        return
    assert all(list(n) == sorted(set(n)) for parts in found.values() for n in parts.values())


@fuzz
@given(pngs(DEPTH_PNG) | damaged(DEPTH_PNG) | st.binary(max_size=100))
def test_depth_png(data: bytes) -> None:
    try:
        stored = depth_codes(data, (4, 3), "x")
    except DatakitError:
        return
    z = z_of_code(1.5)[stored]
    assert z.shape == (3, 4) and (np.isnan(z) | ((z > 0) & np.isfinite(z))).all()


@fuzz
@given(pngs(MASK_PNG) | st.binary(max_size=60))
def test_mask_png(data: bytes) -> None:
    try:
        check_mask(data, mask_bits(data[:25]), (4, 3), "x")
        is_black(data, "x")
    except DatakitError:
        return


def test_claimed_sizes_take_no_memory() -> None:
    huge = bytearray(DEPTH_PNG)
    huge[16:24] = struct.pack(">II", 16000, 16000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    tracemalloc.start()
    for call in (
        lambda: depth_codes(bytes(huge), (4, 3), "x"),
        lambda: parse_list(b"[" * 100_000, "x"),
        lambda: list(array_items([b"[" + b"{" * 100_000], "x")),
    ):
        try:
            call()
        except DatakitError:
            continue
        raise AssertionError("a false claim was believed")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
