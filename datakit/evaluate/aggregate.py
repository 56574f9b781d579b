"""From clips to a benchmark: whose mean is whose, and how many clips have no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from datakit.errors import UsageError

Rule = Literal["videos", "sources", "pixels"]
#: Names with this start are counts: they are summed, not averaged.
_COUNT = "num_"


@dataclass(frozen=True)
class Row:
    """One clip's scores.

    Attributes:
        source: The clip's part of the benchmark.
        clip: Its name.
        values: Name -> score; NaN is undefined. None: there is no prediction, or it cannot be read.
    """

    source: str
    clip: str
    values: Mapping[str, float] | None


@dataclass(frozen=True)
class Average:
    """Scores of a benchmark.

    Attributes:
        values: Name -> mean over the clips that have a value; NaN if none has. Counts (`num_...`) are summed.
        plain: Name -> what the plain mean of the official scripts gives: NaN if one clip is undefined, and with
            `sources` a missing clip is 0.
        undefined: Name -> number of clips without a value, where there are any.
        infinite: Name -> number of clips with an infinite error (something was not answered), where there are any.
        clips: Number of clips, missing ones among them.
        missing: Clips without a prediction.
        by_source: Source -> name -> mean.
    """

    values: dict[str, float]
    plain: dict[str, float]
    undefined: dict[str, int]
    infinite: dict[str, int]
    clips: int
    missing: tuple[str, ...]
    by_source: dict[str, dict[str, float]] = field(default_factory=dict)


def average(rows: Sequence[Row], rule: Rule = "videos", weight: str = "num_valid") -> Average:
    """Average clips.

    Args:
        rows: One for each clip of the benchmark, also those without a prediction.
        rule: `videos`, all clips alike; `sources`, the mean of each source, then of sources (TAPVid-3D,
            metrics.py:115-129, 264-284 of evaluate_model.py); `pixels`, clips weighted by `weight` (CUT3R 8bc15dc,
            eval_depth.py:160-169). A protocol of `frames` has averaged those within its clip already.
        weight: Name of the weights in `values`.

    Raises:
        UsageError: The rule is unknown, or a clip has no weight.
    """
    if rule not in get_args(Rule):
        raise UsageError(
            "Unknown averaging rule", where="rule", expected=", ".join(get_args(Rule)), found=rule
        )
    there = [row for row in rows if row.values is not None]
    names = list(dict.fromkeys(name for row in there for name in row.values or {}))
    sources = list(dict.fromkeys(row.source for row in rows))
    by_source = {
        source: {name: _known_mean(_column(there, name, source), None) for name in names}
        for source in sources
    }
    values, plain, undefined, infinite = {}, {}, {}, {}
    for name in names:
        column = _column(there, name)
        undefined[name] = int(np.isnan(column).sum())
        infinite[name] = int(np.isinf(column).sum())
        if name.startswith(_COUNT):
            values[name] = plain[name] = float(np.nansum(column))
        elif rule == "sources":
            values[name] = _known_mean(np.array([by_source[source][name] for source in sources]), None)
            plain[name] = float(
                np.mean([np.mean(_column(rows, name, source, missing=0.0)) for source in sources])
            )
        else:
            weights = _weights(there, weight) if rule == "pixels" else np.ones(len(there))
            values[name] = _known_mean(column, weights)
            plain[name] = _plain_mean(column, weights)
    return Average(
        values,
        plain,
        {name: count for name, count in undefined.items() if count},
        {name: count for name, count in infinite.items() if count},
        len(rows),
        tuple(f"{row.source}/{row.clip}" for row in rows if row.values is None),
        by_source if len(sources) > 1 else {},
    )


def _column(
    rows: Sequence[Row], name: str, source: str | None = None, missing: float = float("nan")
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    chosen = [row for row in rows if source is None or row.source == source]
    return np.array(
        [missing if row.values is None else row.values.get(name, float("nan")) for row in chosen], np.float64
    )


def _weights(rows: Sequence[Row], weight: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    lacking = next((row for row in rows if row.values is None or weight not in row.values), None)
    if lacking is not None:
        raise UsageError(
            "A clip has no weight",
            where=f"{lacking.source}/{lacking.clip}",
            expected=weight,
            found=lacking.values,
        )
    return _column(rows, weight)


def _known_mean(
    column: np.ndarray[tuple[int], np.dtype[np.float64]],
    weights: np.ndarray[tuple[int], np.dtype[np.float64]] | None,
) -> float:
    known = ~np.isnan(column)
    return _plain_mean(column[known], np.ones(int(known.sum())) if weights is None else weights[known])


def _plain_mean(
    column: np.ndarray[tuple[int], np.dtype[np.float64]],
    weights: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    total = float(weights.sum())
    used = weights > 0
    return float((column[used] * weights[used]).sum()) / total if total > 0 else float("nan")
