"""The arrays of a batch: one table of fields, laid out in one block of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from datakit.queries import PATCH_SIZE

from .params import ClipParams

Arrays = dict[str, NDArray[Any]]
Field = tuple[tuple[int, ...], str]

#: Fields start at multiples of this.
_ALIGN = 64
#: Fields whose colours are innermost in memory.
PICTURES = ("video", "query/patch")
#: Target -> (name in a query record, its mask there).
TARGETS = {
    "xyz": ("xyz", "has_xyz"),
    "uv": ("target_uv", "has_uv"),
    "visible": ("visible", "has_visible"),
    "displacement": ("displacement", "has_displacement"),
    "normal": ("normal", "has_normal"),
}


def fields(params: ClipParams) -> dict[str, Field]:
    """Return name -> (shape, dtype) of one sample's arrays; "/" parts the groups of the batch."""
    frames, size, count = params.clip_frames, params.size, params.num_queries
    return {
        "video": ((frames, 3, size, size), "uint8"),
        "frame_mask": ((frames,), "bool"),
        "times": ((frames,), "float64"),
        "aspect_ratio": ((), "float32"),
        "query/uv": ((count, 2), "float32"),
        "query/t_src": ((count,), "int64"),
        "query/t_tgt": ((count,), "int64"),
        "query/t_cam": ((count,), "int64"),
        "query/kind": ((count,), "uint8"),
        "query/patch": ((count, 3, PATCH_SIZE, PATCH_SIZE), "uint8"),
        "target/xyz": ((count, 3), "float32"),
        "target/uv": ((count, 2), "float32"),
        "target/visible": ((count,), "bool"),
        "target/displacement": ((count, 3), "float32"),
        "target/normal": ((count, 3), "float32"),
        "mask/xyz": ((count,), "bool"),
        "mask/uv": ((count,), "bool"),
        "mask/visible": ((count,), "bool"),
        "mask/displacement": ((count,), "bool"),
        "mask/normal": ((count,), "bool"),
        "camera/intrinsics": ((frames, 3, 3), "float64"),
        "camera/world_from_cam": ((frames, 4, 4), "float64"),
        "camera/pose_is_known": ((frames,), "bool"),
        "meta/step": ((), "int64"),
        "meta/slot": ((), "int64"),
        "meta/valid": ((), "bool"),
        "meta/frame_indices": ((frames,), "int64"),
    }


def block_size(table: Mapping[str, Field], count: int) -> int:
    """Return the bytes that `count` samples take."""
    return sum(_span(count, *field) for field in table.values())


def lay_out(block: NDArray[np.uint8], table: Mapping[str, Field], count: int) -> Arrays:
    """Return name -> (count, ...) views into a block of `block_size` bytes.

    Pictures (..., 3, H, W) lie in memory as decoders write them, (..., H, W, 3).
    """
    out, at = {}, 0
    for name, (shape, dtype) in table.items():
        size = count * _bytes_of(shape, dtype)
        if name in PICTURES:
            shape = (*shape[:-3], *shape[-2:], shape[-3])
        array = block[at : at + size].view(dtype).reshape(count, *shape)
        out[name] = np.moveaxis(array, -1, -3) if name in PICTURES else array
        at += _span(count, shape, dtype)
    return out


def in_memory_order(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """View a field of one sample with its axes as they lie in memory."""
    return np.moveaxis(array, -3, -1) if name in PICTURES else array


def row_of(arrays: Mapping[str, NDArray[Any]], row: int) -> Arrays:
    """Return views of one sample's arrays; also of those that are single numbers."""
    return {name: array[row, ...] for name, array in arrays.items()}


def clear(row: Mapping[str, NDArray[Any]], num_frames: int = 0) -> None:
    """Make one sample empty: no frame, no known target.

    Masked targets are NaN as in `schemas/query.yaml`; the cameras of frames that are not there are identities, so
    that they can be inverted without care.

    Args:
        row: Arrays of the sample.
        num_frames: So many frames are about to be painted and may keep what is in their memory.
    """
    for name, array in row.items():
        (array[num_frames:] if name == "video" else array)[...] = np.nan if name in _NAN else 0
    row["camera/intrinsics"][...] = np.eye(3)
    row["camera/world_from_cam"][...] = np.eye(4)
    row["meta/frame_indices"][...] = -1


_NAN = ("target/xyz", "target/uv", "target/displacement", "target/normal")


def nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Turn "group/name" keys into groups."""
    out: dict[str, Any] = {}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        if rest:
            out.setdefault(group, {})[rest] = value
        else:
            out[name] = value
    return out


def _bytes_of(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _span(count: int, shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return -(-count * _bytes_of(shape, dtype) // _ALIGN) * _ALIGN
