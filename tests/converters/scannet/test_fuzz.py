"""Damaged bytes: typed errors only, no hang, no memory beyond what the file could need.

DATAKIT_FUZZ sets the number of inputs per test for long runs.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datakit.errors import DatakitError

from .scans import drain, small_world, write_hand, write_scan

COUNT = int(os.environ.get("DATAKIT_FUZZ", "150"))
#: Of Python's and numpy's allocations. The files are a few kB; deflate can make a thousand times that.
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
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\0\0\x80\x7f",
    b"\0\0\xc0\x7f",
    b"\x80" * 8,
]
_PLACE = st.floats(0, 1, exclude_max=True)
#: (where as a share of the file, what is done there)
EDITS = st.lists(
    st.tuples(
        _PLACE,
        st.one_of(
            st.tuples(st.just("put"), st.one_of(st.sampled_from(_WORDS), st.binary(min_size=1, max_size=9))),
            st.tuples(st.just("insert"), st.binary(min_size=1, max_size=9)),
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hand(tmp_path_factory.mktemp("sens"))


@FUZZ
@given(edits=EDITS, head_only=st.booleans())
def test_damaged_sens(whole: Path, edits: list, head_only: bool) -> None:
    data = whole.read_bytes()
    # Half of the inputs are damaged where every byte matters: head and first frame head.
    split = 319 + 96 if head_only else len(data)
    root = whole.parents[2] / "damaged"
    target = root / "scene0001_00.sens"
    root.mkdir(exist_ok=True)
    target.write_bytes(damaged(data[:split], edits) + data[split:])
    check(lambda: drain(root))


@FUZZ
@given(data=st.binary(max_size=600))
def test_random_bytes_after_a_good_head(whole: Path, data: bytes) -> None:
    root = whole.parents[2] / "random"
    root.mkdir(exist_ok=True)
    (root / "scene0001_00.sens").write_bytes(whole.read_bytes()[:319] + data)
    check(lambda: drain(root))


@pytest.fixture(scope="module", params=["export", "export-cpp", "frames-25k"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = small_world(1, num_frames=2, size=(16, 12))
    return write_scan(tmp_path_factory.mktemp("tree"), request.param, world)


@settings(FUZZ, max_examples=COUNT // 3)  # three forms
@given(edits=EDITS, which=_PLACE)
def test_damaged_export(tree: Path, edits: list, which: float) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    victim = files[int(which * len(files))]
    good = victim.read_bytes()
    victim.write_bytes(damaged(good, edits))
    try:
        check(lambda: drain(tree))
    finally:
        victim.write_bytes(good)
