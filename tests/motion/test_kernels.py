"""The kernels against plain numpy (`tests.motion.reference`), on rasters and clouds made to be awkward."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from datakit import ConventionError, MotionKind
from datakit.geometry import rigid_from, rotation_from_axis_angle
from datakit.motion import carry_kernels, carry_points, sampling, visibility
from datakit.motion.carry import carry_directions
from datakit.scene import MotionRecord
from datakit.stream.coded import CodedRaster
from tests.motion import reference

HEIGHT, WIDTH, FRAMES = 9, 11, 4


def rasters(seed: int, holes: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Steep planes, steps, noise and holes, with labels that follow some of the steps."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    z = np.empty((FRAMES, HEIGHT, WIDTH), np.float32)
    labels = np.zeros(z.shape, np.uint16)
    for t in range(FRAMES):
        slope = rng.uniform(-0.02, 0.02, 2)
        inverse = 0.5 + slope[0] * u + slope[1] * v
        step = u + rng.integers(3) * v > rng.integers(3, 14)
        inverse = np.where(step, inverse * rng.uniform(0.5, 1.0), inverse)
        labels[t] = step * rng.integers(2) * 700
        z[t] = 1 / inverse * (1 + rng.choice([0, 1e-3, 0.03]) * rng.standard_normal(u.shape))
    z[rng.random(z.shape) < holes] = np.nan
    return z, labels


def places(seed: int, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Positions everywhere, also outside, on pixel centres, on borders and nowhere."""
    rng = np.random.default_rng(seed)
    uv = rng.uniform(-1, [WIDTH + 1, HEIGHT + 1], (count, 2))
    uv[::5] = np.floor(uv[::5]) + 0.5
    uv[1::7] = np.round(uv[1::7])
    uv[2::50] = np.nan
    return uv, rng.integers(FRAMES, size=count)


class OnlyIndexed:
    """A raster that is indexed and no more."""

    def __init__(self, values):
        self._values, self.shape = values, values.shape

    def __getitem__(self, index):
        return self._values[index]


@pytest.mark.parametrize("seed", range(4))
def test_positions_are_located_as_in_numpy(seed: int) -> None:
    uv, t = places(seed)
    ours, theirs = sampling.quad_at(uv, (WIDTH, HEIGHT), t), reference.quad_at(uv, (WIDTH, HEIGHT), t)
    for name in ("frame", "row", "col", "is_inside"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(np.clip(ours.top, 0, HEIGHT - 1), theirs.rows[:, 0])
    np.testing.assert_array_equal(np.clip(ours.left + 1, 0, WIDTH - 1), theirs.cols[:, 1])
    np.testing.assert_allclose(ours.share.prod(axis=1), theirs.weights[:, 3], atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("labelled", [True, False])
def test_surfaces_are_read_as_in_numpy(seed: int, labelled: bool) -> None:
    (z, labels), (uv, t) = rasters(seed), places(seed)
    ids = labels if labelled else None
    ours, theirs = sampling.quad_at(uv, (WIDTH, HEIGHT), t), reference.quad_at(uv, (WIDTH, HEIGHT), t)
    smooth = sampling.is_one_surface(ours, z, ids)
    np.testing.assert_array_equal(smooth, reference.is_one_surface(theirs, z, ids))
    assert 0.2 < smooth.mean() < 0.8
    for found, want in zip(
        sampling.sample_z(ours, z, smooth), reference.sample_z(theirs, z, smooth), strict=True
    ):
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-9)
    vectors = np.random.default_rng(seed).normal(size=(*z.shape, 3)).astype(np.float32)
    np.testing.assert_allclose(
        sampling.sample_vectors(ours, vectors, smooth),
        reference.sample_vectors(theirs, vectors, smooth),
        atol=1e-6,
    )


def test_steep_floors_are_one_surface_and_steps_are_not() -> None:
    v = np.arange(HEIGHT)[:, None] + np.zeros((1, WIDTH))
    floor = (1 / (0.1 + 0.05 * v)).astype(np.float32)[None]
    cut = floor.copy()
    cut[:, 5:] *= 0.5
    uv = np.stack([np.full(HEIGHT - 1, 4.2), np.arange(1, HEIGHT)], axis=1)
    quad = sampling.quad_at(uv, (WIDTH, HEIGHT))
    assert sampling.is_one_surface(quad, floor, None).all()
    assert np.flatnonzero(~sampling.is_one_surface(quad, cut, None)).tolist() == [4]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["rendered", "lidar"])
def test_points_are_compared_with_the_map_as_in_numpy(seed: int, kind: str) -> None:
    (z, labels), (uv, t) = rasters(seed), places(seed)
    rng = np.random.default_rng(seed)
    ours, theirs = sampling.quad_at(uv, (WIDTH, HEIGHT), t), reference.quad_at(uv, (WIDTH, HEIGHT), t)
    around = np.nan_to_num(z[t, theirs.rows[:, 3], theirs.cols[:, 3]], nan=2.0).astype(np.float64)
    points = around * rng.choice([1, 0.998, 1.002, 0.97, 1.03, 0.5, 2], len(uv))
    own = rng.choice([0, 700], len(uv)).astype(np.uint32)
    for ids in (labels, None):
        found = visibility.depth_test(ours, points, own, z, ids, kind)
        want = reference.depth_test(theirs, points, own, z, ids, kind)
        np.testing.assert_array_equal(found[0], want[0])
        np.testing.assert_array_equal(found[1], want[1])
    assert len(np.unique(reference.depth_test(theirs, points, own, z, labels, kind)[1])) == 6


def test_coded_rasters_are_read_in_place_and_say_the_same() -> None:
    (z, _), (uv, t) = rasters(0), places(0)
    quad = sampling.quad_at(uv, (WIDTH, HEIGHT), t)
    table = np.unique(z)  # NaN comes last
    codes = np.where(np.isnan(z), len(table) - 1, np.searchsorted(table, z)).astype(np.uint16)
    coded = CodedRaster(codes, lambda some: table[some])
    vectors = np.random.default_rng(1).integers(-9, 9, (*z.shape, 2)).astype(np.float32)
    planes = (np.moveaxis(vectors, -1, 0) + 100).astype(np.uint16)
    joined = CodedRaster(
        planes.swapaxes(0, 1).copy().swapaxes(0, 1), lambda p: np.moveaxis(p, 0, -1) - 100.0, (2,)
    )
    for size in (2, 4):
        want = sampling.windows(quad, z, size)
        for raster in (coded, OnlyIndexed(z), z.astype(np.float64)):
            np.testing.assert_array_equal(sampling.windows(quad, raster, size), want)
        for raster in (joined, OnlyIndexed(vectors)):
            np.testing.assert_array_equal(
                sampling.windows(quad, raster, size), sampling.windows(quad, vectors, size)
            )


def rigid_motion(rng: np.random.Generator) -> MotionRecord:
    kinds = [MotionKind.STATIC, MotionKind.RIGID, MotionKind.UNKNOWN, MotionKind.RIGID]
    turns = [[rotation_from_axis_angle(rng.normal(size=3)) for _ in kinds] for _ in range(5)]
    poses = rigid_from(turns, rng.normal(size=(5, len(kinds), 3)))
    poses[2, 3] = np.nan
    return MotionRecord(
        times=np.arange(5.0),
        instance_ids=np.array([0, 4, 9, 300], np.uint32),
        instance_names=("", "", "", ""),
        instance_motion=np.array(kinds, np.uint8),
        world_from_instance=poses,
    )


def test_rigid_things_carry_points_and_turn_directions() -> None:
    rng = np.random.default_rng(0)
    motion = rigid_motion(rng)
    points = rng.normal(size=(500, 3))
    ids = rng.choice([0, 4, 9, 300, 5, 301], 500).astype(np.uint32)
    src, tgt = rng.integers(-1, 5, (2, 500))
    found, reason = carry_points(motion, points, ids, src, tgt)
    want, want_reason = reference.carry_points(motion, points, ids, src, tgt)
    np.testing.assert_allclose(found, want, atol=1e-12)
    np.testing.assert_array_equal(reason, want_reason)
    ends, _ = reference.carry_points(motion, points + 1, ids, src, tgt)
    np.testing.assert_allclose(
        carry_directions(motion, np.ones((500, 3)), ids, src, tgt), ends - want, atol=1e-9
    )


def test_samples_off_the_clock_are_named() -> None:
    motion = rigid_motion(np.random.default_rng(0))
    one, ids = np.ones((1, 3)), np.array([4], np.uint32)
    for src, tgt in ((5, 0), (0, 5)):
        with pytest.raises(ConventionError, match="clock"):
            carry_points(motion, one, ids, np.array([src]), np.array([tgt]))
    short = replace(motion, world_from_instance=motion.world_from_instance[:4])
    with pytest.raises(ConventionError, match="poses"):
        carry_points(short, one, ids, np.array([0]), np.array([4]))


def clouds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sheet = np.c_[rng.uniform(0, 1, (700, 2)), np.zeros(700)]
    return {
        "volume": rng.normal(size=(500, 3)),
        "sheet": sheet,
        "bent sheet": sheet + np.c_[np.zeros((700, 2)), 0.3 * np.sin(6 * sheet[:, 0])],
        "line": np.c_[rng.uniform(0, 9, 60), np.zeros((60, 2))],
        "two": np.array([[0.0, 0, 0], [1, 2, 3]]),
        "twice the same": np.repeat(rng.normal(size=(40, 3)), 2, axis=0),
        "one place": np.ones((20, 3)),
        "far apart": np.r_[rng.normal(size=(100, 3)), rng.normal(size=(100, 3)) + 1e4],
        "tiny": 1e-7 * rng.normal(size=(300, 3)),
    }


@pytest.mark.parametrize("name", clouds())
def test_trajectories_carry_as_with_a_tree(name: str) -> None:
    """Every cloud moves and deforms; two instances, some unknown places, points on, beside and far off the cloud."""
    rng = np.random.default_rng(1)
    cloud = clouds()[name]
    scale = np.abs(cloud).max()
    bent = cloud @ (np.eye(3) + 0.2 * rng.normal(size=(3, 3))) + scale * rng.normal(size=3)
    tracks = np.stack([cloud, bent, bent + 0.1 * scale], axis=1)
    tracks[rng.random(tracks.shape[:2]) < 0.05] = np.nan
    tracks = np.concatenate([tracks, tracks[:, ::-1]]).astype(np.float32)
    owner = np.repeat(np.array([2, 8], np.uint32), len(cloud))
    shuffled = rng.permutation(len(owner))
    motion = MotionRecord(
        times=np.arange(3.0),
        instance_ids=np.array([0, 2, 8], np.uint32),
        instance_names=("", "", ""),
        instance_motion=np.array([MotionKind.STATIC, MotionKind.POINTS, MotionKind.POINTS], np.uint8),
        world_from_instance=np.full((3, 3, 4, 4), np.nan),
        points_world=tracks[shuffled],
        point_instance=owner[shuffled],
    )
    src, tgt = rng.integers(0, 3, (2, 600))
    ids = rng.choice([2, 8], 600).astype(np.uint32)
    own = tracks[rng.integers(len(tracks), size=600), src].astype(np.float64)
    points = np.nan_to_num(own) + rng.choice([0, 0.003, 0.03, 1], (600, 1)) * scale * rng.normal(
        size=(600, 3)
    )
    points[::40], points[1::40, 1] = np.nan, np.inf
    src[2::40], tgt[3::40] = -1, -1
    found, reason = carry_points(motion, points, ids, src, tgt)
    want, want_reason = reference.carry_points(motion, points, ids, src, tgt)
    np.testing.assert_array_equal(reason, want_reason)
    assert np.isnan(found[::40]).all() and np.isnan(found[2::40]).all() and np.isnan(found[3::40]).all()
    if name not in ("twice the same", "one place"):  # there the eight nearest are not unique
        np.testing.assert_allclose(found, want, atol=1e-6 * np.nanmax(np.abs(tracks)))
        # So few that no group of them is worth sorting the trajectories for.
        few, _ = carry_points(motion, points[20:60], ids[20:60], src[20:60], tgt[20:60])
        np.testing.assert_array_equal(few, found[20:60])
    for dtype in (np.float32, np.float64):
        again, _ = carry_points(
            replace(motion, points_world=motion.points_world.astype(dtype)), points, ids, src, tgt
        )
        np.testing.assert_array_equal(again, found)


def test_kernels_know_the_contracts_numbers() -> None:
    kinds = (carry_kernels.STATIC, carry_kernels.RIGID, carry_kernels.POINTS)
    assert kinds == (MotionKind.STATIC, MotionKind.RIGID, MotionKind.POINTS)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_datakit_compiles_nothing() -> None:
    assert run("import sys, datakit, datakit.queries; print('numba' in sys.modules)") == "False\n"


def test_kernels_work_where_no_cache_can_be_written() -> None:
    """As on a read-only install without a home: numba then knows no place, as for code that is in no file."""
    code = (
        "from numba import int64, njit\n"
        "from datakit.motion.compiled import kernel\n"
        "def twice(x): return 2 * x\n"
        "try: njit(cache=True)(twice)\n"
        "except RuntimeError: print('no place')\n"
        "print(kernel((int64,))(twice)(4))\n"
    )
    assert run(code) == "no place\n8\n"
