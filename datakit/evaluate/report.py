"""What a run of `datakit evaluate` says: averages with all that they depend on, as a table, JSON and CSV."""

from __future__ import annotations

import csv
import inspect
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .aggregate import Average, Row, average
from .benchmarks import Benchmark
from .runner import ClipResult, Protocol, code_version, number_to_json, result_to_json
from .settings import settings as settings_of

FORMAT, VERSION = "datakit-evaluation", 1
#: The row that stands for the whole benchmark.
ALL = "all"
#: Ends the names of metrics as the official program has them.
_OFFICIAL = "_official"
_RULES = {
    "videos": "mean over clips",
    "sources": "mean over clips, then over sources",
    "pixels": "mean over clips weighted by their pixels",
}
#: Letters of a line of settings under a table.
_LINE = 100
_UNKNOWN_CHUNKS = "as the predictions were made; not known"


def summarise(
    benchmark: Benchmark,
    results: Sequence[ClipResult],
    protocols: Sequence[Protocol],
    settings: Mapping[str, Any] | None = None,
    chunking: str = _UNKNOWN_CHUNKS,
) -> dict[str, Any]:
    """Average over the clips of a benchmark, and count what has no number.

    Clips that are missing or failed are in no mean but counted; `official` has them as the official program does.

    Args:
        benchmark: The clips that were asked for.
        results: Of each clip.
        protocols: How they were measured.
        settings: More to print beside the numbers.
        chunking: How clips were cut for the model.

    Returns:
        Plain data for JSON; docs/evaluate.md describes it.
    """
    statuses = [result.status for result in results]
    counts = {name: statuses.count(name) for name in ("measured", "missing", "failed", "no_truth")}
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": benchmark.dataset,
        "counts": {"clips": len(results), **counts, "not_in_data": len(benchmark.missing)},
        "missing": [result.clip for result in results if result.status == "missing"],
        "not_in_data": list(benchmark.missing),
        "failed": {r.clip: dict(r.reasons) for r in results if r.status == "failed"},
        "no_truth": {r.clip: dict(r.reasons) for r in results if r.status == "no_truth"},
        "protocols": {each.name: _summary(each, results, chunking) for each in protocols},
        "settings": {"read": dict(benchmark.settings), "code": f"datakit {code_version()}"}
        | dict(settings or {}),
        "clips": [result_to_json(result) for result in results],
    }


def _summary(protocol: Protocol, results: Sequence[ClipResult], chunking: str) -> dict[str, Any]:
    name = protocol.name
    counted = [r for r in results if name in r.values or r.status == "missing" or _failed(r, name)]
    found = average(
        [Row(r.source, r.clip.partition("/")[2], r.values.get(name)) for r in counted], protocol.averaging
    )
    measured = [r for r in counted if name in r.values]
    sources = list(dict.fromkeys(r.source for r in measured))
    num_clips = {source: sum(r.source == source for r in measured) for source in sources}
    by_source = {source: found.by_source[source] for source in sources if source in found.by_source}
    out = {
        "values": {source: _plain(each) for source, each in (by_source | {ALL: found.values}).items()},
        "num_clips": {source: num_clips[source] for source in by_source} | {ALL: len(measured)},
        "undefined": found.undefined,
        "infinite": found.infinite,
        "settings": _settings(protocol, measured, found, chunking),
    }
    own = [metric for metric in found.values if not metric.endswith(_OFFICIAL)]
    out["official"] = {
        "rule": "what the official program prints: one undefined clip spoils a mean"
        + (
            ", a missing one counts 0"
            if protocol.averaging == "sources"
            else ", a missing one is passed over"
        ),
        # A metric of its own where the program departs from its documentation.
        "values": _plain(
            {metric: found.plain.get(metric + _OFFICIAL, found.plain[metric]) for metric in own}
        ),
    }
    return out


def _failed(result: ClipResult, protocol: str) -> bool:
    return result.status == "failed" and ("" in result.reasons or protocol in result.reasons)


def _settings(
    protocol: Protocol, measured: Sequence[ClipResult], found: Average, chunking: str
) -> dict[str, Any]:
    """All that numbers of this protocol depend on (`settings.settings`)."""
    known = set(inspect.signature(settings_of).parameters)
    given = {name: value for name, value in protocol.settings.items() if name in known}
    frames = [int(r.facts["num_frames"]) for r in measured]
    return settings_of(
        metric=protocol.name,
        averaging=_RULES[protocol.averaging] + "; undefined left out and counted",
        num_frames=(min(frames), max(frames)) if frames else None,
        chunking=chunking,
        result=found,
        extra={name: value for name, value in protocol.settings.items() if name not in known},
        **given,
    )


def _plain(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: number_to_json(value) for name, value in values.items()}


def metrics_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers alone, nested as `dvc metrics show` reads them; undefined ones are left out."""
    out: dict[str, Any] = {"counts": dict(summary["counts"])}
    for name, each in summary["protocols"].items():
        out[name] = {
            source: {metric: value for metric, value in values.items() if isinstance(value, int | float)}
            for source, values in each["values"].items()
        }
    return out


def csv_of(results: Iterable[ClipResult]) -> str:
    """Return a row for each clip, protocol and metric; undefined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("clip", "source", "status", "protocol", "metric", "value"))
    for result in results:
        rows = [
            (name, metric, value) for name, each in result.values.items() for metric, value in each.items()
        ]
        for name, metric, value in rows or [("", "", math.nan)]:
            shown = "" if math.isnan(value) else repr(value)
            writer.writerow((result.clip, result.source, result.status, name, metric, shown))
    return text.getvalue()


def table_of(summary: Mapping[str, Any], protocols: Sequence[Protocol]) -> str:
    """Return the averages as text: a block for each protocol, with its settings under it."""
    blocks = [_counts_line(summary)]
    for protocol in protocols:
        part = summary["protocols"][protocol.name]
        columns = [name for name in protocol.columns if name in part["values"].get(ALL, {})]
        rows = [["source", "clips", *columns]]
        for source, values in part["values"].items():
            rows.append([source, str(part["num_clips"][source]), *(_shown(values[name]) for name in columns)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        said = {key: value for key, value in part["settings"].items() if not key.startswith("clips")}
        said.pop("metric")  # the block's title
        text = "; ".join(f"{key}: {value}" for key, value in said.items() if value is not None)
        notes = textwrap.wrap(text, _LINE)
        for kind in ("undefined", "infinite"):
            counts = {metric: count for metric, count in part[kind].items() if metric in columns}
            if counts:
                notes.append(f"{kind}: " + ", ".join(f"{n} in {c} clip(s)" for n, c in counts.items()))
        blocks.append(
            "\n".join([protocol.name, *(f"  {line}" for line in lines), *(f"    {note}" for note in notes)])
        )
    return "\n\n".join(blocks)


def _counts_line(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    parts = [f"{counts['measured']} of {counts['clips']} clips measured"]
    for name in ("missing", "failed", "no_truth"):
        if counts[name]:
            names = summary[name]
            some = ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "")
            parts.append(f"{counts[name]} {name.replace('_', ' ')} ({some})")
    if counts["not_in_data"]:
        parts.append(f"{counts['not_in_data']} of the list are not in the data")
    return "; ".join(parts)


def _shown(value: Any) -> str:
    return "undefined" if value is None else value if isinstance(value, str) else f"{value:.4g}"
