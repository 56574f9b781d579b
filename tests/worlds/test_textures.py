"""Colours belong to material points, and are averaged over the pixel that sees them."""

from __future__ import annotations

import numpy as np
import pytest

from datakit.motion import MotionKind
from datakit.worlds import RigidPath, Sphere, Spin, Still, random_texture
from tests.worlds.helpers import FPS, hand_world


def test_colour_is_the_average_over_the_footprint():
    """The fading formula against a brute-force Gaussian average of the unfiltered texture."""
    texture = random_texture(np.random.default_rng(0), longest=1.0, shortest=0.2, contrast=0.05)
    rng = np.random.default_rng(1)
    centre, up = rng.normal(size=3), np.array([[0.0, 0.0, 1.0]])
    du, dv = np.array([0.06, 0.02, 0.0]), np.array([0.0, 0.15, 0.05])
    offsets = rng.normal(scale=0.5, size=(200_000, 2))  # half a pixel, as the footprint is defined
    offsets = np.concatenate([offsets, -offsets])
    points = centre + offsets[:, :1] * du + offsets[:, 1:] * dv
    sharp = texture.colour(points, np.broadcast_to(up, points.shape), np.zeros((len(points), 2, 3)))
    assert sharp.min() > 0 and sharp.max() < 1, "clipping would spoil the average"
    filtered = texture.colour(centre[None], up, np.stack([du, dv])[None])
    np.testing.assert_allclose(filtered[0], sharp.mean(axis=0, dtype=np.float64), atol=1e-3)
    unfiltered = texture.colour(centre[None], up, np.zeros((1, 2, 3)))
    assert np.abs(unfiltered - filtered).max() > 0.01


def test_contrast_is_as_asked():
    texture = random_texture(
        np.random.default_rng(0), longest=1.0, shortest=0.1, contrast=0.1, tint=0.0, shade=0.0
    )
    points = np.random.default_rng(1).uniform(-20, 20, size=(20_000, 3))
    rgb = texture.colour(points, points, np.zeros((len(points), 2, 3)))
    assert rgb.std() == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(rgb, rgb[:, :1].repeat(3, 1), atol=1e-6)


def test_a_turned_point_keeps_its_colour():
    """A quarter turn moves a point of a ball to another side; texture and shading go with it."""
    spin = Spin((0.3, 0.2, 0.1), (0.0, 0.0, 1.0), np.pi / 2 * FPS)
    world = hand_world([(Sphere(1.0), RigidPath(Still((5.0, 0, 0)), spin), MotionKind.RIGID)])
    before = world.cast((0, 0, 0), (1.0, 0, 0), 0.0)
    after = world.cast((5.0, -5.0, 0), (0, 1.0, 0), 1 / FPS)
    np.testing.assert_allclose(after.material, before.material, atol=1e-12)
    still = np.zeros((1, 3))
    one, two = world.colours(before, still, still, 0.0), world.colours(after, still, still, 1 / FPS)
    np.testing.assert_allclose(one, two, atol=1e-5)
    elsewhere = world.cast((0, 0.5, 0), (1.0, 0, 0), 0.0)
    assert np.abs(world.colours(elsewhere, still, still, 0.0) - one).max() > 0.01
