"""What JPEG and cameras leave in pictures is no evidence about geometry; what stands out of it is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datakit import geometry as g
from datakit.certify import Certificate, Measure, certify_scene
from datakit.certify.noise import band_noise
from datakit.certify.photometric import _gain
from datakit.certify.raster import band

from .faults import BARE, Clip, bare, make_clip

SMALL = {"num_frames": 8, "size": (112, 96)}


def _jpeg(rgb: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "jpeg", quality=quality)
    return buffer.getvalue()


def _view(encoded: bytes, codec: str) -> Any:
    return SimpleNamespace(record={"layers": {"rgb": {"codec": codec}}}, encoded=lambda name, index: encoded)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("octave", [0, 1, 2])
def test_noise_of_jpeg_follows_from_its_tables(quality: int, octave: int) -> None:
    """Textures fill all coefficients, whose rounding is then by chance."""
    grey = np.random.default_rng(0).normal(128, 40, (256, 256, 1))
    rgb = np.repeat(np.clip(grey, 0, 255).astype(np.uint8), 3, axis=2)
    encoded = _jpeg(rgb, quality)
    decoded = np.asarray(Image.open(io.BytesIO(encoded)))
    error = decoded.mean(axis=2, dtype=np.float32) - rgb.mean(axis=2, dtype=np.float32)
    part, spread = band(error, octave)
    found = float((part * spread).std())
    predicted = band_noise(_view(encoded, "jpeg"), 0, octave, 0.0)
    assert 0.7 < found / predicted < 1.3, (found, predicted)


@pytest.mark.parametrize("octave", [0, 2])
def test_noise_of_a_camera_is_white(octave: int) -> None:
    grey = np.random.default_rng(1).normal(100, 5.0, (400, 400)).astype(np.float32)
    part, spread = band(grey, octave)
    predicted = band_noise(_view(b"", "png"), 0, octave, 5.0)
    np.testing.assert_allclose((part * spread).std(), predicted, rtol=0.06)


def test_both_pictures_count_as_much_where_they_show_the_same() -> None:
    """A bright outline in one picture raises its spread, and lowers what its other pixels are in units of it."""
    texture = np.random.default_rng(2).normal(size=(40, 40)).astype(np.float32)
    uv = np.random.default_rng(3).uniform(5, 35, (200, 2))
    data: Any = SimpleNamespace(
        source=SimpleNamespace(contrast=lambda octave: (texture, 1.0)),
        target=SimpleNamespace(contrast=lambda octave: (texture / np.float32(1.2), 1.2)),
        predict=lambda points: SimpleNamespace(uv_colour=uv, uv_colour_source=uv),
    )
    points: Any = None
    np.testing.assert_allclose(_gain(data, points, 0), 1.2, rtol=1e-6)


def _smooth(clip: Clip, quality: int, period: float) -> Clip:
    """Paint the world with waves of a few metres, and store it as photos are."""
    view = clip.view
    uv = g.pixel_centres(view.size)

    def paint(t: int, _: bytes) -> bytes:
        z = np.nan_to_num(clip.layers[t]["z_depth"].astype(np.float64), nan=1.0)
        last = min(t, clip.num_frames - 1)
        cam = g.unproject_pixels(uv, z, view.intrinsics[last])
        world = g.transform_points(view.world_from_cam[last], cam)
        waves = np.sin(world * (2 * np.pi / period))
        channels = [waves[..., k] + waves[..., (k + 1) % 3] for k in range(3)]
        rgb = 128 + 40 * np.stack(channels, axis=-1)
        return _jpeg(np.clip(rgb.round(), 0, 255).astype(np.uint8), quality)

    layers = dict(view.layers)
    layers["rgb"] = replace(layers["rgb"], codec="jpeg")
    layers["z_depth"] = replace(layers["z_depth"], depth_kind="mvs")
    return clip.with_view(layers=layers).with_layer("rgb", paint)


@pytest.fixture(scope="module")
def room() -> Clip:
    return bare(make_clip(0, "static", "moving", **SMALL)).keep(BARE)


def _measure(certificate: Certificate, check: str, name: str) -> Measure:
    return next(m for m in certificate.check(check).measures if m.name == name)


@pytest.mark.parametrize("quality", [60, 90])
def test_smooth_photos_are_compared_where_they_are_more_than_noise(
    room: Clip, quality: int, tmp_path: Path
) -> None:
    certificate = certify_scene(_smooth(room, quality, 4.0).write(tmp_path / "s.h5"))
    check = certificate.check("photometric")
    assert check.verdict == "pass", check.reason
    assert _measure(certificate, "photometric", "mismatch").value < 0.2


def test_smooth_photos_of_another_moment_are_found_by_their_colours(room: Clip, tmp_path: Path) -> None:
    good = _smooth(room, 90, 4.0)
    order = [3, 6, 1, 7, 0, 5, 2, 4, 8]
    mixed = replace(
        good, layers=[{**frame, "rgb": good.layers[order[t]]["rgb"]} for t, frame in enumerate(good.layers)]
    )
    check = certify_scene(mixed.write(tmp_path / "s.h5")).check("photometric")
    assert check.verdict == "fail", check.reason


def test_photos_of_next_to_nothing_are_not_testable(room: Clip, tmp_path: Path) -> None:
    certificate = certify_scene(_smooth(room, 20, 400.0).write(tmp_path / "s.h5"))
    check = certificate.check("photometric")
    assert check.verdict == "not_testable" and "noise" in check.reason


def test_the_one_frame_that_disagrees_is_named(room: Clip, tmp_path: Path) -> None:
    """As where a file states another unit for one frame alone."""
    wrong = room.with_layer("z_depth", lambda t, z: z * np.float32(2.0 if t == 5 else 1.0))
    certificate = certify_scene(wrong.write(tmp_path / "s.h5"))
    check = certificate.check("depth_reprojection")
    assert check.verdict == "fail"
    assert "pairs with frame 5 of camera" in _measure(certificate, "depth_reprojection", "in_front").reason
    everywhere = room.with_layer("z_depth", lambda t, z: z * np.float32(1.0 + 0.5 * (t % 2)))
    check = certify_scene(everywhere.write(tmp_path / "e.h5")).check("depth_reprojection")
    assert check.verdict == "fail" and "pairs with frame" not in check.reason


def test_frames_without_depth_are_counted_and_named(room: Clip, tmp_path: Path) -> None:
    empty = room.with_layer("z_depth", lambda t, z: np.full_like(z, np.nan) if t == 3 else z)
    measure = _measure(certify_scene(empty.write(tmp_path / "s.h5")), "depth_valid", "empty_frames")
    assert measure.verdict == "warn"
    assert measure.reason == "1 of 8 frames looked at know no depth at all: 3 of camera"
