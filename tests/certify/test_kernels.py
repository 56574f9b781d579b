"""The parts checks are made of, against closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datakit import geometry as g
from datakit.certify.bias import estimate_biases
from datakit.certify.edges import _OFFSETS, colour_steps, depth_steps, profile_offset
from datakit.certify.frames import advance, interpolate_pose, rotation_vector
from datakit.certify.raster import gather, interpolate, is_smooth, smoothed, stencil_at
from datakit.certify.shutter import Shutter, shutter_of

RNG = np.random.default_rng(0)


def _plane(size: tuple[int, int]) -> np.ndarray:
    """1/z of a slanted plane at pixel centres."""
    uv = g.pixel_centres(size)
    return 0.2 + 0.001 * uv[..., 0] - 0.0015 * uv[..., 1]


def test_interpolation_is_exact_on_planes_and_third_order_elsewhere() -> None:
    uv = RNG.uniform(3, 27, (200, 2))
    raster = _plane((32, 30))
    stencil = stencil_at(uv, (32, 30))
    assert stencil.is_inside.all()
    expected = 0.2 + 0.001 * uv[:, 0] - 0.0015 * uv[:, 1]
    np.testing.assert_allclose(interpolate(stencil, gather(stencil, raster)), expected, rtol=1e-12)
    wave = np.sin(0.3 * g.pixel_centres((32, 30))[..., 0])
    got = interpolate(stencil, gather(stencil, wave))
    assert np.abs(got - np.sin(0.3 * uv[:, 0])).max() < 1e-3  # bilinear: 0.3^2 / 8 = 1e-2


def test_positions_off_the_raster_are_unknown() -> None:
    uv = np.array([[0.5, 5.0], [1.5, 1.5], [8.6, 5.0], [np.nan, 5.0], [8.49, 8.49]])
    stencil = stencil_at(uv, (10, 10))
    assert stencil.is_inside.tolist() == [False, True, False, False, True]
    value = interpolate(stencil, gather(stencil, np.ones((10, 10))))
    assert np.isfinite(value).tolist() == stencil.is_inside.tolist()


def test_smooth_means_one_gently_curved_surface() -> None:
    plane = _plane((4, 4))
    step, bent, holed = plane.copy(), plane.copy(), plane.copy()
    step[:, 2:] *= 1.5
    bent[1, 1] *= 1.02
    holed[0, 0] = np.nan
    assert is_smooth(np.stack([plane, step, bent, holed]), 0.005, 0.1).tolist() == [True, False, False, False]


def test_blurring_ignores_unknown_samples_and_keeps_them_unknown() -> None:
    raster = np.full((9, 9), 3.0)
    raster[4, 4] = np.nan
    out = smoothed(raster, 1.0)
    assert np.isnan(out[4, 4])
    np.testing.assert_allclose(out[np.isfinite(out)], 3.0)


def _problem(
    change: np.ndarray, noise: float, outliers: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    slopes = rng.normal(size=(4000, len(change)))
    residuals = -slopes @ change + noise * rng.normal(size=4000)
    bad = rng.uniform(size=4000) < outliers
    residuals[bad] += rng.uniform(1, 3, bad.sum())
    return residuals, slopes, np.arange(4000) % 10


def test_biases_are_found_with_honest_errors_despite_outliers() -> None:
    truth = np.array([0.5, -0.2])
    for bias, value in zip(
        estimate_biases(*_problem(truth, 0.1, outliers=0.2), floor=0.0), truth, strict=True
    ):
        assert abs(bias.value - value) < 5 * bias.standard_error < 0.05


def test_a_floor_bounds_the_error_from_below() -> None:
    (bias,) = estimate_biases(*_problem(np.array([0.5]), 1e-6), floor=0.3)
    # One error of 0.3 for each of 10 pairs against slopes of root mean square 1.
    assert bias.standard_error == pytest.approx(0.3 / np.sqrt(10), rel=0.1)


def test_errors_shared_within_pairs_are_not_averaged_away() -> None:
    residuals, slopes, groups = _problem(np.array([0.0]), 1e-3)
    residuals = residuals + 0.3 * np.random.default_rng(2).normal(size=10)[groups] * slopes[:, 0]
    (bias,) = estimate_biases(residuals, slopes, groups, floor=0.0)
    assert bias.standard_error > 0.03
    assert abs(bias.value) < 4 * bias.standard_error


def test_what_changes_nothing_is_not_known() -> None:
    residuals, slopes, groups = _problem(np.array([0.5, 0.0]), 0.1)
    slopes[:, 1] = 0.0
    known, unknown = estimate_biases(residuals, slopes, groups, floor=1e-3)
    assert known.standard_error < 0.02
    assert unknown.standard_error > 1e3
    (nothing,) = estimate_biases(residuals, np.zeros((4000, 1)), groups, floor=1e-3)
    assert nothing.standard_error == np.inf
    (empty,) = estimate_biases(np.full(5, np.nan), np.ones((5, 1)), np.arange(5), floor=1e-3)
    assert (empty.standard_error, empty.count) == (np.inf, 0)


def test_poses_between_frames() -> None:
    first = g.rigid_from(g.rotation_from_axis_angle(np.array([0.3, 0.1, -0.2])), [1.0, 2.0, 3.0])
    turn = g.rotation_from_axis_angle(np.array([0.0, 0.4, 0.1]))
    second = g.rigid_from(first[:3, :3] @ turn, [2.0, 2.0, 3.0])
    np.testing.assert_allclose(advance(first, second, 1.0), second, atol=1e-12)
    half = advance(first, second, 0.5)
    np.testing.assert_allclose(advance(half, second, 1.0), second, atol=1e-12)
    np.testing.assert_allclose(rotation_vector(turn), [0.0, 0.4, 0.1], atol=1e-12)
    np.testing.assert_allclose(rotation_vector(np.eye(3)), 0.0)


def test_beyond_the_ends_the_last_step_goes_on() -> None:
    poses = g.rigid_from(np.eye(3), np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]))
    known = np.array([True, True, True])
    assert interpolate_pose(poses, known, 2, 0.5)[0, 3] == 4.0
    assert interpolate_pose(poses, known, 1, 0.5)[0, 3] == 2.0
    assert interpolate_pose(poses, known, 1, -0.5)[0, 3] == 0.5
    known[2] = False
    assert interpolate_pose(poses, known, 1, 0.5)[0, 3] == 1.5
    assert interpolate_pose(poses[:1], known[:1], 0, 0.5)[0, 3] == 0.0


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5, 1.0])
def test_colour_steps_are_found_where_they_are(axis: int, shift: float) -> None:
    inverse = np.full((40, 40), 0.1)
    inverse[:, 20:] = 0.2
    u = g.pixel_centres((40, 40))[..., 0]
    grey = 100 / (1 + np.exp(-(u - 20 - shift) / 0.3)).astype(np.float32)
    if axis == 0:
        inverse, grey = inverse.T, grey.T
    at, near = depth_steps(np.ascontiguousarray(inverse), axis, 0.05)
    assert len(at) == 40
    np.testing.assert_allclose(at[:, 1 - axis], 20.0)
    np.testing.assert_allclose(near[:, 1 - axis], 20.5)
    profile = np.nansum(colour_steps(grey, at, axis, _OFFSETS[None]), axis=0)
    assert profile_offset(profile) == pytest.approx(shift, abs=0.05)


def test_thin_things_are_left_out() -> None:
    inverse = np.full((20, 40), 0.1)
    inverse[:, 20:22] = 0.2
    assert len(depth_steps(inverse, 1, 0.05)[0]) == 0


def _shutter(axis: int = 0) -> Shutter:
    delays = np.linspace(-0.022, 0.022, 100)
    return Shutter(axis, delays, np.array([1.0, -0.5, 9.0]), np.array([0.02, 0.3, -0.05]))


def test_a_rolling_shutter_sees_points_from_where_the_camera_was() -> None:
    shutter = _shutter()
    points = RNG.uniform([-4, -2, 3], [4, 2, 20], (200, 3))
    delay = shutter.delay(RNG.uniform(0, 100, 200))
    assert np.ptp(delay) > 0.03
    np.testing.assert_allclose(
        shutter.delay(np.array([-5.0, 0.5, 99.5, 200.0])), [-0.022, -0.022, 0.022, 0.022]
    )
    # Frame's own pose from the camera's after each delay: a turn, and a steady way.
    own_from_then = g.rigid_from(
        g.rotation_from_axis_angle(delay[:, None] * shutter.turn), delay[:, None] * shutter.velocity
    )
    seen = shutter.meet(delay, points)
    np.testing.assert_allclose(seen, g.transform_points(g.invert_rigid(own_from_then), points), atol=1e-5)
    back = shutter.leave(delay, seen / seen[:, 2:], points[:, 2])
    np.testing.assert_allclose(back, points, atol=1e-5)


@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_motion_during_a_readout_is_that_of_the_neighbouring_frames(index: int) -> None:
    """Along a steady curve, at unequal times, at both ends of the video and inside."""
    times = np.array([0.0, 0.1, 0.2, 0.4, 0.5])
    speed, rate = np.array([3.0, 0.0, 8.0]), np.array([0.0, 0.2, 0.0])
    turns = g.rotation_from_axis_angle(times[:, None] * rate)
    poses = g.rigid_from(turns, times[:, None] * speed)
    lines = times[:, None] + np.linspace(-0.02, 0.03, 8)

    def pose_at(offset: float) -> np.ndarray:
        return interpolate_pose(poses, np.ones(5, bool), index, offset)

    def view(axis: str, line_times: np.ndarray | None = lines, count: int = 5) -> Any:
        record = {"shutter_axis": axis, "shutter_times": line_times}
        return SimpleNamespace(record=record, times=times, num_frames=count)

    shutter = shutter_of(view("row"), index, pose_at)
    assert shutter is not None and shutter.axis == 1
    np.testing.assert_allclose(shutter.velocity, turns[index].T @ speed, atol=1e-9)
    np.testing.assert_allclose(shutter.turn, rate, atol=1e-9)
    np.testing.assert_allclose(shutter.delays, np.linspace(-0.02, 0.03, 8), atol=1e-12)
    assert shutter_of(view("global"), index, pose_at) is None
    assert shutter_of(view("row", None), index, pose_at) is None
    assert shutter_of(view("row", count=1), index, pose_at) is None
