"""What the stream takes from shard sets: a census for the order, and shares of what they hold for the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError

from .clip import ClipReader, supervision_name
from .order import Census


class ClipSet(ClipReader, Protocol):
    """A set of clips that can be streamed; `datakit.shards.ShardSet` is one."""

    @property
    def manifest_sha256(self) -> str:
        """Hash that stands for all of its content."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Index columns over its C clips; see `docs/shards.md`."""

    def names_of(self, column: str) -> list[str]:
        """What the codes of a column stand for."""


Source = str | Path | ClipSet


def as_list(sources: Source | Sequence[Source]) -> list[Source]:
    """Take one source or several.

    Raises:
        UsageError: There are none.
    """
    many: list[Any] = list(sources) if isinstance(sources, list | tuple) else [sources]
    if not many:
        raise UsageError("There are no shard sets to stream")
    return many


def open_sources(sources: Sequence[Source]) -> list[ClipSet]:
    """Open shard sets by path or URL; sets that are open already pass through.

    Raises:
        ShardError: A manifest or index is damaged.
    """
    return [_open(source) for source in sources]


def _open(source: Any) -> ClipSet:
    if not isinstance(source, str | Path):
        opened: ClipSet = source
        return opened
    from datakit.shards import open_set

    return open_set(source)


def take_census(sets: Sequence[ClipSet]) -> Census:
    """Gather what the order must know of all clips."""
    datasets = sorted({name for each in sets for name in each.names_of("dataset")})
    rows: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("dataset", "set", "clip", "frames", "photos")
    }
    for at, each in enumerate(sets):
        own = np.array([datasets.index(name) for name in each.names_of("dataset")], np.int64)
        dataset = own[each.columns["dataset"]]
        photos = each.columns["time_kind"] == list(each.names_of("time_kind")).index("set")
        rows["dataset"].append(dataset)
        rows["set"].append(np.full(len(dataset), at, np.int64))
        rows["clip"].append(np.arange(len(dataset), dtype=np.int64))
        rows["frames"].append(np.asarray(each.columns["num_frames"], np.int64))
        rows["photos"].append(photos)
    dataset, set_index, clip_index, num_frames, is_unordered = (np.concatenate(row) for row in rows.values())
    return Census(
        manifests=tuple(each.manifest_sha256 for each in sets),
        datasets=tuple(datasets),
        dataset=dataset,
        set_index=set_index,
        clip_index=clip_index,
        num_frames=num_frames,
        is_unordered=is_unordered,
        overlaps=tuple(_overlaps(each) for each in sets),
    )


def _overlaps(each: ClipSet) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    columns = each.columns
    return (columns["overlap_bytes"], columns["overlap_offset"]) if "overlap_offset" in columns else None


def requested_shares(sets: Sequence[ClipSet], of_dataset: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Work out what shares of each licence, scale and supervision the mixture asks for.

    Args:
        sets: The shard sets.
        of_dataset: Dataset -> share. Within a dataset every clip is shown equally often.

    Returns:
        "dataset", "licence", "scale", "supervision" -> name -> share.
    """
    clips: dict[str, int] = {}
    counts: dict[str, dict[tuple[str, str], int]] = {name: {} for name in ("licence", "scale", "supervision")}
    for each in sets:
        datasets = np.array(each.names_of("dataset"))[each.columns["dataset"]].tolist()
        for label, values in _labels(each).items():
            for pair in zip(datasets, values, strict=True):
                counts[label][pair] = counts[label].get(pair, 0) + 1
        for dataset in datasets:
            clips[dataset] = clips.get(dataset, 0) + 1
    out: dict[str, dict[str, float]] = {"dataset": dict(of_dataset)}
    for label, pairs in counts.items():
        shares: dict[str, float] = {}
        for (dataset, value), count in sorted(pairs.items()):
            share = of_dataset.get(dataset, 0.0) * count / clips[dataset]
            shares[value] = shares.get(value, 0.0) + share
        out[label] = {value: share for value, share in shares.items() if share > 0}
    return out


def _labels(each: ClipSet) -> dict[str, list[str]]:
    columns = each.columns
    names = {name: each.names_of(name) for name in ("licence", "scale", "depth_kind")}
    depth = [names["depth_kind"][code] if code >= 0 else None for code in columns["depth_kind"].tolist()]
    motion = [[bit for bit in range(8) if mask >> bit & 1] for mask in columns["motion_kinds"].tolist()]
    return {
        "licence": [names["licence"][code] for code in columns["licence"].tolist()],
        "scale": [names["scale"][code] for code in columns["scale"].tolist()],
        "supervision": [supervision_name(*pair) for pair in zip(depth, motion, strict=True)],
    }
