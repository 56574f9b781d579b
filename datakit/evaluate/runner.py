"""Measure predictions clip by clip; what is measured is kept, so a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from datakit.errors import DatakitError, FormatError

from .aggregate import Rule
from .benchmarks import Benchmark, BenchmarkClip, Entry
from .predictions import Prediction, find_prediction, read_prediction

Status = Literal["measured", "missing", "failed", "no_truth"]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Protocol:
    """One way to measure a clip.

    Attributes:
        name: As it is asked for.
        benchmark: Of which verb argument.
        needs: Fields of `Prediction` that must be there.
        optional: Fields that are used if they are there.
        lacks: Says what a clip's truth lacks for this protocol; None where it has all.
        measure: Gives the numbers of a clip; NaN is undefined.
        settings: What is to be printed beside the numbers, by the names of `settings.settings` where it has one.
        averaging: From clips to the benchmark; see `aggregate.average`.
        columns: Metrics of the table, in order.
    """

    name: str
    benchmark: str
    needs: tuple[str, ...]
    measure: Callable[[BenchmarkClip, Prediction], Values]
    lacks: Callable[[BenchmarkClip], str | None]
    columns: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    averaging: Rule = "videos"


@dataclass(frozen=True)
class ClipResult:
    """What became of one clip.

    Attributes:
        clip: Its name.
        source: Its source.
        status: Whether it was measured by at least one protocol, and if not, why.
        values: Protocol -> metric -> number; NaN is undefined.
        reasons: Protocol (or "" for all) -> why it was not measured.
        facts: Frames, size, notes of the reader.
    """

    clip: str
    source: str
    status: Status
    values: Mapping[str, Values] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Kept:
    """Finished clips in a file, a line each, so that a run can go on. A torn last line is passed over.

    Args:
        path: The file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._found: dict[str, ClipResult] = {}
        for line in path.read_bytes().splitlines() if path is not None and path.is_file() else ():
            try:
                row = json.loads(line)
                self._found[row["id"]] = result_of_json(row["result"])
            except (ValueError, KeyError, TypeError):
                continue

    def find(self, identity: str) -> ClipResult | None:
        """Return what was measured before of this very clip, prediction and choice of protocols."""
        return self._found.get(identity)

    def add(self, identity: str, result: ClipResult) -> None:
        """Keep a result; it is on disk when this returns."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"id": identity, "result": result_to_json(result)}, sort_keys=True)
        with self.path.open("ab") as file:
            # A line of its own even after one that a kill tore: that one is passed over, this one is not.
            file.write((b"\n" if file.tell() else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def measure_benchmark(
    benchmark: Benchmark,
    predictions: Path,
    protocols: Sequence[Protocol],
    *,
    kept: Kept | None = None,
    predict: Callable[[Entry, Path], None] | None = None,
    progress: Callable[[ClipResult, bool], None] | None = None,
) -> list[ClipResult]:
    """Measure all clips of a benchmark, one at a time.

    Args:
        benchmark: The clips.
        predictions: Folder of predictions.
        protocols: How they are measured.
        kept: Where finished clips are kept.
        predict: Makes the prediction of a clip that has none, at the given path; None: it is missing.
        progress: Called after each clip with its result and whether it was kept from an earlier run.

    Returns:
        A result for each clip, in order; nothing is left out.
    """
    kept = kept or Kept(None)
    results = []
    for entry in benchmark.entries:
        path, result, was_kept = find_prediction(predictions, entry.name), None, False
        if path is None and predict is not None:
            path = predictions / f"{entry.name}.npz"
            result = _failed_prediction(entry, path, predict)
        if result is None:
            identity = _identity(entry, path, protocols, benchmark.settings)
            before = kept.find(identity)
            was_kept, result = before is not None, before or measure_entry(entry, path, protocols)
            if not was_kept and result.status != "missing":
                kept.add(identity, result)
        results.append(result)
        if progress is not None:
            progress(result, was_kept)
    return results


def _failed_prediction(entry: Entry, path: Path, predict: Callable[[Entry, Path], None]) -> ClipResult | None:
    """Make a prediction; return what became of the clip if that cannot be done."""
    try:
        predict(entry, path)
    except DatakitError as error:
        reasons = {"": f"no prediction can be made: {error}"}
        return ClipResult(entry.name, entry.source, "failed", reasons=reasons)
    return None


def measure_entry(entry: Entry, path: Path | None, protocols: Sequence[Protocol]) -> ClipResult:
    """Measure one clip by all protocols; what a file causes becomes a reason, not the end of the run."""
    if path is None:
        return ClipResult(entry.name, entry.source, "missing", reasons={"": "no prediction"})
    try:
        clip = entry.load()
    except DatakitError as error:
        return ClipResult(entry.name, entry.source, "failed", reasons={"": f"truth: {error}"})
    facts = {"num_frames": clip.num_frames, "size": list(clip.size), "notes": list(clip.notes)}
    lacking = {each.name: why for each in protocols if (why := each.lacks(clip)) is not None}
    able = [each for each in protocols if each.name not in lacking]
    if not able:
        return ClipResult(entry.name, entry.source, "no_truth", reasons=lacking, facts=facts)
    values: dict[str, Values] = {}
    failed: dict[str, str] = {}
    try:
        wanted = {name for each in able for name in (*each.needs, *each.optional)}
        prediction = read_prediction(path, clip, wanted)
        for each in able:
            try:
                values[each.name] = _measure(each, clip, prediction, path)
            except DatakitError as error:
                failed[each.name] = f"{type(error).__name__}: {error}"
    except DatakitError as error:
        failed[""] = f"{type(error).__name__}: {error}"
    return ClipResult(
        entry.name, entry.source, "failed" if failed else "measured", values, lacking | failed, facts
    )


def _measure(protocol: Protocol, clip: BenchmarkClip, prediction: Prediction, path: Path) -> Values:
    missing = [name for name in protocol.needs if getattr(prediction, name) is None]
    if missing:
        raise FormatError(
            "A prediction lacks what is measured",
            where=path,
            expected=", ".join(protocol.needs),
            found="no " + ", ".join(missing),
        )
    return {name: float(value) for name, value in protocol.measure(clip, prediction).items()}


def _identity(
    entry: Entry, path: Path | None, protocols: Iterable[Protocol], settings: Mapping[str, Any]
) -> str:
    content = {
        "clip": entry.name,
        "truth": [_stamp(file) for file in entry.files],
        "prediction": None if path is None else _stamp(path),
        "protocols": {each.name: each.settings for each in protocols},
        "settings": settings,
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _stamp(path: Path) -> list[Any]:
    """Path, size and time of a file; of a folder those of all files in it."""
    if path.is_dir():
        return [str(path), [_stamp(each) for each in sorted(path.iterdir()) if each.is_file()]]
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def code_version() -> str:
    """Return the installed version of datakit."""
    try:
        return version("datakit")
    except PackageNotFoundError:
        return "unknown"


def result_to_json(result: ClipResult) -> dict[str, Any]:
    """Return plain data: NaN becomes null, infinities "inf" and "-inf"."""
    plain = asdict(result)
    plain["values"] = {
        name: {metric: number_to_json(value) for metric, value in values.items()}
        for name, values in result.values.items()
    }
    return plain


def result_of_json(row: Mapping[str, Any]) -> ClipResult:
    """Read what `result_to_json` made."""
    values = {
        name: {metric: float("nan") if value is None else float(value) for metric, value in each.items()}
        for name, each in row["values"].items()
    }
    return ClipResult(row["clip"], row["source"], row["status"], values, row["reasons"], row["facts"])


def number_to_json(value: float) -> float | str | None:
    """Return a number as JSON can hold it."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)
