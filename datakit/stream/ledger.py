"""What the model really saw: shares asked for and delivered, repeats, queries, failures; one JSON file a rank."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError, UsageError

from .batch import TARGETS
from .order import Sample
from .sample import Outcome

LEDGER_VERSION = 1
#: What shares are kept of.
KINDS = ("dataset", "supervision", "licence", "scale", "certificate")
_CONTENT = 1 << 128


class Ledger:
    """Counts of one rank, or of several merged.

    Args:
        order: The order's identity.
        requested: Kind -> name -> share asked for.
        clips: Clips in each shard set.
    """

    def __init__(
        self, order: Mapping[str, Any], requested: Mapping[str, Mapping[str, float]], clips: Sequence[int]
    ) -> None:
        self.order = dict(order)
        self.requested = {kind: dict(shares) for kind, shares in requested.items()}
        self.delivered: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self.failures: dict[str, dict[str, Any]] = {}
        self.queries: dict[str, dict[str, list[int]]] = {}
        self.frames_by: dict[str, dict[str, int]] = {}
        self.spans: list[dict[str, int]] = []
        self.content = 0
        self.shown: list[NDArray[np.uint32]] = [np.zeros(count, np.uint32) for count in clips]

    @property
    def num_delivered(self) -> int:
        """Samples that reached the trainer."""
        return sum(self.delivered["dataset"].values())

    @property
    def num_failed(self) -> int:
        """Samples that could not be read."""
        return sum(entry["count"] for entry in self.failures.values())

    def add(self, sample: Sample, outcome: Outcome) -> None:
        """Count one sample that was handed out, or that failed."""
        self.content = (self.content + outcome.content) % _CONTENT
        if outcome.error is not None:
            reason = f"{type(outcome.error).__name__}: {outcome.error.what}"
            entry = self.failures.setdefault(reason, {"count": 0, "samples": []})
            entry["count"] += 1
            entry["samples"].append({"step": sample.step, "slot": sample.slot, "key": outcome.meta["key"]})
            return
        for kind in KINDS:
            name = outcome.meta[kind]
            self.delivered[kind][name] = self.delivered[kind].get(name, 0) + 1
        self.shown[sample.set_index][sample.clip_index] += 1
        chosen = self.frames_by.setdefault(sample.dataset, {})
        chosen[sample.frames_by] = chosen.get(sample.frames_by, 0) + 1
        mine = self.queries.setdefault(sample.dataset, {})
        for name, counts in outcome.counts.items():
            mine[name] = _add(mine.get(name, []), counts)

    def went(self, rank: int, world_size: int, step: int) -> None:
        """Note that a rank took part in a step."""
        last = self.spans[-1] if self.spans else None
        if last and (last["rank"], last["world_size"], last["stop"]) == (rank, world_size, step):
            last["stop"] = step + 1
        else:
            self.spans.append({"rank": rank, "world_size": world_size, "start": step, "stop": step + 1})

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON-able data; `of_json` reads it back."""
        total = max(self.num_delivered, 1)
        return {
            "ledger_version": LEDGER_VERSION,
            "order": self.order,
            "samples": {"delivered": self.num_delivered, "failed": self.num_failed},
            "shares": {
                kind: {
                    name: {
                        "requested": self.requested.get(kind, {}).get(name),
                        "delivered": counts.get(name, 0) / total,
                        "samples": counts.get(name, 0),
                    }
                    for name in sorted({*counts, *self.requested.get(kind, {})})
                }
                for kind, counts in self.delivered.items()
            },
            "repeats": _histogram(self.shown),
            "frames_by": {name: dict(sorted(how.items())) for name, how in sorted(self.frames_by.items())},
            "queries": {dataset: _named(counts) for dataset, counts in sorted(self.queries.items())},
            "failures": self.failures,
            "spans": self.spans,
            "content_hash": f"{self.content:032x}",
            "clip_counts": [_packed(counts) for counts in self.shown],
            "query_counts": self.queries,
        }

    @staticmethod
    def of_json(data: Mapping[str, Any], where: str = "ledger") -> Ledger:
        """Read what `to_json` gave.

        Raises:
            FormatError: It is no ledger of this version.
        """
        try:
            if data["ledger_version"] != LEDGER_VERSION:
                raise FormatError(
                    "Ledger of another version",
                    where=where,
                    expected=LEDGER_VERSION,
                    found=data["ledger_version"],
                )
            shares = data["shares"]
            ledger = Ledger(
                data["order"],
                {
                    kind: {n: e["requested"] for n, e in names.items() if e["requested"] is not None}
                    for kind, names in shares.items()
                },
                [],
            )
            ledger.delivered = {
                kind: {name: entry["samples"] for name, entry in names.items() if entry["samples"]}
                for kind, names in shares.items()
            }
            ledger.failures = {reason: dict(entry) for reason, entry in data["failures"].items()}
            ledger.queries = {name: dict(counts) for name, counts in data["query_counts"].items()}
            ledger.frames_by = {name: dict(how) for name, how in data.get("frames_by", {}).items()}
            ledger.spans = [dict(span) for span in data["spans"]]
            ledger.content = int(data["content_hash"], 16)
            ledger.shown = [_unpacked(text) for text in data["clip_counts"]]
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise FormatError("Not a ledger", where=where, found=repr(error)) from error
        return ledger

    def save(self, path: str | Path) -> None:
        """Write as JSON: beside the target first, then renamed."""
        target = Path(path)
        beside = target.with_name(target.name + ".partial")
        beside.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        beside.replace(target)

    @staticmethod
    def load(path: str | Path) -> Ledger:
        """Read a file that `save` wrote.

        Raises:
            FormatError: It is no ledger.
        """
        try:
            data = json.loads(Path(path).read_text())
        except ValueError as error:
            raise FormatError("Not a ledger", where=path, found=error) from error
        return Ledger.of_json(data, str(path))


def merge(ledgers: Iterable[Ledger]) -> Ledger:
    """Add up the ledgers of the ranks, or of the parts, of one run.

    Raises:
        UsageError: There is none, or they follow different orders.
    """
    many = list(ledgers)
    if not many:
        raise UsageError("There is no ledger to merge")
    out = Ledger(many[0].order, many[0].requested, [len(counts) for counts in many[0].shown])
    for ledger in many:
        if ledger.order != out.order:
            raise UsageError(
                "Ledgers of different orders cannot be added", found=_differing(out.order, ledger.order)
            )
        for kind, counts in ledger.delivered.items():
            for name, count in counts.items():
                out.delivered[kind][name] = out.delivered[kind].get(name, 0) + count
        for reason, entry in ledger.failures.items():
            mine = out.failures.setdefault(reason, {"count": 0, "samples": []})
            mine["count"] += entry["count"]
            mine["samples"] = sorted(mine["samples"] + entry["samples"], key=lambda s: (s["step"], s["slot"]))
        for dataset, named in ledger.queries.items():
            counts_of = out.queries.setdefault(dataset, {})
            for name, values in named.items():
                counts_of[name] = _add(counts_of.get(name, []), values)
        for dataset, chosen in ledger.frames_by.items():
            mine_by = out.frames_by.setdefault(dataset, {})
            for how, count in chosen.items():
                mine_by[how] = mine_by.get(how, 0) + count
        out.spans += ledger.spans
        out.content = (out.content + ledger.content) % _CONTENT
        out.shown = [mine + theirs for mine, theirs in zip(out.shown, ledger.shown, strict=True)]
    out.spans.sort(key=lambda span: (span["start"], span["rank"]))
    return out


def compare(a: Ledger, b: Ledger) -> dict[str, Any]:
    """Say how two ledgers differ.

    Returns:
        JSON-able: differing parts of the order, samples of both, for each kind and name whose delivered share differs
        both shares, failures that only one has, and whether the content is the same. Empty parts are left out.
    """
    shares: dict[str, Any] = {}
    one, two = a.to_json(), b.to_json()
    for kind in KINDS:
        both = {*one["shares"][kind], *two["shares"][kind]}
        pairs = {
            name: [side["shares"][kind].get(name, {}).get("delivered", 0.0) for side in (one, two)]
            for name in both
        }
        shares[kind] = {name: pair for name, pair in sorted(pairs.items()) if pair[0] != pair[1]}
    counts = {reason: [side.failures.get(reason, {}).get("count", 0) for side in (a, b)]
              for reason in sorted({*a.failures, *b.failures})}  # fmt: skip
    out = {
        "order": _differing(a.order, b.order),
        "samples": [one["samples"], two["samples"]] if one["samples"] != two["samples"] else None,
        "shares": {kind: names for kind, names in shares.items() if names},
        "repeats": [one["repeats"], two["repeats"]] if one["repeats"] != two["repeats"] else None,
        "failures": {reason: pair for reason, pair in counts.items() if pair[0] != pair[1]},
        "content": [one["content_hash"], two["content_hash"]] if a.content != b.content else None,
    }
    return {name: value for name, value in out.items() if value}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [a.get(name), b.get(name)] for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def _add(a: Sequence[int], b: Sequence[int]) -> list[int]:
    length = max(len(a), len(b))
    return [
        x + y for x, y in zip([*a, *[0] * (length - len(a))], [*b, *[0] * (length - len(b))], strict=True)
    ]


def _histogram(shown: Sequence[NDArray[np.uint32]]) -> dict[str, int]:
    """Times shown -> number of clips."""
    times, clips = np.unique(np.concatenate([*shown, np.zeros(0, np.uint32)]), return_counts=True)
    return {str(time): int(count) for time, count in zip(times, clips, strict=True)}


def _named(counts: Mapping[str, list[int]]) -> dict[str, Any]:
    """Turn summed counts into shares for people."""
    total = max(sum(counts["kind"]), 1)
    visibility = dict(zip(("unknown", "visible", "not_visible"), counts["visibility"], strict=True))
    return {
        "queries": sum(counts["kind"]),
        "near_depth_boundary": counts["kind"][1] / total,
        "near_motion_boundary": counts["kind"][2] / total,
        "t_tgt_is_t_cam": counts["t_tgt_is_t_cam"][0] / total,
        "visibility": {name: count / total for name, count in visibility.items()},
        "known": {name: count / total for name, count in zip(TARGETS, counts["known"], strict=True)},
        "frames": counts["frames"][0],
        "time_apart": counts["time_apart"],
    }


def _packed(counts: NDArray[np.uint32]) -> str:
    return base64.b64encode(zlib.compress(counts.astype("<u4").tobytes())).decode()


def _unpacked(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.uint32)
