"""Deforming shapes whose material points still have closed-form trajectories."""

# The methods of every shape are documented once, on the protocol in shapes.py.
# ruff: noqa: D102

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import MIN_SCALE, Float, clip_to_box, dot, first_quadratic, rectangle_grid, unit, unit_sphere

_MAX_STEPS = 200
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Wave:
    """One travelling wave: height = amplitude * sin(kx x + ky y + omega t + phase)."""

    amplitude: float
    kx: float
    ky: float
    omega: float
    phase: float


@dataclass(frozen=True)
class Sheet:
    """A waving sheet z = h(x, y, t), |x| <= half_x, |y| <= half_y; its material points move along z only.

    Material coordinates are the rest points (x, y, 0).
    """

    half_x: float
    half_y: float
    waves: tuple[Wave, ...]

    @property
    def max_height(self) -> float:
        """Bound on |h|, in metres."""
        return sum(abs(w.amplitude) for w in self.waves)

    @property
    def bound_radius(self) -> float:
        return float(np.linalg.norm([self.half_x, self.half_y, self.max_height]))

    @property
    def box_lo(self) -> Float:
        return -self.box_hi

    @property
    def box_hi(self) -> Float:
        return np.array([self.half_x, self.half_y, self.max_height])

    def height(self, x: Float, y: Float, times: Float) -> tuple[Float, Float, Float]:
        """Return h and its slopes dh/dx, dh/dy at rest points and times, all (N,), metres and unitless."""
        shape = np.broadcast_shapes(np.shape(x), np.shape(times))
        height, slope_x, slope_y = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for w in self.waves:
            angle = w.kx * x + w.ky * y + w.omega * times + w.phase
            height += w.amplitude * np.sin(angle)
            slope = w.amplitude * np.cos(angle)
            slope_x += w.kx * slope
            slope_y += w.ky * slope
        return height, slope_x, slope_y

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        """March each ray to its first root of g(s) = z(s) - h(x(s), y(s)).

        The step is the largest one over which |g| cannot reach zero, given |g''| <= m along the ray (m is
        known from the waves). No root can be jumped over, however grazing, and near a root the steps turn
        into Newton's, so a few of them reach rounding error.
        """
        n = len(directions)
        origins, times = np.broadcast_to(origins, (n, 3)), np.broadcast_to(times, (n,))
        pad = np.array([0, 0, 1e-6])
        enter, leave = clip_to_box(origins, directions, self.box_lo - pad, self.box_hi + pad)
        out = np.full(n, np.inf)
        rows = np.flatnonzero((enter <= leave) & (leave > MIN_SCALE))
        if rows.size:
            enter = np.maximum(enter[rows], MIN_SCALE)
            out[rows] = self._march(origins[rows], directions[rows], times[rows], enter, leave[rows])
        return out

    def _march(self, origins: Float, directions: Float, times: Float, enter: Float, leave: Float) -> Float:
        bend = sum(
            abs(w.amplitude) * (w.kx * directions[:, 0] + w.ky * directions[:, 1]) ** 2 for w in self.waves
        )
        bend = np.maximum(bend, 1e-12)
        out = np.full(len(enter), np.inf)
        scale, alive = enter.copy(), np.arange(len(enter))
        for _ in range(_MAX_STEPS):
            value, slope = self._gap(origins[alive], directions[alive], times[alive], scale[alive])
            hit = np.abs(value) <= _TOLERANCE
            out[alive[hit]] = scale[alive[hit]]
            step = _safe_step(np.abs(value), slope * np.sign(value), bend[alive])
            scale[alive] += step
            alive = alive[~hit & (scale[alive] <= leave[alive])]
            if not alive.size:
                return out
        # Only exactly tangent rays come here: they touch the sheet to within rounding, or graze past it.
        value, _ = self._gap(origins[alive], directions[alive], times[alive], scale[alive])
        out[alive] = np.where(np.abs(value) < 1e-9, scale[alive], np.inf)
        return out

    def _gap(self, origins: Float, directions: Float, times: Float, scale: Float) -> tuple[Float, Float]:
        points = origins + scale[:, None] * directions
        height, slope_x, slope_y = self.height(points[:, 0], points[:, 1], times)
        slope = directions[:, 2] - slope_x * directions[:, 0] - slope_y * directions[:, 1]
        return points[:, 2] - height, slope

    def normals(self, material: Float, times: Float) -> Float:
        _, slope_x, slope_y = self.height(material[:, 0], material[:, 1], times)
        return unit(np.stack([-slope_x, -slope_y, np.ones_like(slope_x)], axis=1))

    def to_material(self, points: Float, times: Float) -> Float:
        return points * (1.0, 1.0, 0.0)

    def from_material(self, material: Float, times: Float) -> Float:
        height, _, _ = self.height(material[:, 0], material[:, 1], times)
        return np.stack([*np.broadcast_arrays(material[:, 0], material[:, 1], height)], axis=1)

    def surface_points(self, num: int) -> Float:
        return rectangle_grid(self.half_x, self.half_y, num)


@dataclass(frozen=True)
class Jelly:
    """A breathing ellipsoid: semi-axes half * (1 + swell * sin(omega t + phases)), a phase per axis.

    Material coordinates are the points of the rest ellipsoid.
    """

    half: tuple[float, float, float]
    swell: float
    omega: float
    phases: tuple[float, float, float]

    @property
    def bound_radius(self) -> float:
        return max(self.half) * (1 + abs(self.swell))

    @property
    def box_lo(self) -> Float:
        return -np.asarray(self.half)

    @property
    def box_hi(self) -> Float:
        return np.asarray(self.half)

    def stretch(self, times: Float) -> Float:
        """Return (N, 3) factors from the rest shape to the shape at `times`."""
        return 1 + self.swell * np.sin(self.omega * np.asarray(times)[:, None] + np.asarray(self.phases))

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        # Scaled by its axes the ellipsoid is the unit sphere, and ray scales do not change under linear maps.
        axes = self.stretch(times) * np.asarray(self.half)
        start, step = origins / axes, directions / axes
        return first_quadratic(dot(step, step), dot(start, step), dot(start, start) - 1.0)

    def normals(self, material: Float, times: Float) -> Float:
        # Gradient of sum (p / axes)^2, with p = material * stretch.
        return unit(material / np.asarray(self.half) ** 2 / self.stretch(times))

    def to_material(self, points: Float, times: Float) -> Float:
        return points / self.stretch(times)

    def from_material(self, material: Float, times: Float) -> Float:
        return material * self.stretch(times)

    def surface_points(self, num: int) -> Float:
        return np.asarray(self.half) * unit_sphere(num)


def _safe_step(gap: Float, slope: Float, bend: Float) -> Float:
    """Return the largest step d >= 0 with gap + slope d - bend d^2 / 2 >= 0 on all of [0, d]; gap >= 0."""
    root = np.sqrt(slope**2 + 2 * bend * gap)
    # Two forms of the same root, each used where it does not cancel.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(slope > 0, (slope + root) / bend, 2 * gap / np.maximum(root - slope, 1e-300))
