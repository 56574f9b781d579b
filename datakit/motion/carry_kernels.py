"""Kernels that move points and directions. Imported where they are called: see `compiled`."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64

from .compiled import array, helper, kernel

#: Kinds of motion that a pose tells all about, as in `schemas/motion.yaml` and `MotionKind`.
STATIC, RIGID, POINTS = 1, 2, 3
#: Trajectories used for the local motion around a point, and how many of their spacings away they may be.
NEIGHBOURS = 8
MAX_SPACINGS = 2.0
#: From so many points in one group on, sorting its trajectories into cells pays.
GRID_FROM = 16

_INDEX, _POINTS = array(np.int64, 1), array(np.float64, 2)
_POSES = array(np.float64, 4)
_TRACKS = [array(dtype, 3) for dtype in (np.float32, np.float64)]


@helper
def _turn(src, tgt, x, y, z, out):
    """Rotate by the transpose of one pose's rotation, then by another's."""
    a = src[0, 0] * x + src[1, 0] * y + src[2, 0] * z
    b = src[0, 1] * x + src[1, 1] * y + src[2, 1] * z
    c = src[0, 2] * x + src[1, 2] * y + src[2, 2] * z
    for i in range(3):
        out[i] = tgt[i, 0] * a + tgt[i, 1] * b + tgt[i, 2] * c


@kernel(
    (_POINTS, array(np.uint32, 1), _INDEX, _INDEX, array(np.uint32, 1), array(np.uint8, 1), _POSES, boolean)
)
def carry(vectors, instance, m_src, m_tgt, ids, how, pose, are_points):
    """Move points, or turn directions, that belong to things at rest or rigid ones.

    Args:
        vectors: (N, 3).
        instance: (N,) instance ids.
        m_src: (N,) sample of the motion clock, -1 for none.
        m_tgt: (N,) likewise.
        ids: (I,) sorted.
        how: (I,) kind of motion.
        pose: (M, I, 4, 4) world_from_instance.
        are_points: False for directions.

    Returns:
        (N, 3), NaN for every other kind of motion; row of the instance (N,), -1 for none; whether trajectories can
        carry it (N,); and how many of m_src and m_tgt are off the clock, which leave NaN.
    """
    out, rows, off_clock = np.full_like(vectors, np.nan), np.full(len(vectors), -1), 0
    follows = np.zeros(len(vectors), np.bool_)
    for n in range(len(vectors)):
        row = np.searchsorted(ids, instance[n])
        if row == len(ids) or ids[row] != instance[n]:
            continue
        rows[n] = row
        if m_src[n] >= len(pose) or m_tgt[n] >= len(pose):
            off_clock += 1
        elif how[row] == STATIC:
            out[n] = vectors[n]
        elif how[row] == POINTS:
            is_known = np.isfinite(vectors[n, 0] + vectors[n, 1] + vectors[n, 2])
            follows[n] = are_points and is_known and m_src[n] >= 0 and m_tgt[n] >= 0
        elif how[row] == RIGID and m_src[n] >= 0 and m_tgt[n] >= 0:
            src, tgt = pose[m_src[n], row], pose[m_tgt[n], row]
            x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
            if are_points:
                _turn(src, tgt, x - src[0, 3], y - src[1, 3], z - src[2, 3], out[n])
                for i in range(3):
                    out[n, i] += tgt[i, 3]
            else:
                _turn(src, tgt, x, y, z, out[n])
    return out, rows, follows, off_clock


@helper
def _known(tracks, mine, m):
    """Trajectories (K,) that are known at sample m, and where they are then (3, K or more)."""
    ids, place = np.empty(len(mine), np.int64), np.empty((3, len(mine)))
    count = 0
    for p in mine:
        x, y, z = tracks[p, m, 0], tracks[p, m, 1], tracks[p, m, 2]
        if np.isfinite(x) and np.isfinite(y) and np.isfinite(z):
            ids[count] = p
            place[0, count], place[1, count], place[2, count] = x, y, z
            count += 1
    return ids[:count], place


@helper
def _grid(place, count):
    """Sort the first `count` points into about as many cubic cells.

    Returns:
        order (K,) points by cell, start (C + 1,) of the cells, low (3,) corner, counts (3,), edge of a cell.
    """
    low, size = np.empty(3), np.empty(3)
    for i in range(3):
        low[i] = place[i, :count].min()
        size[i] = place[i, :count].max() - low[i]
    a, b, c = np.sort(size)
    # Points often fill a plane or a line of their box: a side shorter than a cell counts for nothing.
    edge = (a * b * c / count) ** (1 / 3)
    if edge > a:
        edge = (b * c / count) ** 0.5
    if edge > b:
        edge = c / count
    if edge == 0:
        edge = 1.0
    counts = np.empty(3, np.int64)
    for i in range(3):
        counts[i] = min(int64(size[i] / edge), count) + 1
    cell = np.empty(count, np.int64)
    start = np.zeros(counts[0] * counts[1] * counts[2] + 1, np.int64)
    for k in range(count):
        x, y, z = _cell(place[:, k], low, edge, counts)
        cell[k] = (x * counts[1] + y) * counts[2] + z
        start[cell[k] + 1] += 1
    for k in range(1, len(start)):
        start[k] += start[k - 1]
    at, order = start[:-1].copy(), np.empty(count, np.int64)
    for k in range(count):
        order[at[cell[k]]] = k
        at[cell[k]] += 1
    return order, start, low, counts, edge


@helper
def _cell(point, low, edge, counts):
    """Cell of a point; outside of the grid the nearest one."""
    x = min(max(np.floor((point[0] - low[0]) / edge), 0.0), counts[0] - 1.0)
    y = min(max(np.floor((point[1] - low[1]) / edge), 0.0), counts[1] - 1.0)
    z = min(max(np.floor((point[2] - low[2]) / edge), 0.0), counts[2] - 1.0)
    return int64(x), int64(y), int64(z)


@helper
def _scan(place, order, first, last, point, near, distance):
    """Put points order[first:last] among the nearest found so far, where they are; distances are squared here."""
    for s in range(first, last):
        k = order[s]
        x, y, z = place[0, k] - point[0], place[1, k] - point[1], place[2, k] - point[2]
        squared = x * x + y * y + z * z
        at = len(near) - 1
        if squared < distance[at]:
            while at > 0 and squared < distance[at - 1]:
                near[at], distance[at] = near[at - 1], distance[at - 1]
                at -= 1
            near[at], distance[at] = k, squared


@helper
def _gap(x, c, edge):
    """Squared distance along an axis from x to the cell c, which begins at c * edge."""
    gap = max(c * edge - x, x - (c + 1) * edge, 0.0)
    return gap * gap


@helper
def _reach(grid, cell, point, shell):
    """Distance within which every point lies in the shells 0..shell around a cell."""
    _, _, low, counts, edge = grid
    nearest = np.inf
    for i in range(3):
        if cell[i] - shell > 0:
            nearest = min(nearest, point[i] - (low[i] + (cell[i] - shell) * edge))
        if cell[i] + shell < counts[i] - 1:
            nearest = min(nearest, low[i] + (cell[i] + shell + 1) * edge - point[i])
    return nearest


@helper
def _nearest(place, grid, point, near, distance):
    """Find the nearest points, nearest first, by searching shell after shell of cells.

    Args:
        place: (3, K).
        grid: From `_grid`.
        point: (3,), may lie outside of the grid.
        near: (k,) written: columns of place.
        distance: (k,) written, inf where there are less than k.
    """
    order, start, low, counts, edge = grid
    distance[:] = np.inf
    cell = _cell(point, low, edge, counts)
    for shell in range(max(counts)):
        for x in range(max(cell[0] - shell, 0), min(cell[0] + shell + 1, counts[0])):
            gap_x = _gap(point[0] - low[0], x, edge)
            for y in range(max(cell[1] - shell, 0), min(cell[1] + shell + 1, counts[1])):
                gap_xy = gap_x + _gap(point[1] - low[1], y, edge)
                if gap_xy >= distance[-1]:
                    continue
                column = (x * counts[1] + y) * counts[2]
                low_z, high_z = max(cell[2] - shell, 0), min(cell[2] + shell, counts[2] - 1)
                if abs(x - cell[0]) == shell or abs(y - cell[1]) == shell:
                    first, last = start[column + low_z], start[column + high_z + 1]
                    _scan(place, order, first, last, point, near, distance)
                    continue
                # Inside of the shell only its two ends along z are new.
                for z in (cell[2] - shell, cell[2] + shell):
                    if low_z <= z <= high_z:
                        first, last = start[column + z], start[column + z + 1]
                        _scan(place, order, first, last, point, near, distance)
        reach = _reach(grid, cell, point, shell)
        if reach > 0 and reach * reach >= distance[-1]:
            break
    distance[:] = np.sqrt(distance)


@helper
def _nearest_of_all(place, count, point, squared, near, distance):
    """Do what `_nearest` does for few points: look at all places; `squared` (K,) is memory to use."""
    for k in range(count):
        x, y, z = place[0, k] - point[0], place[1, k] - point[1], place[2, k] - point[2]
        squared[k] = x * x + y * y + z * z
    distance[:] = np.inf
    farthest = np.inf
    for k in range(count):
        if squared[k] < farthest:
            at = len(near) - 1
            while at > 0 and squared[k] < distance[at - 1]:
                near[at], distance[at] = near[at - 1], distance[at - 1]
                at -= 1
            near[at], distance[at] = k, squared[k]
            farthest = distance[-1]
    distance[:] = np.sqrt(distance)


@helper
def _spacing(place, near, count, gap):
    """Median over the neighbours of their distance to the nearest of each other; `gap` (k,) is memory to use."""
    gap[:count] = np.inf
    for i in range(count):
        a = near[i]
        for j in range(i):
            b = near[j]
            x, y, z = place[0, a] - place[0, b], place[1, a] - place[1, b], place[2, a] - place[2, b]
            squared = x * x + y * y + z * z
            gap[i], gap[j] = min(gap[i], squared), min(gap[j], squared)
    for i in range(1, count):
        at, here = i, gap[i]
        while at > 0 and here < gap[at - 1]:
            gap[at] = gap[at - 1]
            at -= 1
        gap[at] = here
    return np.sqrt(gap[count // 2])


@helper
def _fit(moved, local, weight, count, out):
    """Fit displacement = a + B local by weighted least squares and add a to out (3,).

    Trajectories lie on a surface, so B is open along its normal; a small ridge leaves it zero there.

    Args:
        moved: (k, 3) displacements of the trajectories around.
        local: (k, 3) where they are, from the point and in spacings.
        weight: (k,) positive.
        count: How many of them there are.
        out: (3,).
    """
    # Unknowns: B's three columns, then a; elimination leaves a as the last one.
    left, right = np.zeros((4, 4)), np.zeros((4, 3))
    for k in range(count):
        row = (local[k, 0], local[k, 1], local[k, 2], 1.0)
        for i in range(4):
            for j in range(4):
                left[i, j] += weight[k] * row[i] * row[j]
            for j in range(3):
                right[i, j] += weight[k] * row[i] * moved[k, j]
    total = left[3, 3]
    for i in range(3):
        left[i, i] += 1e-4 * total
    for i in range(3):
        for j in range(i + 1, 4):
            share = left[j, i] / left[i, i]
            for k in range(i, 4):
                left[j, k] -= share * left[i, k]
            for k in range(3):
                right[j, k] -= share * right[i, k]
    for k in range(3):
        out[k] += right[3, k] / left[3, 3]


@kernel(*((_POINTS, _INDEX, _INDEX, _INDEX, tracks, _INDEX, _INDEX, _INDEX, _INDEX) for tracks in _TRACKS))
def follow(points, m_tgt, first, m_src, tracks, member, begin, end, row):
    """Move points by the affine motion that best fits the trajectories around each of them.

    Args:
        points: (N, 3), sorted into G groups of one instance and one source sample each.
        m_tgt: (N,) samples to move to.
        first: (G + 1,) where each group begins.
        m_src: (G,) source sample of each group.
        tracks: (P, M, 3), NaN unknown.
        member: (P,) trajectories sorted by instance.
        begin: (I,) where each instance's begin.
        end: (I,) and end.
        row: (G,) instance of each group.

    Returns:
        (N, 3), NaN where no trajectory is near.
    """
    out = np.full_like(points, np.nan)
    near, distance, weight = np.empty(NEIGHBOURS, np.int64), np.empty(NEIGHBOURS), np.empty(NEIGHBOURS)
    local, moved, gap = np.empty((NEIGHBOURS, 3)), np.empty((NEIGHBOURS, 3)), np.empty(NEIGHBOURS)
    squared = np.empty(len(member))
    for g in range(len(row)):
        ids, place = _known(tracks, member[begin[row[g]] : end[row[g]]], m_src[g])
        if len(ids) < 2:
            continue
        has_grid = first[g + 1] - first[g] >= GRID_FROM
        if has_grid:
            grid = _grid(place, len(ids))
        for n in range(first[g], first[g + 1]):
            if has_grid:
                _nearest(place, grid, points[n], near, distance)
            else:
                _nearest_of_all(place, len(ids), points[n], squared, near, distance)
            spacing = _spacing(place, near, min(len(ids), NEIGHBOURS), gap)
            if not distance[0] <= MAX_SPACINGS * spacing:
                continue
            unit = spacing if spacing > 0 else 1.0
            count = 0
            for k in range(NEIGHBOURS):
                if distance[k] <= 2 * MAX_SPACINGS * spacing:
                    for i in range(3):
                        local[count, i] = (place[i, near[k]] - points[n, i]) / unit
                        moved[count, i] = tracks[ids[near[k]], m_tgt[n], i] - place[i, near[k]]
                    weight[count] = np.exp(-0.5 * (distance[k] / unit) ** 2)
                    count += np.isfinite(moved[count, 0] + moved[count, 1] + moved[count, 2])
            if count > 0:
                out[n] = points[n]
                _fit(moved, local, weight, count, out[n])
    return out
