"""What some batches of a stream are made of: numbers for `dvc metrics`, histograms for `dvc plots`."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .certificates import write_json, write_text

#: As of the contract (`schemas/scene.yaml`); depth of scenes without a known unit is kept apart.
SCALES = ("metric", "sfm", "unknown")
TIMES = ("t_src", "t_tgt", "t_cam")
#: Edges of bins; what lies beyond the first or the last one counts in the bin beside it.
AREA_EDGES = np.linspace(0, 1, 11)
LOG10_MOTION_EDGES = np.arange(-5, 1.5, 0.5)
LOG2_DEPTH_EDGES = np.arange(-4.0, 13.0)
#: Ways shorter than this, in distances from the camera, are rest: float32 noise.
_REST = 1e-6


class Statistics:
    """Counts over the batches of a run.

    Args:
        clip_frames: T.

    Attributes:
        ledger: The stream's own account, as JSON-able data.
        seconds: Time that the batches after the first took.
        timed_clips: Clips in those.
        strides: Source frames per clip frame -> clips; of clips with an order in time and more than one frame.
        area: Clips by share of the area kept.
        times: (3, T) queries by frame, for t_src, t_tgt, t_cam.
        motion: Known displacements that are not rest, by log10 of their length over the distance.
        resting: Known displacements that are rest.
        depth: Scale -> known targets by log2 of their depth in the target camera.
    """

    def __init__(self, clip_frames: int) -> None:
        self.clip_frames = clip_frames
        self.ledger: dict[str, Any] = {}
        self.seconds, self.timed_clips = 0.0, 0
        self.strides: Counter[int] = Counter()
        self.area = np.zeros(len(AREA_EDGES) - 1, np.int64)
        self.times = np.zeros((len(TIMES), clip_frames), np.int64)
        self.motion = np.zeros(len(LOG10_MOTION_EDGES) - 1, np.int64)
        self.resting = 0
        self.depth = {scale: np.zeros(len(LOG2_DEPTH_EDGES) - 1, np.int64) for scale in SCALES}

    def metrics(self) -> dict[str, Any]:
        """Return what `dvc metrics show` is to show."""
        shares = self.ledger["shares"]
        return {
            "clips_per_s": round(self.timed_clips / self.seconds, 3) if self.seconds > 0 else 0.0,
            "samples": self.ledger["samples"],
            "failures": {reason: entry["count"] for reason, entry in self.ledger["failures"].items()},
            "clips_by_times_shown": self.ledger["repeats"],
            "shares": {
                kind: {name or "none": _known(entry) for name, entry in names.items()}
                for kind, names in shares.items()
            },
            "known_targets_at_rest": self.resting / max(self.resting + int(self.motion.sum()), 1),
            "queries": {name: _of_queries(entry) for name, entry in self.ledger["queries"].items()},
        }

    def tables(self) -> dict[str, list[list[Any]]]:
        """Return file name -> rows of a CSV, the first one its head."""
        strides = list(range(1, max(self.strides, default=1) + 1))
        times = {name: _shares(counts) for name, counts in zip(TIMES, self.times, strict=True)}
        depth = {scale: _shares(counts) for scale, counts in self.depth.items()}
        return {
            "stride.csv": _table(stride=strides, share=_shares([self.strides[each] for each in strides])),
            "crop_area.csv": _table(area=_centres(AREA_EDGES), share=_shares(self.area)),
            "query_times.csv": _table(frame=list(range(self.clip_frames)), **times),
            "motion.csv": _table(log10_motion=_centres(LOG10_MOTION_EDGES), share=_shares(self.motion)),
            "depth.csv": _table(log2_depth=_centres(LOG2_DEPTH_EDGES), **depth),
        }


def _known(entry: Mapping[str, Any]) -> dict[str, float]:
    """Pick the shares that there are from the ledger's account of a name; not everything is asked for."""
    return {part: entry[part] for part in ("requested", "delivered") if entry[part] is not None}


def _of_queries(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Pick from the ledger's account of a dataset's queries."""
    boundary = {f"near_{kind}_boundary": entry[f"near_{kind}_boundary"] for kind in ("depth", "motion")}
    return {
        "number": entry["queries"],
        "t_tgt_is_t_cam": entry["t_tgt_is_t_cam"],
        "near_a_boundary": sum(boundary.values()),
        **boundary,
        "known": entry["known"],
        "visibility": entry["visibility"],
    }


def measure(
    sets: Sequence[str], mixture: Mapping[str, float] | None, *, steps: int, **options: Any
) -> Statistics:
    """Stream some batches and count.

    Args:
        sets: Shard sets, folders or URLs.
        mixture: As of `datakit.stream.stream`.
        steps: Batches.
        **options: Of `datakit.stream.stream`.

    Raises:
        UsageError: An option does not fit.
        ShardError: More clips than the failure budget allows cannot be read.
    """
    from datakit.stream import AugmentParams, ClipParams, Order, stream
    from datakit.stream.sets import open_sources, take_census

    opened = open_sources(list(sets))
    frames = options["clip_frames"]
    clip = ClipParams(frames, options["size"], options["num_queries"], options["sampler"], AugmentParams())
    # The order is a pure function: how a clip was cropped can be looked up beside the batch.
    order = Order(take_census(opened), mixture, options["seed"], options["batch_size"], clip)
    found = Statistics(frames)
    with stream(opened, mixture, num_steps=steps, **options) as run:
        start = time.perf_counter()
        for step, batch in enumerate(run):
            if step == 0 and steps > 1:
                start = (
                    time.perf_counter()
                )  # the first one waits for processes to start and code to be compiled
            else:
                found.timed_clips += len(batch["meta"]["key"])
                found.seconds = time.perf_counter() - start
            samples = order.batch(step)
            areas = [samples[slot].look.area for slot in batch["meta"]["slot"].tolist()]
            found.area += _binned(areas, AREA_EDGES)
            _count(found, batch)
    found.ledger = run.ledger.to_json()
    return found


def write(found: Statistics, out: Path) -> None:
    """Write metrics.json, ledger.json and the histograms."""
    write_json(out / "metrics.json", found.metrics())
    write_json(out / "ledger.json", found.ledger)
    for name, rows in found.tables().items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_text(out / name, text.getvalue())


def _count(found: Statistics, batch: Mapping[str, Any]) -> None:
    for b in np.flatnonzero(batch["meta"]["valid"]):
        strides = np.diff(batch["meta"]["frame_indices"][b][batch["frame_mask"][b]])
        if len(set(strides.tolist())) == 1:  # photos of a set have no stride
            found.strides[int(strides[0])] += 1
        for at, name in enumerate(TIMES):
            found.times[at] += np.bincount(batch["query"][name][b], minlength=found.clip_frames)
        xyz = batch["target"]["xyz"][b]
        known = batch["mask"]["displacement"][b] & batch["mask"]["xyz"][b]
        moved = np.linalg.norm(batch["target"]["displacement"][b][known], axis=-1)
        moved /= np.linalg.norm(xyz[known], axis=-1)
        found.resting += int((moved < _REST).sum())
        found.motion += _binned(np.log10(moved[moved >= _REST]), LOG10_MOTION_EDGES)
        z = xyz[batch["mask"]["xyz"][b], 2]  # behind the target camera it is not depth
        found.depth[batch["meta"]["scale"][b]] += _binned(np.log2(z[z > 0]), LOG2_DEPTH_EDGES)


def _binned(values: Any, edges: NDArray[Any]) -> NDArray[np.int64]:
    within = np.clip(values, edges[0], edges[-1])
    return np.histogram(within, edges)[0].astype(np.int64)


def _centres(edges: NDArray[Any]) -> list[float]:
    return [round(float(centre), 4) for centre in (edges[1:] + edges[:-1]) / 2]


def _shares(counts: Any) -> list[float]:
    total = max(float(np.sum(counts)), 1.0)
    return [round(float(count) / total, 6) for count in counts]


def _table(**columns: list[Any]) -> list[list[Any]]:
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]
