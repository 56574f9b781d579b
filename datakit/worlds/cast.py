"""Cast rays into the bodies of a world, each ray at its own time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind

from .paths import RigidPath
from .shapes import Float, Shape, dot
from .textures import Texture


@dataclass(frozen=True, eq=False)
class WorldInstance:
    """One thing of a world: a shape on a rigid path, with a texture.

    Attributes:
        id: As in instance maps; 0 is the background.
        name: For people.
        motion: `MotionKind`: STATIC, RIGID, or POINTS where the shape deforms as well.
        world_from_instance: (T, 4, 4) float64 pose at the frames (of a deforming shape: of its carrier).
        box_lo: (3,) lower corner of the box of object_coords, instance frame, metres.
        box_hi: (3,) upper corner; tight around rigid shapes, around the rest shape of deforming ones.
        is_dynamic: True where any of its points move.
        shape: Its surface, in the instance frame.
        path: Its pose at any time.
        texture: Its colour, on material coordinates.
    """

    id: int
    name: str
    motion: MotionKind
    world_from_instance: Float
    box_lo: Float
    box_hi: Float
    is_dynamic: bool
    shape: Shape
    path: RigidPath
    texture: Texture

    def material_to_world(self, material: Float, times: Float) -> Float:
        """Carry material points (N, 3) to the world at `times`, (N,) or (1,) seconds; exact."""
        local = self.shape.from_material(material, times)
        return _transform(self.path.world_from_instance(times), local)


@dataclass(frozen=True, eq=False)
class Hits:
    """Where N rays first meet a surface.

    Attributes:
        scale: (N,) float64, hit = origin + scale * direction; inf for a miss. For directions of z = 1 in a
            camera's frame this is that camera's z depth.
        instance: (N,) int64 instance id, -1 for a miss.
        material: (N, 3) material coordinates of the hit on its instance, NaN for a miss.
        points_world: (N, 3) hit points, NaN for a miss.
        normals_world: (N, 3) unit normals turned towards the ray's origin, NaN for a miss.
    """

    scale: Float
    instance: NDArray[np.int64]
    material: Float
    points_world: Float
    normals_world: Float


def cast_rays(bodies: Sequence[WorldInstance], origins: Float, directions: Float, times: Float) -> Hits:
    """Find the first hit of each ray, exact to rounding.

    Args:
        bodies: All bodies of the world, background first.
        origins: (N, 3) or (1, 3) world frame, metres.
        directions: (N, 3) world frame, any length but zero.
        times: (N,) or (1,) seconds.

    Returns:
        The hits.
    """
    scale, winner = first_hits(bodies, origins, directions, times)
    n = len(directions)
    points = origins + np.where(np.isfinite(scale), scale, np.nan)[:, None] * directions
    instance, material, normals = np.full(n, -1), np.full((n, 3), np.nan), np.full((n, 3), np.nan)
    for k, body in enumerate(bodies):
        rows = np.flatnonzero(winner == k)
        if not rows.size:
            continue
        when = _take(times, rows)
        pose = body.path.world_from_instance(when)
        local = _transform(g.invert_rigid(pose), points[rows])
        instance[rows] = body.id
        material[rows] = body.shape.to_material(local, when)
        normals[rows] = rotate(pose, body.shape.normals(material[rows], when))
    away = dot(normals, directions) > 0
    normals[away] *= -1
    return Hits(scale, instance, material, points, normals)


def first_hits(
    bodies: Sequence[WorldInstance], origins: Float, directions: Float, times: Float
) -> tuple[Float, NDArray[np.int64]]:
    """Return (N,) scale of each ray's first hit (inf for none) and (N,) index of the body hit (-1 for none).

    Arguments are those of `cast_rays`.
    """
    best = np.full(len(directions), np.inf)
    winner = np.full(len(directions), -1)
    square = dot(directions, directions)
    for k, body in enumerate(bodies):
        pose = body.path.world_from_instance(times)
        to_centre = pose[:, :3, 3] - origins
        rows = _rays_near(to_centre, body.shape.bound_radius, directions, square)
        if not rows.size:
            continue
        inverse = g.invert_rigid(_take(pose, rows))
        start = _transform(inverse, _take(origins, rows))
        scale = body.shape.intersect(start, rotate(inverse, directions[rows]), _take(times, rows))
        closer = scale < best[rows]
        best[rows[closer]] = scale[closer]
        winner[rows[closer]] = k
    return best, winner


def _rays_near(to_centre: Float, radius: float, directions: Float, square: Float) -> NDArray[np.int64]:
    """Return the rays that may meet a sphere, to spare all others the exact test."""
    along = directions @ to_centre[0] if len(to_centre) == 1 else dot(to_centre, directions)
    # |off axis|^2 <= radius^2, times the squared length of the direction; a hair more against rounding.
    reach = (radius * (1 + 1e-6)) ** 2
    return np.flatnonzero((dot(to_centre, to_centre) - reach) * square <= along**2)


def _take(rows_or_one: Float, rows: NDArray[np.int64]) -> Float:
    return rows_or_one if len(rows_or_one) == 1 else rows_or_one[rows]


def rotate(a_from_b: Float, vectors_b: Float) -> Float:
    """Turn vectors (N, 3) by poses (N, 4, 4) or one pose (1, 4, 4), which is much faster."""
    if len(a_from_b) == 1:
        turned: Float = vectors_b @ a_from_b[0, :3, :3].T
        return turned
    return np.einsum("nij,nj->ni", a_from_b[:, :3, :3], np.broadcast_to(vectors_b, (len(a_from_b), 3)))


def _transform(a_from_b: Float, points_b: Float) -> Float:
    return rotate(a_from_b, points_b) + a_from_b[:, :3, 3]
