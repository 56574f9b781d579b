"""Ray hits and trajectories against numbers worked out by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from datakit.worlds import Box, Cylinder, Jelly, Plane, Room, Sheet, Sphere, Wave

NOW = np.zeros(1)
SHEET = Sheet(
    1.0,
    0.8,
    (Wave(0.10, 5.0, 2.0, 3.0, 0.3), Wave(0.05, -3.0, 8.0, -4.0, 1.0), Wave(0.03, 11.0, 9.0, 6.0, 2.0)),
)
JELLY = Jelly((0.5, 0.7, 0.4), 0.2, 4.0, (0.0, 1.0, 2.0))
SHAPES = [
    Sphere(0.7),
    Box((0.3, 0.5, 0.9)),
    Cylinder(0.4, 0.6),
    Room((-1.0, -2.0, -1.5), (2.0, 1.0, 1.0)),
    Plane(1.0, 0.5),
    SHEET,
    JELLY,
]
IDS = [type(s).__name__ for s in SHAPES]


def one(shape, origin, direction, time=0.0) -> float:
    return float(
        shape.intersect(np.array([origin], float), np.array([direction], float), np.array([time]))[0]
    )


def test_sphere_depth_by_hand():
    # A chord of the unit sphere at height 0.6 is 2 * 0.8 long.
    assert one(Sphere(1.0), (-5, 0.6, 0), (1, 0, 0)) == pytest.approx(4.2, abs=1e-12)
    assert one(Sphere(1.0), (-5, 0.6, 0), (2, 0, 0)) == pytest.approx(2.1, abs=1e-12)
    assert one(Sphere(1.0), (0, 0.6, 0), (1, 0, 0)) == pytest.approx(0.8, abs=1e-12)
    assert one(Sphere(1.0), (-5, 1.1, 0), (1, 0, 0)) == np.inf
    assert one(Sphere(1.0), (5, 0, 0), (1, 0, 0)) == np.inf


def test_box_depth_by_hand():
    box = Box((1.0, 2.0, 3.0))
    assert one(box, (-5, 0.5, 0.5), (1, 0, 0)) == 4.0
    assert one(box, (0, 0, 10), (0, 0.1, -1)) == 7.0
    assert one(box, (0, 0, 0), (0, 1, 0)) == 2.0
    assert one(box, (-5, 2.5, 0), (1, 0, 0)) == np.inf
    # Along a face: 0/0 in the slab of that face.
    assert one(box, (-5, 2.0, 3.0), (1, 0, 0)) == 4.0
    assert one(box, (-5, -2.0, -3.0), (1, 0, 0)) == 4.0
    # The corner edge x = -1, y = 2 met at 45 degrees.
    assert one(box, (-3, 4.001, 0), (1, -1, 0)) == pytest.approx(2.001, abs=1e-12)


def test_cylinder_depth_by_hand():
    cylinder = Cylinder(1.0, 2.0)
    assert one(cylinder, (-5, 0.6, 0), (1, 0, 0)) == pytest.approx(4.2, abs=1e-12)
    assert one(cylinder, (0.3, 0, 9), (0, 0, -1)) == pytest.approx(7.0, abs=1e-12)
    assert one(cylinder, (-5, 0, 2.1), (1, 0, 0)) == np.inf
    assert one(cylinder, (1.2, 0, 9), (0, 0, -1)) == np.inf
    # From outside above the rim: enters through the top cap, x = -0.5 at z = 2.
    assert one(cylinder, (-1.5, 0, 3), (1, 0, -1)) == pytest.approx(1.0, abs=1e-12)


def test_room_and_plane_depth_by_hand():
    room = Room((-1.0, -2.0, -3.0), (4.0, 5.0, 6.0))
    assert one(room, (0, 0, 0), (1, 0, 0)) == 4.0
    assert one(room, (0, 0, 0), (0, -1, 0.5)) == 2.0
    assert one(Plane(1.0, 0.5), (0.9, 0.4, 2), (0, 0, -1)) == 2.0
    assert one(Plane(1.0, 0.5), (0.9, 0.6, 2), (0, 0, -1)) == np.inf
    assert one(Plane(1.0, 0.5), (0.9, 0.4, 2), (1, 0, 0)) == np.inf


def test_jelly_grows_as_its_formula_says():
    # Along its own axis y the surface is at 0.7 * (1 + 0.2 sin(4 t + 1)).
    for t in (0.0, 0.37, 2.0):
        expected = 3.0 - 0.7 * (1 + 0.2 * np.sin(4 * t + 1.0))
        assert one(JELLY, (0, 3, 0), (0, -1, 0), t) == pytest.approx(expected, abs=1e-12)


def random_rays(n, seed=0):
    rng = np.random.default_rng(seed)
    origins = rng.normal(size=(n, 3))
    origins *= 3 / np.linalg.norm(origins, axis=1, keepdims=True)
    targets = rng.uniform(-1, 1, size=(n, 3)) * (1.0, 0.8, 0.25)
    return origins, targets - origins, rng.uniform(-1, 3, size=n)


def formula_height(x, y, t):
    return (
        0.10 * np.sin(5 * x + 2 * y + 3 * t + 0.3)
        + 0.05 * np.sin(-3 * x + 8 * y - 4 * t + 1.0)
        + 0.03 * np.sin(11 * x + 9 * y + 6 * t + 2.0)
    )


def test_sheet_hits_satisfy_its_equation():
    origins, directions, times = random_rays(4000)
    scale = SHEET.intersect(origins, directions, times)
    hit = np.isfinite(scale)
    assert 0.4 < hit.mean() < 1.0
    x, y, z = (origins + scale[:, None] * directions)[hit].T
    assert np.abs(z - formula_height(x, y, times[hit])).max() < 1e-9
    assert (np.abs(x) <= 1 + 1e-9).all() and (np.abs(y) <= 0.8 + 1e-9).all()


def test_sheet_hits_are_the_first_ones():
    """Dense sampling along each ray, down to grazing ones, finds no earlier crossing and no missed one."""
    rng = np.random.default_rng(1)
    n = 300
    origins = np.stack([np.full(n, -2.0), rng.uniform(-0.7, 0.7, n), rng.uniform(-0.2, 0.2, n)], axis=1)
    directions = np.stack([np.ones(n), rng.normal(0, 0.1, n), rng.normal(0, 0.04, n)], axis=1)
    times = rng.uniform(0, 2, n)
    scale = SHEET.intersect(origins, directions, times)
    s = np.linspace(0.9, 3.2, 20001)
    points = origins[:, None] + s[None, :, None] * directions[:, None]
    over = (np.abs(points[..., 0]) <= 1) & (np.abs(points[..., 1]) <= 0.8)
    above = points[..., 2] > formula_height(points[..., 0], points[..., 1], times[:, None])
    crossing = over[:, 1:] & over[:, :-1] & (above[:, 1:] != above[:, :-1])
    first = np.where(crossing.any(axis=1), s[:-1][crossing.argmax(axis=1)], np.inf)
    step = s[1] - s[0]
    sampled = np.isfinite(first)
    assert sampled.sum() > 100
    # The marcher may find a crossing pair too close for the samples, never the other way round.
    assert (scale[sampled] <= first[sampled] + step).all()
    sooner = scale < first - 2 * step
    assert sooner.mean() < 0.02
    x, y, z = (origins + scale[:, None] * directions)[sooner].T
    assert np.abs(z - formula_height(x, y, times[sooner])).max(initial=0) < 1e-9


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_material_points_are_on_the_surface_at_all_times(shape):
    """A ray aimed at a material point from just outside, against its normal, hits that very point."""
    material = shape.surface_points(300)
    times = np.linspace(-0.3, 2.0, len(material))
    points, normals = shape.from_material(material, times), shape.normals(material, times)
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-12
    scale = shape.intersect(points + 1e-3 * normals, -normals, times)
    assert np.abs(scale - 1e-3).max() < 1e-9
    assert np.abs(shape.to_material(points, times) - material).max() < 1e-12
    assert (np.linalg.norm(points, axis=1) <= shape.bound_radius + 1e-12).all()


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_normals_are_the_surface_gradient(shape):
    """Two nearby hits differ by a step along the tangent plane."""
    origins, directions, times = random_rays(2000, seed=2)
    if isinstance(shape, Room):
        origins = origins * 0.1
    scale = shape.intersect(origins, directions, times)
    eps = 1e-5
    nudged = directions + eps * np.random.default_rng(3).normal(size=directions.shape)
    other = shape.intersect(origins, nudged, times)
    ok = np.isfinite(scale) & np.isfinite(other)
    a, b = (origins + scale[:, None] * directions)[ok], (origins + other[:, None] * nudged)[ok]
    normals = shape.normals(shape.to_material(a, times[ok]), times[ok])
    off_plane = np.abs(((b - a) * normals).sum(axis=1)) / np.linalg.norm(b - a, axis=1)
    # Edges of boxes and grazing hits fall outside first order; they are rare.
    assert ok.sum() > 400 and np.quantile(off_plane, 0.95) < 1e-2 and np.median(off_plane) < 1e-4


@pytest.mark.parametrize("shape", SHAPES[:5], ids=IDS[:5])
def test_boxes_are_tight(shape):
    points = shape.surface_points(4000)
    assert (points >= shape.box_lo - 1e-12).all() and (points <= shape.box_hi + 1e-12).all()
    thick = shape.box_hi - shape.box_lo > 0.01
    slack = np.maximum(shape.box_hi - points.max(axis=0), points.min(axis=0) - shape.box_lo)
    assert (slack[thick] < 0.01).all()


def test_surface_points_are_even():
    """Shares of a cylinder's points on side and caps are those of the areas."""
    cylinder = Cylinder(0.5, 1.0)
    points = cylinder.surface_points(20000)
    on_top, on_bottom = points[:, 2] > 1 - 1e-9, points[:, 2] < -1 + 1e-9
    cap, side = np.pi * 0.25, 2 * np.pi * 0.5 * 2
    assert on_top.mean() == pytest.approx(cap / (side + 2 * cap), abs=0.005)
    assert on_bottom.mean() == pytest.approx(cap / (side + 2 * cap), abs=0.005)
    assert np.linalg.norm(points[on_top, :2], axis=1).mean() == pytest.approx(0.5 * 2 / 3, abs=0.01)
