"""Kernels of queries. Imported where they are called: see `datakit.motion.compiled`.

Arguments that kernels share: `t` (N,) int64 frames; `pose` (T, 4, 4) world_from_cam, NaN unknown; `intrinsics`
(T, 3, 3), corner origin, pinhole.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int64, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from datakit.motion.compiled import array, helper, kernel

#: Largest bend of 1/z over two pixels, as a share of it, that counts as planar.
PLANAR = 0.01
#: Normals shorter than this are the mean of directions too different to have one.
SHORTEST = 0.5

_INDEX, _REAL, _FLAG = array(np.int64, 1), array(np.float64, 1), array(np.bool_, 1)
_POINTS, _CAMERAS = array(np.float64, 2), array(np.float64, 3)
_PIXELS = [array(dtype, 2) for dtype in (np.int32, np.int64)]


@helper
def _ray(intrinsics, u, v):
    """Give x and y of a pixel's ray at z = 1."""
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    return (u - intrinsics[0, 2] - intrinsics[0, 1] * y) / intrinsics[0, 0], y


@helper
def _map(matrix, u, v):
    """A pixel through a homography."""
    w = matrix[2, 0] * u + matrix[2, 1] * v + matrix[2, 2]
    x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]
    y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]
    return x / w, y / w


@helper
def _to_world(pose, i, x, y, z):
    """Coordinate i of a camera's direction in the world."""
    return pose[i, 0] * x + pose[i, 1] * y + pose[i, 2] * z


@helper
def _to_cam(pose, i, x, y, z):
    """Coordinate i of a world direction in a camera."""
    return pose[0, i] * x + pose[1, i] * y + pose[2, i] * z


@helper
def _point_in_cam(pose, point):
    """A world point in a camera."""
    x, y, z = point[0] - pose[0, 3], point[1] - pose[1, 3], point[2] - pose[2, 3]
    return _to_cam(pose, 0, x, y, z), _to_cam(pose, 1, x, y, z), _to_cam(pose, 2, x, y, z)


@helper
def _project(intrinsics, x, y, z):
    """Pixel of a camera's point, NaN behind it."""
    if not z > 0:
        return np.nan, np.nan
    u = intrinsics[0, 0] * (x / z) + intrinsics[0, 1] * (y / z) + intrinsics[0, 2]
    return u, intrinsics[1, 1] * (y / z) + intrinsics[1, 2]


@kernel((_CAMERAS, _INDEX, _POINTS))
def map_pixels(matrix, t, uv):
    """Map pixels (N, 2) through the homographies (T, 3, 3) of their frames."""
    out = np.empty_like(uv)
    for n in range(len(t)):
        out[n, 0], out[n, 1] = _map(matrix[t[n]], uv[n, 0], uv[n, 1])
    return out


@kernel((_POINTS, _INDEX, _REAL, _CAMERAS, _CAMERAS))
def lift(uv, t, z, intrinsics, pose):
    """Lift pixels (N, 2) with depth (N,) to the world (N, 3)."""
    out = np.empty((len(t), 3))
    for n in range(len(t)):
        x, y = _ray(intrinsics[t[n]], uv[n, 0], uv[n, 1])
        for i in range(3):
            out[n, i] = _to_world(pose[t[n]], i, x * z[n], y * z[n], z[n]) + pose[t[n], i, 3]
    return out


@kernel((_POINTS, _INDEX, _CAMERAS, _CAMERAS))
def look(points, t, intrinsics, pose):
    """Project world points (N, 3): pixels (N, 2), NaN behind the camera, and z (N,)."""
    uv, depth = np.empty((len(t), 2)), np.empty(len(t))
    for n in range(len(t)):
        x, y, depth[n] = _point_in_cam(pose[t[n]], points[n])
        uv[n, 0], uv[n, 1] = _project(intrinsics[t[n]], x, y, depth[n])
    return uv, depth


@kernel((_POINTS, _POINTS, _POINTS, _INDEX, _CAMERAS, _CAMERAS, float64, float64))
def relate(points_src, points_tgt, normals, t_cam, intrinsics, pose, width, height):
    """Tell what the world's points and normals (N, 3) are in the cameras of t_cam.

    Returns:
        xyz (N, 3), target_uv (N, 2), displacement (N, 3), normal (N, 3), float32, NaN unknown; and for each (N,)
        whether it is known, in one array (4, N).
    """
    count = len(t_cam)
    xyz, displacement = np.full((count, 3), float32(np.nan)), np.full((count, 3), float32(np.nan))
    normal, uv = np.full((count, 3), float32(np.nan)), np.full((count, 2), float32(np.nan))
    known = np.zeros((4, count), np.bool_)
    for n in range(count):
        camera = pose[t_cam[n]]
        x, y, z = _point_in_cam(camera, points_tgt[n])
        if np.isfinite(x + y + z):
            known[0, n] = True
            xyz[n, 0], xyz[n, 1], xyz[n, 2] = x, y, z
        u, v = _project(intrinsics[t_cam[n]], x, y, z)
        if u >= 0 and u <= width and v >= 0 and v <= height:
            known[1, n] = True
            uv[n, 0], uv[n, 1] = u / width, v / height
        a, b = points_src[n], points_tgt[n]
        x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        if known[0, n] and np.isfinite(x + y + z):
            known[2, n] = True
            for i in range(3):
                displacement[n, i] = _to_cam(camera, i, x, y, z)
        x, y, z = normals[n, 0], normals[n, 1], normals[n, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length > SHORTEST and np.isfinite(camera[0, 0]):
            known[3, n] = True
            for i in range(3):
                normal[n, i] = _to_cam(camera, i, x, y, z) / length
    return xyz, uv, displacement, normal, known


@helper
def _is_planar(z, labels, i, j):
    """Whether pixel (i, j) of a window and the four beside it are one plane of one instance."""
    here = 1 / np.float64(z[i, j])
    for di, dj in ((0, 1), (1, 0)):
        bend = 1 / np.float64(z[i - di, j - dj]) + 1 / np.float64(z[i + di, j + dj]) - 2 * here
        if not abs(bend) < PLANAR * here:
            return False
        if labels[i - di, j - dj] != labels[i, j] or labels[i + di, j + dj] != labels[i, j]:
            return False
    return True


@helper
def _edge_of(z, i, j, di, dj, intrinsics, row, col):
    """From the point on one side of pixel (row, col) to that on the other, in the camera."""
    a, b = np.float64(z[i - di, j - dj]), np.float64(z[i + di, j + dj])
    ax, ay = _ray(intrinsics, col - dj + 0.5, row - di + 0.5)
    bx, by = _ray(intrinsics, col + dj + 0.5, row + di + 0.5)
    return bx * b - ax * a, by * b - ay * a, b - a


@kernel((_INDEX, _INDEX, _INDEX, _INDEX, _FLAG, array(np.float32, 3), array(np.uint32, 3), _INDEX, _CAMERAS,
         _CAMERAS, int64, int64))  # fmt: skip
def normals_from_depth(top, left, row, col, is_inside, z, labels, t, intrinsics, pose, height, width):
    """Unit world normals (N, 3) of the pixels that contain the queries, by central differences.

    They face the camera; NaN off planes, at edges and at the border.

    Args:
        top: (N,) as in `Quad`.
        left: (N,) likewise.
        row: (N,) likewise.
        col: (N,) likewise.
        is_inside: (N,) likewise.
        z: (N, 4, 4) windows of depth.
        labels: (N, 4, 4) windows of labels.
        t: (N,).
        intrinsics: Of the depth grid.
        pose: Of the cameras.
        height: Of the depth grid.
        width: Of the depth grid.
    """
    out = np.full((len(t), 3), np.nan)
    for n in range(len(t)):
        r, c = row[n], col[n]
        i, j = r - top[n] + 1, c - left[n] + 1
        is_border = r == 0 or r == height - 1 or c == 0 or c == width - 1
        if not is_inside[n] or is_border or not _is_planar(z[n], labels[n], i, j):
            continue
        ax, ay, az = _edge_of(z[n], i, j, 1, 0, intrinsics[t[n]], r, c)
        bx, by, bz = _edge_of(z[n], i, j, 0, 1, intrinsics[t[n]], r, c)
        x, y, z_ = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        u, v = _ray(intrinsics[t[n]], c + 0.5, r + 0.5)
        length = np.sqrt(x * x + y * y + z_ * z_)
        if x * u + y * v + z_ > 0:
            length = -length
        for k in range(3):
            out[n, k] = _to_world(pose[t[n]], k, x / length, y / length, z_ / length)
    return out


@intrinsic
def _copy_27(context, to, to_byte, source, source_byte):
    """Copy 27 bytes between contiguous arrays of bytes: two moves, where a loop takes 27."""

    def generate(context, builder, signature, args):
        ends = [context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 2)]
        places = [builder.gep(end, [args[i]]) for end, i in zip(ends, (1, 3), strict=True)]
        cgutils.raw_memcpy(builder, *places, context.get_constant(types.intp, 27), 1)
        return context.get_dummy_value()

    return types.void(to, to_byte, source, source_byte), generate


@kernel((array(np.uint8, 3), _INDEX, _POINTS))
def cut_squares(frames, t, uv):
    """Cut 9 x 9 pixels of (T, H, 3W) frames around those that contain uv (N, 2); beyond the border the edge repeats.

    Returns:
        (N, 9, 27) uint8.
    """
    height, width = frames.shape[1], frames.shape[2] // 3
    out = np.empty((len(t), 9, 27), np.uint8)
    for n in range(len(t)):
        top, left = int64(np.floor(uv[n, 1])) - 4, int64(np.floor(uv[n, 0])) - 4
        is_whole = 0 <= left <= width - 9
        for i in range(9):
            row = min(max(top + i, 0), height - 1)
            if is_whole:
                _copy_27(out, (n * 9 + i) * 27, frames, ((t[n] * height + row) * width + left) * 3)
                continue
            line = frames[uint64(t[n]), uint64(row)]
            for k in range(27):
                out[n, i, k] = line[uint64(3 * min(max(left + k // 3, 0), width - 1) + k % 3)]
    return out


@kernel(*((rows, _CAMERAS, float64, float64) for rows in _PIXELS))
def find_shown(rows, matrix, width, height):
    """Find the pixels (B, 3: frame, row, column) whose centre lies in the image that homographies map them to."""
    out, count = np.empty(len(rows), np.int64), 0
    for n in range(len(rows)):
        u, v = _map(matrix[rows[n, 0]], rows[n, 2] + 0.5, rows[n, 1] + 0.5)
        out[count] = n
        count += u >= 0 and u <= width and v >= 0 and v <= height
    return out[:count]


@kernel(*((rows, _INDEX, _CAMERAS, _POINTS, float64, float64) for rows in _PIXELS))
def draw_near(rows, shown, matrix, chance, width, height):
    """Draw frames uniformly among those that have pixels, then a pixel of the frame and a place in it.

    Args:
        rows: (B, 3) pixels: frame, row, column; sorted by frame.
        shown: (S,) which of them to draw from, at least one, ascending.
        matrix: (T, 3, 3) from their grid to the image.
        chance: (N, 4) uniform in [0, 1): frame, pixel, place across and down.
        width: Of the image.
        height: Of the image.

    Returns:
        uv (N, 2) in the image, frame (N,).
    """
    first, frames = np.empty(len(shown) + 1, np.int64), 0
    for i in range(len(shown)):
        if i == 0 or rows[shown[i], 0] != rows[shown[i - 1], 0]:
            first[frames] = i
            frames += 1
    first[frames] = len(shown)
    uv, t = np.empty((len(chance), 2)), np.empty(len(chance), np.int64)
    for n in range(len(chance)):
        f = int64(chance[n, 0] * frames)
        pixel = rows[shown[first[f] + int64(chance[n, 1] * (first[f + 1] - first[f]))]]
        t[n] = pixel[0]
        u, v = _map(matrix[t[n]], pixel[2] + chance[n, 2], pixel[1] + chance[n, 3])
        uv[n, 0], uv[n, 1] = min(max(u, 0.0), width), min(max(v, 0.0), height)
    return uv, t
