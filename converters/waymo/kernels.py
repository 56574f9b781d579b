"""Kernels of the Waymo reader. Imported where they are called: see `datakit.motion.compiled`."""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, uint64

from datakit.motion.compiled import array, helper, kernel

_MAX_BYTES = 10
#: Pixels along the side of the blocks that `find_shadowed` keeps the nearest depth of; a power of two.
_BLOCK_BITS = 3
_BLOCK = 1 << _BLOCK_BITS


@kernel((array(np.uint64, 1), int64))
def read_varints(words, length):
    """Read protobuf varints as int32; bits past the 32nd are dropped, as the runtime drops them.

    Most values are zero (no camera), so eight bytes that are zero are passed over at once.

    Args:
        words: (B,) the bytes, the first one lowest; at least a word more than they fill.
        length: Number of bytes.

    Returns:
        (length,) int32 with the values in front, and their number; -1 where a varint does not end within ten bytes.
    """
    out = np.zeros(length, np.int32)
    count, at = 0, 0
    while at < length:
        shift = uint64(at & 7) << uint64(3)
        word = words[at >> 3] >> shift
        if shift:
            word |= words[(at >> 3) + 1] << (uint64(64) - shift)
        if word == 0 and at + 8 <= length:
            count += 8
            at += 8
            continue
        byte = int64(word & uint64(255))
        at += 1
        if byte < 128:
            out[count] = byte
            count += 1
            continue
        value, bits, ended = byte & 127, 7, False
        while at < length and bits < 7 * _MAX_BYTES:
            byte = int64((words[at >> 3] >> (uint64(at & 7) << uint64(3))) & uint64(255))
            at += 1
            if bits < 63:
                value |= (byte & 127) << bits
            bits += 7
            if byte < 128:
                ended = True
                break
        if not ended:
            return out, -1
        out[count] = np.int32(value & 0xFFFFFFFF)
        count += 1
    return out, count


@kernel(
    (
        array(np.float32, 3),
        array(np.int32, 3),
        array(np.float32, 3),
        array(np.float64, 2),
        array(np.float64, 2),
        array(np.float64, 2),
        array(np.float64, 2),
        boolean,
    )
)
def place_points(
    values, projection, pose, beams, columns, vehicle_from_lidar, global_from_vehicle, only_seen
):
    """Place the pixels of a range image that have a return; see `lidar.points_of_frame`.

    Args:
        values: (H, W, 4) range in metres, two others, in a no-label zone.
        projection: (H, W, 6) camera, x, y; camera, x, y; or empty: no camera.
        pose: (H, W, 6) roll, pitch, yaw, x, y, z of global_from_vehicle at each pixel's time; or empty: the frame's.
        beams: (2, H) cosine and sine of the rows' inclinations.
        columns: (2, W) cosine and sine of the columns' azimuths.
        vehicle_from_lidar: (4, 4).
        global_from_vehicle: (4, 4) the frame's own pose.
        only_seen: Leave out what no camera sees.

    Returns:
        Points (N, 3) in the vehicle frame of the frame's pose, projections (N, 6) and in a no-label zone (N,), row by
        row.
    """
    height, width = values.shape[0], values.shape[1]
    points = np.empty((height * width, 3), np.float64)
    pixels = np.zeros((height * width, 6), np.int32)
    unlabelled = np.empty(height * width, np.bool_)
    lidar, frame = vehicle_from_lidar, global_from_vehicle
    is_projected, is_posed = projection.size > 0, pose.size > 0
    # A column's beams leave at nearly one time, and mostly with one pose: its angles' cosines and sines are kept.
    angles = np.full((width, 3), np.nan, np.float32)
    turns = np.empty((width, 3, 2), np.float64)
    count = 0
    for row in range(height):
        for col in range(width):
            distance = float64(values[row, col, 0])
            if not distance > 0:
                continue
            seen = is_projected and (projection[row, col, 0] != 0 or projection[row, col, 3] != 0)
            if only_seen and not seen:
                continue
            flat, up = distance * beams[0, row], distance * beams[1, row]
            ahead, left = flat * columns[0, col], flat * columns[1, col]
            x = lidar[0, 0] * ahead + lidar[0, 1] * left + lidar[0, 2] * up + lidar[0, 3]
            y = lidar[1, 0] * ahead + lidar[1, 1] * left + lidar[1, 2] * up + lidar[1, 3]
            z = lidar[2, 0] * ahead + lidar[2, 1] * left + lidar[2, 2] * up + lidar[2, 3]
            if is_posed:
                for k in range(3):
                    if pose[row, col, k] != angles[col, k]:
                        angles[col, k] = pose[row, col, k]
                        turns[col, k, 0] = np.cos(float64(angles[col, k]))
                        turns[col, k, 1] = np.sin(float64(angles[col, k]))
                cos, sin = turns[col, 0, 0], turns[col, 0, 1]
                y, z = cos * y - sin * z, sin * y + cos * z
                cos, sin = turns[col, 1, 0], turns[col, 1, 1]
                z, x = cos * z - sin * x, sin * z + cos * x
                cos, sin = turns[col, 2, 0], turns[col, 2, 1]
                x, y = cos * x - sin * y, sin * x + cos * y
                # Distances to a nearby origin first: global coordinates of 1e5 m cost digits in the products below.
                x += pose[row, col, 3] - frame[0, 3]
                y += pose[row, col, 4] - frame[1, 3]
                z += pose[row, col, 5] - frame[2, 3]
                x, y, z = (
                    frame[0, 0] * x + frame[1, 0] * y + frame[2, 0] * z,
                    frame[0, 1] * x + frame[1, 1] * y + frame[2, 1] * z,
                    frame[0, 2] * x + frame[1, 2] * y + frame[2, 2] * z,
                )
            points[count, 0], points[count, 1], points[count, 2] = x, y, z
            if seen:
                for k in range(6):
                    pixels[count, k] = projection[row, col, k]
            unlabelled[count] = values[row, col, 3] > 0
            count += 1
    return points[:count], pixels[:count], unlabelled[:count]


@kernel((array(np.float64, 2), array(np.float64, 2), array(np.float64, 2), array(np.float64, 2)))
def find_boxes(points, centres, turns, halves):
    """Tell which is the first of upright boxes (B) that each point (N, 3) lies in; -1 for none.

    Args:
        points: (N, 3).
        centres: (B, 3).
        turns: (B, 2) cosine and sine of the headings.
        halves: (B, 3) half the extent along each box's own axes.
    """
    out = np.full(len(points), -1, np.int64)
    for n in range(len(points)):
        for b in range(len(centres)):
            dx, dy = points[n, 0] - centres[b, 0], points[n, 1] - centres[b, 1]
            if (
                abs(points[n, 2] - centres[b, 2]) <= halves[b, 2]
                and abs(turns[b, 0] * dx + turns[b, 1] * dy) <= halves[b, 0]
                and abs(turns[b, 0] * dy - turns[b, 1] * dx) <= halves[b, 1]
            ):
                out[n] = b
                break
    return out


@kernel((array(np.float64, 2), array(np.int32, 2), array(np.int64, 1), array(np.float64, 2), int64))
def see_points(points, projection, owner, z_rows, camera):
    """Gather what a camera sees, in the first slot of the projections and then in the second.

    Args:
        points: (N, 3).
        projection: (N, 6) camera, x, y; camera, x, y.
        owner: (N,) row of `z_rows`, less one.
        z_rows: (B, 4) the row of cam_from_points that gives z.
        camera: Its number.

    Returns:
        Indices of points (M,), their pixels' centres (M, 2) and z (M,).
    """
    count = 0
    for n in range(len(points)):
        count += (projection[n, 0] == camera) + (projection[n, 3] == camera)
    index, uv_px, z = np.empty(count, np.int64), np.empty((count, 2)), np.empty(count)
    at = 0
    for slot in (0, 3):
        for n in range(len(points)):
            if projection[n, slot] == camera:
                row = owner[n] + 1
                index[at] = n
                uv_px[at, 0], uv_px[at, 1] = projection[n, slot + 1] + 0.5, projection[n, slot + 2] + 0.5
                z[at] = (
                    z_rows[row, 0] * points[n, 0]
                    + z_rows[row, 1] * points[n, 1]
                    + z_rows[row, 2] * points[n, 2]
                    + z_rows[row, 3]
                )
                at += 1
    return index, uv_px, z


@kernel(
    (array(np.float64, 2), array(np.float64, 1), array(np.uint16, 1), int64, int64),
    (array(np.float64, 2), array(np.float64, 1), array(np.uint32, 1), int64, int64),
)
def draw_nearest(uv_px, z, ids, width, height):
    """Draw points (N) into a raster, the nearest in each pixel, of equals the last; none at z <= 0 or outside.

    Returns:
        Depth (H, W) float32, NaN where there is none; ids (H, W), 0 where there is none; rows (M,) and columns (M,)
        of the pixels drawn.
    """
    depth = np.full((height, width), np.nan, np.float32)
    instances = np.zeros((height, width), ids.dtype)
    rows, cols = np.empty(len(z), np.int64), np.empty(len(z), np.int64)
    count = 0
    for n in range(len(z)):
        if not (z[n] > 0 and 0 <= uv_px[n, 0] < width and 0 <= uv_px[n, 1] < height):
            continue
        row, col = int(uv_px[n, 1]), int(uv_px[n, 0])
        here = depth[row, col]
        if np.isnan(here):
            rows[count], cols[count] = row, col
            count += 1
        elif np.float32(z[n]) > here:
            continue
        depth[row, col] = z[n]
        instances[row, col] = ids[n]
    return depth, instances, rows[:count], cols[:count]


@helper
def _has_nearer(z, nearest, limit, top, bottom, left, right):
    """Whether a depth below a limit is in rows top..bottom and columns left..right of (H, W); NaN is none."""
    top, bottom = max(top, 0), min(bottom, z.shape[0] - 1)
    left, right = max(left, 0), min(right, z.shape[1] - 1)
    for above in range(top >> _BLOCK_BITS, (bottom >> _BLOCK_BITS) + 1):
        for aside in range(left >> _BLOCK_BITS, (right >> _BLOCK_BITS) + 1):
            if not nearest[above, aside] < limit:
                continue
            first_row, first_col = above << _BLOCK_BITS, aside << _BLOCK_BITS
            for row in range(max(top, first_row), min(bottom + 1, first_row + _BLOCK)):
                for col in range(max(left, first_col), min(right + 1, first_col + _BLOCK)):
                    if z[row, col] < limit:
                        return True
    return False


@kernel((array(np.float32, 2), array(np.int64, 1, "A"), array(np.int64, 1, "A"), int64, int64, float64))
def find_shadowed(z, rows, cols, across, down, step):
    """Find points of sparse depth (H, W) with a nearer one on both sides; see `assemble.shadowed`.

    Args:
        z: NaN where there is no point.
        rows: (N,) pixels of all points.
        cols: (N,) likewise.
        across: Pixels to the left and right that are looked at.
        down: Pixels above and below.
        step: Share of a point's depth by which others must be nearer.

    Returns:
        (N,) bool.
    """
    # Hardly any block has a point that is nearer; pixels are looked at in those only.
    nearest = np.full(((z.shape[0] >> _BLOCK_BITS) + 1, (z.shape[1] >> _BLOCK_BITS) + 1), np.inf, np.float32)
    for n in range(len(rows)):
        above, aside = rows[n] >> _BLOCK_BITS, cols[n] >> _BLOCK_BITS
        nearest[above, aside] = min(nearest[above, aside], z[rows[n], cols[n]])
    out = np.empty(len(rows), np.bool_)
    # Points of a row lie half a spacing aside of those of the next, so a column is looked for with some width; no
    # more, for on a slanted surface all that is beside a point on one side is nearer.
    wide, tall = across // 4, down // 4  # what is looked at is two spacings
    for n in range(len(rows)):
        row, col = rows[n], cols[n]
        limit = z[row, col] * (1 - step)
        out[n] = (
            _has_nearer(z, nearest, limit, row - down, row - 1, col - wide, col + wide)
            and _has_nearer(z, nearest, limit, row + 1, row + down, col - wide, col + wide)
        ) or (
            _has_nearer(z, nearest, limit, row - tall, row + tall, col - across, col - 1)
            and _has_nearer(z, nearest, limit, row - tall, row + tall, col + 1, col + across)
        )
    return out
