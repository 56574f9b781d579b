"""Any bytes at all: a typed error or a sound value, in memory that the input bounds. DATAKIT_FUZZ sets how many."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
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
from tests.converters.damage import FUZZ, JSON, damaged, json_objects, json_values, pngs

from .snippets import DEPTH_PNG, FRAME, MASK_PNG, SET_LIST

TEXT = json.dumps([FRAME, FRAME]).encode()


@FUZZ
@given(damaged(TEXT, JSON) | st.binary(max_size=200), st.integers(1, 64))
def test_array_text(data: bytes, size: int) -> None:
    pieces = [data[k : k + size] for k in range(0, len(data), size)]
    try:
        items = list(array_items(pieces, "x"))
    except DatakitError:
        return
    assert [item.value for item in items] == [item.value for item in array_items([data], "x")]
    assert all(data[item.start : item.end] == item.raw for item in items)


@FUZZ
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


@FUZZ
@given(json_objects(FRAME))
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


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(["sequence_name", "video", "point_cloud", "viewpoint_quality_score"]),
        json_values(["path", "quality_score", "n_points"]),
    )
)
def test_sequence_annotation(item: dict[str, Any]) -> None:
    try:
        parse_sequence({"sequence_name": "s", **item}, "x")
    except DatakitError:
        return


@FUZZ
@given(damaged(SET_LIST, JSON) | st.binary(max_size=100))
def test_set_list(data: bytes) -> None:
    try:
        found = parse_list(data, "x")
    except DatakitError:
        return
    assert all(list(n) == sorted(set(n)) for parts in found.values() for n in parts.values())


@FUZZ
@given(pngs(DEPTH_PNG) | damaged(DEPTH_PNG) | st.binary(max_size=100))
def test_depth_png(data: bytes) -> None:
    try:
        stored = depth_codes(data, (4, 3), "x")
    except DatakitError:
        return
    z = z_of_code(1.5)[stored]
    assert z.shape == (3, 4) and (np.isnan(z) | ((z > 0) & np.isfinite(z))).all()


@FUZZ
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
