"""Rigid transforms and rotations. Matrices act on column vectors: points_a = a_from_b @ points_b."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def _f64(values: ArrayLike) -> Float:
    return np.asarray(values, dtype=np.float64)


def rigid_from(rotation: ArrayLike, translation: ArrayLike) -> Float:
    """Join rotations and translations into 4x4 matrices.

    Args:
        rotation: (..., 3, 3) a_from_b.
        translation: (..., 3) origin of b in a.

    Returns:
        (..., 4, 4) float64 a_from_b.

    >>> rigid_from(np.eye(3), [1, 2, 3])[:, 3].tolist()
    [1.0, 2.0, 3.0, 1.0]
    """
    rot, tr = _f64(rotation), _f64(translation)
    batch = np.broadcast_shapes(rot.shape[:-2], tr.shape[:-1])
    out = np.zeros((*batch, 4, 4))
    out[..., :3, :3] = rot
    out[..., :3, 3] = tr
    out[..., 3, 3] = 1.0
    return out


def invert_rigid(a_from_b: ArrayLike) -> Float:
    """Invert rigid transforms by transposing their rotation.

    Args:
        a_from_b: (..., 4, 4) rigid (not checked; see `is_rigid`).

    Returns:
        (..., 4, 4) float64 b_from_a.

    >>> T = rigid_from(rotation_from_axis_angle([0, 0, 1.0]), [1, 2, 3])
    >>> bool(np.allclose(invert_rigid(T) @ T, np.eye(4)))
    True
    """
    mat = _f64(a_from_b)
    rot_t = np.swapaxes(mat[..., :3, :3], -1, -2)
    return rigid_from(rot_t, -(rot_t @ mat[..., :3, 3:])[..., 0])


def transform_points(a_from_b: ArrayLike, points_b: ArrayLike) -> Float:
    """Move points from frame b to frame a; affine matrices work too.

    Args:
        a_from_b: (..., 4, 4), broadcast against the points' leading axes.
        points_b: (..., 3).

    Returns:
        (..., 3) float64 in frame a.

    >>> transform_points(rigid_from(np.eye(3), [0, 0, 5]), [[1, 2, 3], [0, 0, 0]]).tolist()
    [[1.0, 2.0, 8.0], [0.0, 0.0, 5.0]]
    """
    mat, pts = _f64(a_from_b), _f64(points_b)
    return np.asarray(np.einsum("...ij,...j->...i", mat[..., :3, :3], pts) + mat[..., :3, 3])


def rotation_from_quaternion_wxyz(quaternion: ArrayLike) -> Float:
    """Turn scalar-first quaternions (Blender, Kubric, COLMAP order) into rotation matrices.

    Args:
        quaternion: (..., 4) w, x, y, z of any non-zero norm.

    Returns:
        (..., 3, 3) float64; NaN where the norm is zero or not finite.

    >>> rotation_from_quaternion_wxyz([1, 0, 0, 0]).tolist() == np.eye(3).tolist()
    True
    >>> np.round(rotation_from_quaternion_wxyz([1, 0, 0, 1]) @ [1, 0, 0], 12).tolist()
    [0.0, 1.0, 0.0]
    """
    quat = _f64(quaternion)
    norm = np.linalg.norm(quat, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        w, x, y, z = np.moveaxis(np.where(norm > 0, quat / norm, np.nan), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_from_quaternion_xyzw(quaternion: ArrayLike) -> Float:
    """Turn scalar-last quaternions (ROS, TUM, scipy order) into rotation matrices.

    >>> np.round(rotation_from_quaternion_xyzw([0, 0, 1, 1]) @ [1, 0, 0], 12).tolist()
    [0.0, 1.0, 0.0]
    """
    return rotation_from_quaternion_wxyz(np.roll(_f64(quaternion), 1, axis=-1))


def quaternion_wxyz_from_rotation(rotation: ArrayLike) -> Float:
    """Turn rotation matrices into unit scalar-first quaternions with w >= 0.

    The largest of the four candidate denominators is used for each matrix, so that no rotation loses
    precision (half-turns included).

    Args:
        rotation: (..., 3, 3).

    Returns:
        (..., 4) float64.

    >>> quaternion_wxyz_from_rotation(np.diag([-1.0, -1.0, 1.0])).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    rot = _f64(rotation)
    d0, d1, d2 = rot[..., 0, 0], rot[..., 1, 1], rot[..., 2, 2]
    yz, zx, xy = (
        rot[..., 2, 1] - rot[..., 1, 2],
        rot[..., 0, 2] - rot[..., 2, 0],
        rot[..., 1, 0] - rot[..., 0, 1],
    )
    sxy, sxz, syz = (
        rot[..., 0, 1] + rot[..., 1, 0],
        rot[..., 0, 2] + rot[..., 2, 0],
        rot[..., 1, 2] + rot[..., 2, 1],
    )
    # Row k is proportional to the quaternion, with component k equal to 4 q_k^2.
    candidates = np.stack(
        [
            np.stack([1 + d0 + d1 + d2, yz, zx, xy], -1),
            np.stack([yz, 1 + d0 - d1 - d2, sxy, sxz], -1),
            np.stack([zx, sxy, 1 - d0 + d1 - d2, syz], -1),
            np.stack([xy, sxz, syz, 1 - d0 - d1 + d2], -1),
        ],
        -2,
    )
    best = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), axis=-1)
    quat = np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :]
    quat = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
    return np.asarray(np.where(quat[..., :1] < 0, -quat, quat) + 0.0)


def quaternion_xyzw_from_rotation(rotation: ArrayLike) -> Float:
    """Turn rotation matrices into unit scalar-last quaternions with w >= 0.

    >>> quaternion_xyzw_from_rotation(np.eye(3)).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    return np.roll(quaternion_wxyz_from_rotation(rotation), -1, axis=-1)


def rotation_from_axis_angle(axis_angle: ArrayLike) -> Float:
    """Turn rotation vectors into matrices (Rodrigues).

    Args:
        axis_angle: (..., 3) radians, axis times angle.

    Returns:
        (..., 3, 3) float64.

    >>> np.round(rotation_from_axis_angle([0, 0, np.pi / 2]) @ [1, 0, 0], 12).tolist()
    [0.0, 1.0, 0.0]
    """
    vec = _f64(axis_angle)
    half = np.linalg.norm(vec, axis=-1, keepdims=True) / 2
    # sin(half)/(2 half) through sinc keeps tiny angles exact.
    return rotation_from_quaternion_wxyz(
        np.concatenate([np.cos(half), vec / 2 * np.sinc(half / np.pi)], axis=-1)
    )


def rotation_angle(rotation: ArrayLike) -> Float:
    """Measure the angle of rotations, accurate near 0 and near pi.

    Args:
        rotation: (..., 3, 3).

    Returns:
        (...) float64 radians in [0, pi].

    >>> round(float(rotation_angle(rotation_from_axis_angle([0.3, 0, 0.4]))), 12)
    0.5
    """
    quat = quaternion_wxyz_from_rotation(rotation)
    return np.asarray(2 * np.arctan2(np.linalg.norm(quat[..., 1:], axis=-1), quat[..., 0]))


def look_at(eye_world: ArrayLike, target_world: ArrayLike, up_world: ArrayLike) -> Float:
    """Place a camera (x right, y down, z forward) at `eye_world`, looking at `target_world`.

    Args:
        eye_world: (..., 3).
        target_world: (..., 3), not equal to the eye.
        up_world: (..., 3), not along the viewing direction.

    Returns:
        (..., 4, 4) float64 world_from_cam.

    >>> look_at([0, -5, 0], [0, 0, 0], [0, 0, 1])[:3, 2].tolist()
    [0.0, 1.0, 0.0]
    """
    eye, target, up = (_f64(v) for v in (eye_world, target_world, up_world))
    forward = target - eye
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, np.broadcast_to(up, forward.shape))
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    return rigid_from(np.stack([right, down, forward], axis=-1), eye)
