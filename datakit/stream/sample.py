"""Make one sample: the work of a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from datakit import queries
from datakit.errors import DatakitError, UsageError

from . import images
from .batch import TARGETS, clear, in_memory_order
from .clip import ClipReader, LoadedClip, Scratch, load_clip
from .order import Sample, generator
from .params import ClipParams

Row = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """What is to be said about a sample beside its arrays.

    Attributes:
        meta: key, dataset, scale, licence, certificate, supervision.
        counts: Name of a histogram -> integer counts, for the ledger.
        content: 128-bit hash of the queries, their patches and targets.
        error: Why there is no sample; None if there is one.
    """

    meta: dict[str, str]
    counts: dict[str, list[int]]
    content: int
    error: DatakitError | None = None


def make_sample(
    readers: Sequence[ClipReader], sample: Sample, params: ClipParams, row: Row, scratch: Scratch
) -> Outcome:
    """Fill one row of a batch.

    Args:
        readers: The shard sets.
        sample: From the order.
        params: What a sample is made of.
        row: Arrays of the row; all are written.
        scratch: Memory to use again.

    Returns:
        What came of it. A sample that cannot be read leaves the row empty and says why; it is never replaced.

    Raises:
        UsageError: The stream is set up wrongly; no other sample would fare better.
    """
    clear(row, len(sample.frames))
    row["meta/step"][...], row["meta/slot"][...] = sample.step, sample.slot
    row["meta/frame_indices"][: len(sample.frames)] = sample.frames
    try:
        return _fill(readers[sample.set_index], sample, params, row, scratch)
    except UsageError:
        raise
    except (DatakitError, OSError) as error:
        clear(row)
        row["meta/step"][...], row["meta/slot"][...] = sample.step, sample.slot
        return _failed(readers[sample.set_index], sample, error)


def _fill(reader: ClipReader, sample: Sample, params: ClipParams, row: Row, scratch: Scratch) -> Outcome:
    count = len(sample.frames)
    video = in_memory_order("video", row["video"])[:count]
    clip = load_clip(reader, sample, params, video=video, scratch=scratch)
    view = clip.view
    found = queries.sample(view, generator(sample.query_key), params.num_queries, params.sampler)
    if clip.recolouring is not None:
        found["patch"] = images.recolour_patches(found["patch"], clip.recolouring)
    for name in ("uv", "t_src", "t_tgt", "t_cam", "kind", "patch"):
        row[f"query/{name}"][...] = found[name]
    for name, (target, mask) in TARGETS.items():
        row[f"target/{name}"][...], row[f"mask/{name}"][...] = found[target], found[mask]
    row["frame_mask"][:count] = True
    row["times"][:count] = view.times
    row["aspect_ratio"][...] = view.aspect_ratio
    for name in ("intrinsics", "world_from_cam", "pose_is_known"):
        row[f"camera/{name}"][:count] = getattr(view, name)
    row["meta/valid"][...] = True
    return Outcome(_meta(clip), _counts(row, params.clip_frames), _content_hash(sample, row))


def _meta(clip: LoadedClip) -> dict[str, str]:
    header = clip.header
    return {
        "key": header["key"],
        "dataset": header["dataset"],
        "scale": header["scale"],
        "licence": header["licence"],
        "certificate": header["certificate_level"],
        "supervision": clip.supervision,
    }


def _failed(reader: ClipReader, sample: Sample, error: DatakitError | OSError) -> Outcome:
    if not isinstance(error, DatakitError):
        error = _as_shard_error(error)
    meta = dict.fromkeys(("scale", "licence", "certificate", "supervision"), "")
    meta |= {"key": reader.key(sample.clip_index), "dataset": sample.dataset}
    return Outcome(meta, {}, xxhash.xxh3_128_intdigest(sample.digest() + b"failed"), error)


def _as_shard_error(error: OSError) -> DatakitError:
    from datakit.errors import ShardError

    return ShardError("A shard cannot be read", where=error.filename, found=error)


def _counts(row: Row, clip_frames: int) -> dict[str, list[int]]:
    """Count what kinds of queries and truths a sample has; sums over samples make the ledger's histograms."""
    src, tgt, cam = (row[f"query/t_{name}"] for name in ("src", "tgt", "cam"))
    known, seen = row["mask/visible"], row["target/visible"]
    return {
        "kind": np.bincount(row["query/kind"], minlength=3).tolist(),
        "time_apart": np.bincount(np.abs(tgt - src), minlength=clip_frames).tolist(),
        "t_tgt_is_t_cam": [int((tgt == cam).sum())],
        "visibility": [int((~known).sum()), int((known & seen).sum()), int((known & ~seen).sum())],
        "known": [int(row[f"mask/{name}"].sum()) for name in TARGETS],
        "frames": [int(row["frame_mask"].sum())],
    }


def _content_hash(sample: Sample, row: Row) -> int:
    """Hash what the sample asks and answers, together with its place: sums of these do not depend on order."""
    content = xxhash.xxh3_128(sample.digest())
    for name, array in row.items():
        if name.split("/")[0] in ("query", "target", "mask"):
            content.update(in_memory_order(name, array).data)
    return content.intdigest()
