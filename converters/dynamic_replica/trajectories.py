"""`trajectories/NNNNNN.pth`: the mesh vertices at one frame, read without running anything from the file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError, FormatError, UsageError
from datakit.motion.kinds import Visibility

from .annotations import Float, Row


@dataclass(frozen=True)
class Vertices:
    """The vertices at one frame: (N, 3) float32 world, (N,) visible flags, (N,) instance ids."""

    points_world: NDArray[np.float32]
    is_visible: NDArray[np.bool_]
    instance: NDArray[np.uint32]


def read_vertices(data: bytes, where: str) -> Vertices:
    """Read one file with `weights_only=True`, which refuses every pickle that does more than build tensors.

    Raises:
        FormatError: Not torch's zip form, a tensor is missing or malformed, or its pickle is refused.
        UsageError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            "Dynamic Replica's trajectories need torch", mend="pip install 'datakit[torch]'"
        ) from error
    _check_zip(data, where)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as err:  # its unpickler runs nothing, but raises whatever damaged bytes lead to
        raise FormatError(
            "A trajectory file cannot be read.", where=where, expected="a torch file of tensors", found=err
        ) from err
    points, visible, instance = (
        _tensor(content, name, where) for name in ("traj_3d_world", "verts_inds_vis", "instances")
    )
    count = len(points)
    if points.shape != (count, 3) or visible.shape != (count,) or instance.shape != (count,):
        raise FormatError(
            "The tensors of a trajectory file do not fit each other.",
            where=where,
            expected="(N, 3), (N,), (N,)",
            found=(points.shape, visible.shape, instance.shape),
        )
    whole = instance.astype(np.float64)
    if not (np.isfinite(whole).all() and (whole >= 0).all() and (whole == np.round(whole)).all()):
        raise FormatError("Instance ids are not whole numbers.", where=f"{where}: instances")
    return Vertices(points.astype(np.float32), visible.astype(bool), whole.astype(np.uint32))


def _check_zip(data: bytes, where: str) -> None:
    """Refuse archives whose content is larger than the file: torch stores tensors uncompressed."""
    try:
        if not data.startswith(b"PK"):
            raise ValueError("the file does not begin as one")  # torch would go on with its older forms
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as err:
        raise FormatError(
            "A trajectory file is cut off or of another form.",
            where=where,
            expected="a zip archive",
            found=err,
        ) from err
    if total > len(data):
        raise FormatError(
            "A trajectory file is compressed.",
            where=where,
            expected=f"{len(data)} bytes",
            found=f"{total} bytes",
        )


def _tensor(content: object, name: str, where: str) -> NDArray[np.generic]:
    import torch

    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise FormatError("A tensor is missing.", where=where, expected=name, found=type(value).__name__)
    stored = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > stored or value.is_complex() or value.is_quantized:
        raise FormatError(
            "A tensor is larger than what is stored of it, or of an odd type.",
            where=f"{where}: {name}",
            expected=f"at most {stored} bytes",
            found=f"{tuple(value.shape)} {value.dtype}",
        )
    array: NDArray[np.generic] = (
        value.detach().to(torch.float32 if value.is_floating_point() else value.dtype).numpy()
    )
    return array


def states(row: Row, vertices: Vertices) -> NDArray[np.uint8]:
    """Tell each vertex' state in the left view.

    The flag tells occlusion only, so what projects outside the picture is outside whatever it says.

    Args:
        row: The left frame.
        vertices: At that frame.

    Returns:
        (N,) `Visibility`.
    """
    uv, z = project(row, vertices.points_world)
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 0) & (uv <= row.size)).all(axis=1) & (z > 0)
    seen = np.where(vertices.is_visible, Visibility.VISIBLE, Visibility.OCCLUDED)
    return np.where(inside, seen, Visibility.OUTSIDE).astype(np.uint8)


def project(row: Row, points_world: NDArray[np.float32]) -> tuple[Float, Float]:
    """Project world points into a frame: (N, 2) px, NaN behind it, and (N,) z."""
    cam = g.transform_points(g.invert_rigid(row.world_from_cam), points_world.astype(np.float64))
    return g.project_points(cam, row.intrinsics)


def depth_gap(row: Row, vertices: Vertices, z_depth: NDArray[np.float32]) -> float:
    """Compare depth with the visible vertices: median |z - depth| / z; NaN where nothing can be compared.

    A vertex is compared with the pixel it falls on and passes with the best of its neighbours: most lie on edges.
    """
    uv, z = project(row, vertices.points_world)
    width, height = row.size
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 1) & (uv < np.array([width - 1, height - 1]))).all(axis=1) & (z > 0)
    use = np.flatnonzero(inside & vertices.is_visible)
    col, row_at = np.floor(uv[use]).astype(np.int64).T
    best = np.full(len(use), np.inf)
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            gap = np.abs(z_depth[row_at + dv, col + du] - z[use]) / z[use]
            best = np.fmin(best, gap)
    known = np.isfinite(best)
    return float(np.median(best[known])) if known.any() else float("nan")


def follow(
    files: Iterator[tuple[Row, Vertices]], count: int, where: str
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint32]]:
    """Stack the files of a sequence.

    Args:
        files: The left frames in order, with their vertices.
        count: Their number T.
        where: For errors.

    Returns:
        points_world (N, T, 3), state (N, T) and instance (N,).

    Raises:
        ConventionError: The number of vertices or their instances change.
    """
    points: NDArray[np.float32] | None = None
    for t, (row, vertices) in enumerate(files):
        if points is None:
            num = len(vertices.points_world)
            points, state = np.empty((num, count, 3), np.float32), np.empty((num, count), np.uint8)
            instance = vertices.instance
        if len(vertices.instance) != len(instance) or (vertices.instance != instance).any():
            raise ConventionError(
                "Vertices change within a sequence.",
                where=f"{where}, frame {row.number}",
                expected=f"the {len(instance)} of its first frame",
                found=len(vertices.instance),
            )
        points[:, t], state[:, t] = vertices.points_world, states(row, vertices)
    assert points is not None  # callers have at least one frame
    points[~np.isfinite(points).all(axis=-1)] = np.nan
    return points, state, instance
