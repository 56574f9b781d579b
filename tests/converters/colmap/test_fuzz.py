"""Damaged models, images and depth maps: typed errors only, no crash, no hang, bounded memory.

DATAKIT_FUZZ sets the number of inputs per test for long runs.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import converters.colmap as colmap
from converters.colmap.lens import lens_of, project_source, rectify
from converters.colmap.model import read_model
from datakit.errors import DatakitError
from datakit.export.colmap_model import CAMERA_MODELS, ColmapCamera, write_depth_map

from .workspaces import drain, write_hand

COUNT = int(os.environ.get("DATAKIT_FUZZ", "150"))
MAX_BYTES = 16_000_000
FUZZ = settings(
    max_examples=COUNT,
    deadline=None,
    database=None,
    derandomize=COUNT <= 1000,
    suppress_health_check=list(HealthCheck),
)
_WORDS = [
    b"\0",
    b"\xff",
    b"\x01",
    b" ",
    b"\n",
    b"-1 ",
    b"nan ",
    b"1e309 ",
    b"\0" * 8,
    b"\xff" * 8,
    b"\x80" * 8,
]
_WORDS += [b"\0\0\0\0\0\0\xf0\x7f", b"\0\0\0\0\0\0\xf8\x7f", b"\xff\xff\xff\x7f", b"9" * 400]
_PLACE = st.floats(0, 1, exclude_max=True)
EDITS = st.lists(
    st.tuples(
        _PLACE,
        st.one_of(
            st.tuples(st.just("put"), st.one_of(st.sampled_from(_WORDS), st.binary(min_size=1, max_size=9))),
            st.tuples(
                st.just("insert"), st.one_of(st.sampled_from(_WORDS), st.binary(min_size=1, max_size=9))
            ),
            st.tuples(st.just("flip"), st.integers(0, 7)),
            st.tuples(st.just("cut"), st.integers(1, 200)),
            st.tuples(st.just("end"), st.just(0)),
        ),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, edits: list) -> bytes:
    out = bytearray(data)
    for place, (kind, what) in edits:
        at = int(place * len(out))
        if kind == "put":
            out[at : at + len(what)] = what
        elif kind == "insert":
            out[at:at] = what
        elif kind == "flip" and out:
            out[at] ^= 1 << what
        elif kind == "cut":
            del out[at : at + what]
        elif kind == "end":
            del out[at:]
    return bytes(out)


def check(read: Callable[[], object]) -> None:
    """Anything but success or one of datakit's own errors fails, and so does memory."""
    watch = COUNT <= 1000
    if watch:
        tracemalloc.start()
    try:
        read()
    except DatakitError as error:
        assert error.what and str(error)
    finally:
        if watch:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert not watch or peak < MAX_BYTES


@pytest.fixture(scope="module", params=["binary", "text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    return write_hand(root, as_text=request.param == "text") / "sparse" / "0"


@FUZZ
@given(edits=EDITS, which=st.integers(0, 2))
def test_damaged_model(model: Path, edits: list, which: int) -> None:
    victim = sorted(path for path in model.iterdir() if path.suffix in (".bin", ".txt"))[which]
    good = victim.read_bytes()
    victim.write_bytes(damaged(good, edits))
    try:
        check(lambda: read_model(model, Path(), victim.suffix, []))
    finally:
        victim.write_bytes(good)


@settings(FUZZ, max_examples=COUNT // 3)
@given(edits=EDITS, which=_PLACE, depth=st.booleans())
def test_damaged_workspace(model: Path, edits: list, which: float, depth: bool) -> None:
    """The whole way, with images and depth maps."""
    root = model.parents[2]
    for k in (1, 2, 3):
        path = root / "shed" / "stereo" / "depth_maps" / f"{k}.png.geometric.bin"
        if not path.exists():
            write_depth_map(path, np.full((12, 16), 4.0, np.float32))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    victim = files[int(which * len(files))]
    good = victim.read_bytes()
    victim.write_bytes(damaged(good, edits))
    try:
        check(lambda: drain(root, colmap.Params(depth="auto" if depth else "points")))
    finally:
        victim.write_bytes(good)


_VALUE = st.one_of(st.floats(-3, 3), st.floats(allow_nan=True, allow_infinity=True), st.floats(-60, 60))


@settings(FUZZ, max_examples=max(30, COUNT // 3))
@given(
    name=st.sampled_from(sorted(CAMERA_MODELS)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    focal=st.one_of(st.floats(0.02, 100), _VALUE),
    centre=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    rest=st.lists(_VALUE, min_size=14, max_size=14),
    distortion=st.sampled_from(["auto", "keep", "undistort"]),
)
def test_absurd_lenses(
    name: str,
    size: tuple[int, int],
    focal: float,
    centre: tuple[float, float],
    rest: list[float],
    distortion: str,
) -> None:
    """No set of numbers may take COLMAP's C++, or the process, down."""
    pytest.importorskip("pycolmap")
    count = CAMERA_MODELS[name][1]
    num_focal = 1 if name.startswith("SIMPLE") or name in ("RADIAL", "RADIAL_FISHEYE") else 2
    params = [focal * max(size)] * num_focal + [centre[0] * size[0], centre[1] * size[1], *rest]
    camera = ColmapCamera(1, name, size, tuple(params[:count]))

    def use() -> None:
        lens = lens_of(camera, distortion, "x")
        points = np.random.default_rng(0).normal(size=(20, 3))
        project_source(camera, points)
        if lens.source is not None:
            assert rectify(np.zeros((size[1], size[0], 3), np.uint8), lens).shape[1::-1] == lens.size

    check(use)
