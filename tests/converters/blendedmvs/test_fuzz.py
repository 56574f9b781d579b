"""Any bytes at all: a typed error or a sound value, in memory that the input bounds. DATAKIT_FUZZ sets how many."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converters.blendedmvs.pfm import parse_pfm, z_from_pfm
from converters.blendedmvs.texts import intrinsics_of, parse_cam, parse_list, parse_pairs, pose_of
from datakit.errors import DatakitError
from datakit.schema.rules import is_rigid
from tests.converters.damage import FUZZ, TEXT, damaged

from .snippets import CAM_MATRICES, PAIRS, SCENE_LINE

PFM = b"Pf\n4 3\n-1.000000\n" + np.arange(12, dtype="<f4").tobytes()
CAM = CAM_MATRICES + b"1 0.5 4 9\n"


def anything(seed: bytes) -> st.SearchStrategy[bytes]:
    return damaged(seed, TEXT) | st.binary(max_size=200)


@FUZZ
@given(anything(PFM))
def test_pfm(data: bytes) -> None:
    try:
        stored = parse_pfm(data, "x")
    except DatakitError:
        return
    assert stored.nbytes < len(data) and stored.ndim == 2
    z = z_from_pfm(stored)
    assert (np.isnan(z) | ((z > 0) & np.isfinite(z))).all()


@FUZZ
@given(anything(CAM))
def test_cam(data: bytes) -> None:
    try:
        camera = parse_cam(data, "x")
        pose, k = pose_of(camera, "x"), intrinsics_of(camera, "x")
    except DatakitError:
        return
    assert pose is None or bool(is_rigid(pose))
    assert np.isfinite(k).all() and k[0, 0] > 0 and set(camera.sweep) == {"min", "interval", "num", "max"}


@FUZZ
@given(anything(PAIRS))
def test_pairs(data: bytes) -> None:
    try:
        rows = parse_pairs(data, "x")
    except DatakitError:
        return
    assert all(np.isfinite(score) and i >= 0 for row in rows.values() for i, score in row)


@FUZZ
@given(anything(SCENE_LINE + b"000000000000000000000005\n"))
def test_list(data: bytes) -> None:
    try:
        assert all(name and not name.isspace() for name in parse_list(data, "x"))
    except DatakitError:
        return


def test_claimed_sizes_take_no_memory() -> None:
    claims = [b"Pf\n16000 16000\n-1\n" + bytes(100), b"999999999\n" + b"0\n0\n" * 5, b"1\n0\n999999999 1 2\n"]
    tracemalloc.start()
    for parse, data in zip((parse_pfm, parse_pairs, parse_pairs), claims, strict=True):
        try:
            parse(data, "x")
        except DatakitError:
            continue
        raise AssertionError("a false claim was believed")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
