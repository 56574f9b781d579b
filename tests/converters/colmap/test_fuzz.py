"""Damaged models, images and depth maps: typed errors only, no crash, no hang, bounded memory.

DATAKIT_FUZZ sets the number of inputs per test for long runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import converters.colmap as colmap
from converters.colmap.lens import lens_of, project_source, rectify
from converters.colmap.model import read_model
from datakit.export.colmap_model import CAMERA_MODELS, ColmapCamera, write_depth_map
from tests.converters.damage import COUNT, FUZZ, check, edited, edits

from .workspaces import drain, write_hand


@pytest.fixture(scope="module", params=["binary", "text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    return write_hand(root, as_text=request.param == "text") / "sparse" / "0"


@FUZZ
@given(changes=edits(), which=st.integers(0, 2))
def test_damaged_model(model: Path, changes: list, which: int) -> None:
    victim = sorted(path for path in model.iterdir() if path.suffix in (".bin", ".txt"))[which]
    good = victim.read_bytes()
    victim.write_bytes(edited(good, changes))
    try:
        check(lambda: read_model(model, Path(), victim.suffix, []))
    finally:
        victim.write_bytes(good)


@settings(FUZZ, max_examples=COUNT // 3)
@given(changes=edits(), which=st.floats(0, 1, exclude_max=True), depth=st.booleans())
def test_damaged_workspace(model: Path, changes: list, which: float, depth: bool) -> None:
    """The whole way, with images and depth maps."""
    root = model.parents[2]
    for k in (1, 2, 3):
        path = root / "shed" / "stereo" / "depth_maps" / f"{k}.png.geometric.bin"
        if not path.exists():
            write_depth_map(path, np.full((12, 16), 4.0, np.float32))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    victim = files[int(which * len(files))]
    good = victim.read_bytes()
    victim.write_bytes(edited(good, changes))
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
