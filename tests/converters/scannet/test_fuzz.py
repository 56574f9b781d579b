"""Damaged bytes: typed errors only, no hang, no memory beyond what the file could need.

DATAKIT_FUZZ sets the number of inputs per test for long runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.converters.damage import COUNT, FUZZ, check, edited, edits

from .scans import drain, small_world, write_hand, write_scan


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hand(tmp_path_factory.mktemp("sens"))


@FUZZ
@given(changes=edits(), head_only=st.booleans())
def test_damaged_sens(whole: Path, changes: list, head_only: bool) -> None:
    data = whole.read_bytes()
    # Half of the inputs are damaged where every byte matters: head and first frame head.
    split = 319 + 96 if head_only else len(data)
    root = whole.parents[2] / "damaged"
    target = root / "scene0001_00.sens"
    root.mkdir(exist_ok=True)
    target.write_bytes(edited(data[:split], changes) + data[split:])
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
@given(changes=edits(), which=st.floats(0, 1, exclude_max=True))
def test_damaged_export(tree: Path, changes: list, which: float) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    victim = files[int(which * len(files))]
    good = victim.read_bytes()
    victim.write_bytes(edited(good, changes))
    try:
        check(lambda: drain(tree))
    finally:
        victim.write_bytes(good)
