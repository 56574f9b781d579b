"""Shapes with closed-form ray hits and material coordinates.

A shape lives in its own instance frame. Material coordinates name a point of its surface for ever: on rigid
shapes they are the instance-frame point itself, on deforming ones the point of the rest shape, so that
`from_material` is the exact trajectory of a material point. All shapes are plain data and can be pickled.
"""

# The methods of every shape are documented once, on the protocol.
# ruff: noqa: D102

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: Hits nearer than this (in ray scale) do not count, so that a ray may start on a surface.
MIN_SCALE = 1e-9


class Shape(Protocol):
    """What a world needs of a shape. N rays or points; times in seconds, (N,) or (1,)."""

    @property
    def bound_radius(self) -> float:
        """Radius around the instance origin that holds the shape at all times, in metres."""
        ...

    @property
    def box_lo(self) -> Float:
        """Lower corner (3,) of the box of the material coordinates."""
        ...

    @property
    def box_hi(self) -> Float:
        """Upper corner (3,) of the box of the material coordinates."""
        ...

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        """Return (N,) the least s > 0 with origins + s * directions on the surface; inf for a miss."""
        ...

    def normals(self, material: Float, times: Float) -> Float:
        """Return (N, 3) unit normals in the instance frame, pointing out of closed shapes."""
        ...

    def to_material(self, points: Float, times: Float) -> Float:
        """Map instance-frame surface points (N, 3) to material coordinates; affine at any one time."""
        ...

    def from_material(self, material: Float, times: Float) -> Float:
        """Map material coordinates (N, 3) to where those points are at `times`, in the instance frame."""
        ...

    def surface_points(self, num: int) -> Float:
        """Spread about `num` material points (N, 3) evenly over the surface; always the same ones."""
        ...


class _RigidShape:
    """A shape whose points do not move in its own frame."""

    def to_material(self, points: Float, times: Float) -> Float:
        return points

    def from_material(self, material: Float, times: Float) -> Float:
        return material


@dataclass(frozen=True)
class Sphere(_RigidShape):
    """A sphere around the instance origin. `radius` in metres."""

    radius: float

    @property
    def bound_radius(self) -> float:
        return self.radius

    @property
    def box_lo(self) -> Float:
        return np.full(3, -self.radius)

    @property
    def box_hi(self) -> Float:
        return np.full(3, self.radius)

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        return first_quadratic(
            dot(directions, directions), dot(origins, directions), dot(origins, origins) - self.radius**2
        )

    def normals(self, material: Float, times: Float) -> Float:
        return unit(material)

    def surface_points(self, num: int) -> Float:
        return self.radius * unit_sphere(num)


@dataclass(frozen=True)
class Box(_RigidShape):
    """A box around the instance origin. `half` is (x, y, z) half sizes in metres."""

    half: tuple[float, float, float]

    @property
    def bound_radius(self) -> float:
        return float(np.linalg.norm(self.half))

    @property
    def box_lo(self) -> Float:
        return -np.asarray(self.half)

    @property
    def box_hi(self) -> Float:
        return np.asarray(self.half)

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        enter, leave = clip_to_box(origins, directions, self.box_lo, self.box_hi)
        scale = np.where(enter > MIN_SCALE, enter, leave)
        return np.where((enter <= leave) & (scale > MIN_SCALE), scale, np.inf)

    def normals(self, material: Float, times: Float) -> Float:
        return _box_normals(material / np.asarray(self.half))

    def surface_points(self, num: int) -> Float:
        return _box_points(self.half, num)


@dataclass(frozen=True)
class Cylinder(_RigidShape):
    """A closed upright cylinder around the instance origin, axis z. Sizes in metres."""

    radius: float
    half_height: float

    @property
    def bound_radius(self) -> float:
        return float(np.hypot(self.radius, self.half_height))

    @property
    def box_lo(self) -> Float:
        return -self.box_hi

    @property
    def box_hi(self) -> Float:
        return np.array([self.radius, self.radius, self.half_height])

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        # Intersection of an endless cylinder and a slab; both are intervals along the ray.
        side = _quadratic_interval(
            dot(directions[..., :2], directions[..., :2]),
            dot(origins[..., :2], directions[..., :2]),
            dot(origins[..., :2], origins[..., :2]) - self.radius**2,
        )
        half = np.array([self.half_height])
        slab = clip_to_box(origins[..., 2:], directions[..., 2:], -half, half)
        enter, leave = np.maximum(side[0], slab[0]), np.minimum(side[1], slab[1])
        scale = np.where(enter > MIN_SCALE, enter, leave)
        return np.where((enter <= leave) & (scale > MIN_SCALE), scale, np.inf)

    def normals(self, material: Float, times: Float) -> Float:
        radial = np.linalg.norm(material[:, :2], axis=1) / self.radius
        axial = material[:, 2] / self.half_height
        side = np.concatenate([material[:, :2], np.zeros((len(material), 1))], axis=1)
        cap = np.stack([np.zeros(len(material)), np.zeros(len(material)), np.sign(axial)], axis=1)
        return np.where((np.abs(axial) > radial)[:, None], cap, unit(side))

    def surface_points(self, num: int) -> Float:
        u, v = _low_discrepancy(num, 2).T
        side_area, cap_area = 2 * self.half_height * self.radius, self.radius**2 / 2  # both over 2 pi
        share = side_area / (side_area + 2 * cap_area)
        on_side = u < share
        angle = 2 * np.pi * v
        along = np.clip((u - share) / (1 - share), 0, 1) * 2
        radius = np.where(on_side, self.radius, self.radius * np.sqrt(along % 1))
        height = np.where(
            on_side, (2 * u / share - 1) * self.half_height, np.sign(along - 1) * self.half_height
        )
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


@dataclass(frozen=True)
class Room(_RigidShape):
    """The inside of an axis-aligned box: floor, walls, ceiling. Every ray from inside hits it."""

    lo: tuple[float, float, float]
    hi: tuple[float, float, float]

    @property
    def bound_radius(self) -> float:
        return float(np.linalg.norm(np.maximum(np.abs(self.lo), np.abs(self.hi))))

    @property
    def box_lo(self) -> Float:
        return np.asarray(self.lo)

    @property
    def box_hi(self) -> Float:
        return np.asarray(self.hi)

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        enter, leave = clip_to_box(origins, directions, self.box_lo, self.box_hi)
        return np.where((enter <= leave) & (leave > MIN_SCALE), leave, np.inf)

    def normals(self, material: Float, times: Float) -> Float:
        centre, half = (self.box_lo + self.box_hi) / 2, (self.box_hi - self.box_lo) / 2
        return -_box_normals((material - centre) / half)

    def surface_points(self, num: int) -> Float:
        centre, half = (self.box_lo + self.box_hi) / 2, (self.box_hi - self.box_lo) / 2
        return centre + _box_points(tuple(half), num)


@dataclass(frozen=True)
class Plane(_RigidShape):
    """The finite rectangle |x| <= half_x, |y| <= half_y of the plane z = 0, seen from both sides."""

    half_x: float
    half_y: float

    @property
    def bound_radius(self) -> float:
        return float(np.hypot(self.half_x, self.half_y))

    @property
    def box_lo(self) -> Float:
        return -self.box_hi

    @property
    def box_hi(self) -> Float:
        # A box needs some thickness for its affine map to have an inverse.
        return np.array([self.half_x, self.half_y, 1e-3])

    def intersect(self, origins: Float, directions: Float, times: Float) -> Float:
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = -origins[..., 2] / directions[..., 2]
            hit = origins[..., :2] + scale[..., None] * directions[..., :2]
            inside = (np.abs(hit) <= (self.half_x, self.half_y)).all(axis=-1)
        return np.where(inside & (scale > MIN_SCALE), scale, np.inf)

    def normals(self, material: Float, times: Float) -> Float:
        return np.broadcast_to((0.0, 0.0, 1.0), material.shape)

    def surface_points(self, num: int) -> Float:
        return rectangle_grid(self.half_x, self.half_y, num)


def clip_to_box(origins: Float, directions: Float, lo: Float, hi: Float) -> tuple[Float, Float]:
    """Clip rays to an axis-aligned box of any dimension D by slabs.

    Args:
        origins: (..., D).
        directions: (..., D); zeros are fine.
        lo: (D,).
        hi: (D,).

    Returns:
        (...) ray scales of entry and exit, possibly negative; entry > exit for a miss.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        at_lo, at_hi = (lo - origins) / directions, (hi - origins) / directions
    near, far = np.minimum(at_lo, at_hi), np.maximum(at_lo, at_hi)
    # A ray parallel to a slab is inside it everywhere or nowhere; its 0/0 and x/0 say nothing by themselves.
    parallel = directions == 0
    if parallel.any():
        inside = (origins >= lo) & (origins <= hi)
        near = np.where(parallel, np.where(inside, -np.inf, np.inf), near)
        far = np.where(parallel, np.where(inside, np.inf, -np.inf), far)
    # Column by column: numpy is slow at reducing a short last axis.
    return reduce(np.maximum, np.moveaxis(near, -1, 0)), reduce(np.minimum, np.moveaxis(far, -1, 0))


def dot(a: Float, b: Float) -> Float:
    """Return the dot products of vectors (..., D)."""
    return np.einsum("...i,...i->...", a, b)


def unit(vectors: Float) -> Float:
    """Scale vectors (..., D) to length 1; zeros stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)


def _quadratic_interval(a: Float, half_b: Float, c: Float) -> tuple[Float, Float]:
    """Return the interval of s where a s^2 + 2 half_b s + c <= 0; an empty one as (inf, -inf)."""
    disc = half_b**2 - a * c
    root = np.sqrt(np.maximum(disc, 0.0))
    # The root of larger size first: its terms add up, so nothing cancels; the other follows from c / a.
    q = -(half_b + np.where(half_b >= 0, root, -root))
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = q / a, np.where(q == 0, 0.0, c / q)
    lo, hi = np.minimum(one, two), np.maximum(one, two)
    # a = 0: the ray runs along the axis and is inside everywhere or nowhere.
    lo, hi = np.where(a == 0, -np.inf, lo), np.where(a == 0, np.inf, hi)
    miss = np.where(a == 0, c > 0, disc < 0)
    return np.where(miss, np.inf, lo), np.where(miss, -np.inf, hi)


def first_quadratic(a: Float, half_b: Float, c: Float) -> Float:
    """Return the least s > 0 where a s^2 + 2 half_b s + c = 0, all (N,), a > 0; inf without one."""
    lo, hi = _quadratic_interval(a, half_b, c)
    scale = np.where(lo > MIN_SCALE, lo, hi)
    return np.where((lo <= hi) & (scale > MIN_SCALE), scale, np.inf)


def _box_normals(unit_points: Float) -> Float:
    axis = np.abs(unit_points).argmax(axis=1)
    rows = np.arange(len(unit_points))
    out = np.zeros_like(unit_points)
    out[rows, axis] = np.sign(unit_points[rows, axis])
    return out


def _low_discrepancy(num: int, dims: int) -> Float:
    """Spread (num, dims) points over the unit cube by additive recurrence of the generalised golden ratio."""
    phi = 2.0
    for _ in range(64):
        phi = (1 + phi) ** (1 / (dims + 1))
    steps = phi ** -np.arange(1.0, dims + 1)
    return (0.5 + np.arange(num)[:, None] * steps) % 1.0


def unit_sphere(num: int) -> Float:
    """Spread (num, 3) points evenly over the unit sphere."""
    u, v = _low_discrepancy(num, 2).T
    z, angle = 2 * u - 1, 2 * np.pi * v
    rim = np.sqrt(1 - z**2)
    return np.stack([rim * np.cos(angle), rim * np.sin(angle), z], axis=1)


def _box_points(half: tuple[float, ...], num: int) -> Float:
    x, y, z = half
    shares = np.repeat(np.array([y * z, x * z, x * y]), 2)
    w, u, v = _low_discrepancy(num, 3).T
    face = np.minimum(np.searchsorted(np.cumsum(shares) / shares.sum(), w, side="right"), 5)
    axis, rows = face // 2, np.arange(num)
    unit = np.empty((num, 3))
    unit[rows, axis] = np.where(face % 2, 1.0, -1.0)
    unit[rows, (axis + 1) % 3] = 2 * u - 1
    unit[rows, (axis + 2) % 3] = 2 * v - 1
    return unit * np.asarray(half)


def rectangle_grid(half_x: float, half_y: float, num: int) -> Float:
    """Lay a grid of about `num` points (N, 3) over a rectangle of the plane z = 0."""
    cols = max(2, round(np.sqrt(num * half_x / half_y)))
    rows = max(2, round(num / cols))
    # Kept a hair inside: points on the very edge have no defined visibility.
    x, y = np.meshgrid(np.linspace(-1, 1, cols), np.linspace(-1, 1, rows))
    edge = 1 - 1e-6
    return np.stack([x.ravel() * half_x * edge, y.ravel() * half_y * edge, np.zeros(x.size)], axis=1)
