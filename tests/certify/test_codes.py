"""Depth whose bytes were read in the other order has no smooth surface left for the other checks to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datakit.certify import certify_scene
from datakit.certify.codes import ENCODINGS, _integers, roughness

from .faults import Clip, bare, make_clip

Edit = Callable[[np.ndarray], np.ndarray]


def codes_of(unit: float, swapped: bool, noise: float = 0.0) -> Edit:
    """What a reader makes of 16-bit codes, right or with their bytes swapped."""

    def edit(z: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(0)
        codes = np.round(z * (1 + noise * rng.standard_normal(z.shape)) / unit)
        codes = np.where(codes < 65536, codes, 0).astype(np.uint16)  # too far for such codes: unknown
        read = codes.byteswap() if swapped else codes
        return np.where(read > 0, read * unit, np.nan).astype(np.float32)

    return edit


def floats_of(dtype: str, swapped: bool) -> Edit:
    def edit(z: np.ndarray) -> np.ndarray:
        stored = z.astype(dtype)
        out = (stored.byteswap() if swapped else stored).astype(np.float32)
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(out) & (out > 0), out, np.float32(np.nan))

    return edit


ALL = {
    "mm": (1, lambda s: codes_of(1e-3, s)),
    "mm with 1 % noise": (1, lambda s: codes_of(1e-3, s, 0.01)),
    "1/5000 m": (1, lambda s: codes_of(1 / 5000, s)),
    "half floats": (2, lambda s: floats_of("f2", s)),
    "32-bit floats": (3, lambda s: floats_of("f4", s)),
}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return bare(make_clip(0, "static", "moving", num_frames=6, size=(80, 64)))


def of_kind(clip: Clip, kind: str) -> Clip:
    layers = dict(clip.view.layers)
    layers["z_depth"] = replace(layers["z_depth"], depth_kind=kind)
    return clip.with_view(layers=layers)


@pytest.mark.parametrize("encoding", ALL)
def test_swapped_bytes_fail_by_name_and_right_ones_pass(clip: Clip, encoding: str, tmp_path: Path) -> None:
    number, edit_of = ALL[encoding]
    for is_swapped in (False, True):
        edit = edit_of(is_swapped)
        made = of_kind(clip, "sensor").with_layer("z_depth", lambda t, z, edit=edit: edit(z))
        certificate = certify_scene(made.write(tmp_path / "s.h5"))
        check = certificate.check("depth_codes")
        assert check.verdict == ("fail" if is_swapped else "pass")
        (measure,) = check.measures
        assert measure.value == (number if is_swapped else 0)
        assert (certificate.verdict == "fail") == is_swapped
        assert (ENCODINGS[number] in check.reason) == is_swapped


def test_where_order_makes_no_difference_it_is_not_testable(clip: Clip, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    edits: dict[str, Edit] = {
        "a wall straight ahead": lambda z: np.full_like(z, 2.0),
        "one byte": lambda z: np.round(z * 10).astype(np.float32) / np.float32(100),
        "noise": lambda z: rng.integers(1, 65535, z.shape).astype(np.float32) * np.float32(1e-3),
        "nothing": lambda z: np.full_like(z, np.nan),
        "single pixels": lambda z: np.where(np.indices(z.shape).sum(axis=0) % 3 == 0, z, np.nan).astype("f4"),
    }
    for name, edit in edits.items():
        made = of_kind(clip, "sensor").with_layer("z_depth", lambda t, z, edit=edit: edit(z))
        check = certify_scene(made.write(tmp_path / "s.h5")).check("depth_codes")
        assert check.verdict == "not_testable", name


def test_what_is_compared_is_bounded_and_counted() -> None:
    z = np.full((1000, 1000), 3.0, np.float32)
    z[:, ::2] = 6.0
    costs = roughness(z)
    assert costs is not None and 90_000 <= costs[-1] <= 100_000
    assert costs[0] / costs[-1] == pytest.approx(np.log(2), rel=1e-4)
    assert roughness(np.full((4, 4), np.nan, np.float32)) is None
    assert roughness(np.array([[1.0], [2.0]], np.float32)) is None


def test_codes_beyond_16_bits_are_no_codes() -> None:
    near, far = (np.array([[z, z + 1]], np.float32) for z in (600.0, 700.0))
    known = np.ones((1, 2), bool)
    codes = _integers(near, known)
    assert codes is not None and codes.tolist() == [[60000, 60100]] and _integers(far, known) is None
