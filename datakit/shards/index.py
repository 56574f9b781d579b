"""The index of a set: where every member lies and what it must hash to, as flat columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from datakit.errors import ShardError
from datakit.motion import MotionKind

from .layout import DEPTH_KINDS, DIFFICULTY, KINDS, LEVELS, SCALES, TIME_KINDS

Columns = dict[str, NDArray[Any]]
Entry = Mapping[str, Any]
_DTYPES = {
    "I8": "<i1",
    "U8": "<u1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U64": "<u8",
    "F32": "<f4",
    "BOOL": "?",
}


def build_index(
    entries: Sequence[Entry], shard_of: Sequence[int], offset_of: Sequence[int]
) -> tuple[Columns, dict[str, list[str]]]:
    """Make the columns of an index.

    Args:
        entries: What `pack` noted of each clip, in order.
        shard_of: Shard number of each.
        offset_of: Where each clip begins in its shard.

    Returns:
        Columns over the C clips (`docs/shards.md` lists them), and the names that its code columns stand for.
    """
    names = {
        "dataset": sorted({e["dataset"] for e in entries}),
        "licence": sorted({e["licence"] for e in entries}),
        "scale": list(SCALES),
        "certificate": list(LEVELS),
        "time_kind": list(TIME_KINDS),
        "depth_kind": list(DEPTH_KINDS),
        "difficulty": list(DIFFICULTY),
        "member": list(KINDS),
    }
    offset, length, xxh3, sha256 = _member_columns(entries, offset_of)
    columns: Columns = {
        "shard": np.array(shard_of, np.int32),
        "num_frames": np.array([e["num_frames"] for e in entries], np.int32),
        "start_frame": np.array([e["start_frame"] for e in entries], np.int32),
        "dataset": _codes(entries, "dataset", names, np.int16),
        "licence": _codes(entries, "licence", names, np.int16),
        "scale": _codes(entries, "scale", names, np.int8),
        "certificate": _codes(entries, "certificate", names, np.int8),
        "time_kind": _codes(entries, "time_kind", names, np.int8),
        "depth_kind": _codes(entries, "depth_kind", names, np.int8),
        "motion_kinds": np.array([sum(1 << kind for kind in e["motion_kinds"]) for e in entries], np.uint8),
        "has_tracks": np.array([e["has_tracks"] for e in entries], bool),
        "difficulty": np.array([_difficulty(e) for e in entries], np.float32).reshape(-1, len(DIFFICULTY)),
        "member_offset": offset,
        "member_length": length,
        "member_xxh3": xxh3,
        "member_sha256": sha256,
        "scene_sha256": _digests(entries, "scene_sha256"),
        "certificate_sha256": _digests(entries, "certificate_sha256"),
    }
    overlaps = [bytes.fromhex(e["overlap"]) for e in entries]
    if any(overlaps):
        columns["overlap_bytes"] = np.frombuffer(b"".join(overlaps), np.uint8)
        columns["overlap_offset"] = np.cumsum([0, *map(len, overlaps)], dtype=np.int64)
    for name, texts in (("key", [e["key"] for e in entries]), ("scene", [e["scene"] for e in entries])):
        encoded = [text.encode("utf-8") for text in texts]
        columns[f"{name}_bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
        columns[f"{name}_offset"] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return columns, names


def _codes(entries: Sequence[Entry], field: str, names: Mapping[str, list[str]], dtype: Any) -> NDArray[Any]:
    code = {name: i for i, name in enumerate(names[field])}
    return np.array([code.get(e[field], -1) for e in entries], dtype)


def _difficulty(entry: Entry) -> list[float]:
    values = (entry["difficulty"][name] for name in DIFFICULTY)
    return [np.nan if value is None else value for value in values]


def _digests(entries: Sequence[Entry], field: str) -> NDArray[np.uint8]:
    raw = [bytes(32) if e[field] == "none" else bytes.fromhex(e[field]) for e in entries]
    return np.frombuffer(b"".join(raw), np.uint8).reshape(-1, 32)


def _member_columns(entries: Sequence[Entry], offset_of: Sequence[int]) -> tuple[NDArray[Any], ...]:
    shape = (len(entries), len(KINDS))
    offset, length = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    xxh3, sha256 = np.zeros(shape, np.uint64), np.zeros((*shape, 32), np.uint8)
    for i, (entry, base) in enumerate(zip(entries, offset_of, strict=True)):
        for kind, (start, size, short, long) in entry["members"].items():
            k = KINDS.index(kind)
            offset[i, k], length[i, k] = base + start, size
            xxh3[i, k] = np.uint64(int(short, 16))
            sha256[i, k] = np.frombuffer(bytes.fromhex(long), np.uint8)
    return offset, length, xxh3, sha256


def index_bytes(columns: Columns) -> bytes:
    """Serialise the columns as a safetensors file."""
    return bytes(safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in columns.items()}))


def columns_of(data: Any, where: str) -> Columns:
    """View the columns of a safetensors file without copying, so that a memory map stays one.

    Args:
        data: Its bytes: anything with the buffer interface.
        where: Its name in messages.

    Raises:
        ShardError: It is no index.
    """
    view = memoryview(data).cast("B")
    try:
        size = int.from_bytes(view[:8], "little")
        table = json.loads(bytes(view[8 : 8 + size]))
        table.pop("__metadata__", None)
        columns = {}
        for name, spec in table.items():
            first, last = (8 + size + at for at in spec["data_offsets"])
            flat = np.frombuffer(view[first:last], _DTYPES[spec["dtype"]])
            columns[name] = flat.reshape(spec["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(
            "Index cannot be read", where=where, expected="a safetensors file", found=error
        ) from error
    return columns


def text_at(columns: Columns, name: str, i: int) -> str:
    """Read a text column ("key" or "scene") of clip i."""
    first, last = columns[f"{name}_offset"][i : i + 2]
    return bytes(columns[f"{name}_bytes"][int(first) : int(last)]).decode("utf-8")


def motion_kind_names(mask: int) -> list[str]:
    """Name the kinds in an entry of the `motion_kinds` column.

    >>> motion_kind_names(0b110)
    ['static', 'rigid']
    """
    return [kind.name.lower() for kind in MotionKind if mask >> kind & 1]
