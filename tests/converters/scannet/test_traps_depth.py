"""Traps of depth: its unit, its zlib streams, what it measures.

Each test fails without its handling.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from datakit.errors import ConventionError, FormatError

from .scans import codes, drain, hand_frames, k4, open_scan, small_world, write_hand, write_scan


def test_trap_depth_is_divided_by_depth_shift_and_unsigned(tmp_path: Path) -> None:
    values = np.array([[0, 1, 999, 1000], [32767, 32768, 40000, 65535]], "<u2")
    frames = hand_frames(2, depth=zlib.compress(values.tobytes()))
    write_hand(tmp_path, frames, depth_size=(4, 2), intrinsic_depth=k4(4, 4, 1.5, 0.5), depth_shift=500.0)
    with open_scan(tmp_path, tmp_path / "out") as scene:
        z = scene.views["camera"].z_depth(0)
    assert np.isnan(z[0, 0])
    want = (values / 500).astype(np.float32)
    assert np.array_equal(z.ravel()[1:], want.ravel()[1:])


@pytest.mark.parametrize("shift", [0.0, -1000.0, np.nan, np.inf, 1e-30])
def test_trap_depth_without_a_unit(tmp_path: Path, shift: float) -> None:
    write_hand(tmp_path, depth_shift=shift)
    with pytest.raises(ConventionError, match="depthShift"):
        drain(tmp_path)


def test_trap_depth_stream_too_short_too_long_or_corrupt(tmp_path: Path) -> None:
    good = zlib.compress(codes())
    flipped = bytearray(good)
    flipped[-1] ^= 1  # of the checksum
    cases = {
        "short": (zlib.compress(codes()[:-2]), "wrong size"),
        "long": (zlib.compress(codes() + b"\0\0"), "wrong size"),
        "checksum": (bytes(flipped), "corrupt"),
        "cut": (good[:-2], "truncated"),
        "no zlib": (b"not zlib at all", "corrupt"),
        "empty": (b"", "too short"),
    }
    for name, (depth, words) in cases.items():
        frames = hand_frames(3)
        write_hand(tmp_path / name, [*frames[:2], hand_frames(1, depth=depth)[0]])
        with pytest.raises(FormatError, match=words) as caught:
            drain(tmp_path / name)
        assert "frame 2: depth" in str(caught.value)


def test_trap_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    """1 kB that claims to be, or inflates to, far more is refused without the memory for it."""
    import tracemalloc

    bomb = zlib.compress(bytes(50_000_000))
    for name, head in (
        ("bomb", {}),
        ("claim", {"depth_size": (16000, 12000), "intrinsic_depth": k4(9, 9, 8e3, 6e3)}),
    ):
        write_hand(tmp_path / name, hand_frames(1, depth=bomb), **head)
        tracemalloc.start()
        with pytest.raises(FormatError):
            drain(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


def test_trap_an_all_zero_depth_image_is_unknown_everywhere(tmp_path: Path) -> None:
    write_hand(
        tmp_path, [hand_frames(1)[0], hand_frames(1, depth=zlib.compress(codes(0)), timestamp=9000)[0]]
    )
    with open_scan(tmp_path, tmp_path / "out") as scene:
        assert (
            np.isnan(scene.views["camera"].z_depth(1)).all()
            and np.isfinite(scene.views["camera"].z_depth(0)).all()
        )


def test_trap_depth_is_z_and_not_distance_along_the_ray(tmp_path: Path) -> None:
    world = small_world(1)
    with open_scan(write_scan(tmp_path / "raw", "sens", world), tmp_path / "out") as scene:
        view = scene.views["camera"]
        truth = world.render(1, intrinsics=view.depth_intrinsics[1], size=view.depth_size)
        z = view.z_depth(1)
        assert np.nanmax(np.abs(z - truth.z_depth)) < 6e-4 < np.nanmedian(np.abs(z - truth.ray_distance))
