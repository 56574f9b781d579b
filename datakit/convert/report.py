"""What a run did: for people, for scripts (`report.json`) and as an exit code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .plan import Plan
from .task import Failure

REPORT_NAME = "report.json"

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130

_SHOWN_FAILURES = 10


@dataclass(frozen=True)
class Report:
    """What a run did with each scene it was about. The four groups of ids are disjoint and complete.

    Attributes:
        plan: What it was about.
        converted: Ids of the scenes that this run wrote.
        already_there: Ids that were found finished.
        failed: One entry per scene that could not be converted.
        not_started: Ids left when the run stopped (failure budget, Ctrl-C, or a dry run).
        removed: Scene files that were deleted because the native tree does not have them.
        is_interrupted: Whether it was stopped from outside.
    """

    plan: Plan
    converted: tuple[str, ...]
    already_there: tuple[str, ...]
    failed: tuple[Failure, ...]
    not_started: tuple[str, ...]
    removed: tuple[str, ...] = ()
    is_interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: every scene is there; 1: some failed; 130: interrupted."""
        if self.is_interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FAILED if self.failed else EXIT_OK

    def as_dict(self) -> dict[str, Any]:
        """Return the state of the output folder after the run.

        It tells what is there and what is not, but not which run wrote it, nor when, nor where: a conversion
        that was killed and resumed ends with the same bytes here as one that was not.
        """
        there = {*self.converted, *self.already_there}
        failures = {failure.scene: failure for failure in self.failed}
        scenes: dict[str, Any] = {}
        for ref in self.plan.refs:
            row: dict[str, Any] = {"split": ref.split, "fingerprint": ref.fingerprint}
            if ref.id in there:
                row["status"] = "there"
            elif ref.id in failures:
                row |= {"status": "failed", "error": _plain_failure(failures[ref.id])}
            else:
                row["status"] = "not converted"
            scenes[ref.id] = row
        statuses = [row["status"] for row in scenes.values()]
        return {
            "dataset": self.plan.dataset,
            "converter_version": self.plan.version,
            "params": self.plan.params,
            "selection": asdict(self.plan.selection),
            "counts": {name: statuses.count(name) for name in ("there", "failed", "not converted")},
            "scenes": scenes,
        }

    def write(self) -> Path:
        """Write `report.json` into the output folder, atomically, and return its path."""
        path = self.plan.out / REPORT_NAME
        partial = path.with_name(path.name + ".partial")
        text = json.dumps(self.as_dict(), indent=2, sort_keys=True) + "\n"
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        return path

    def __str__(self) -> str:
        return "\n".join([*self._counts(), *self._failures(), *self._notes()])

    def _counts(self) -> list[str]:
        rows = [
            ("converted", len(self.converted)),
            ("already there", len(self.already_there)),
            ("failed", len(self.failed)),
            ("not started", len(self.not_started)),
        ]
        return [f"{self.plan.dataset}: {len(self.plan.refs)} scene(s) -> {self.plan.out}"] + [
            f"  {label:<14}{count:>7}" for label, count in rows if count or label == "converted"
        ]

    def _failures(self) -> list[str]:
        lines: list[str] = []
        for failure in self.failed[:_SHOWN_FAILURES]:
            lines.append(f"\n{failure.scene}: {failure.kind}: {failure.what}")
            for label in ("where", "expected", "found", "mend"):
                value = getattr(failure, label)
                if value is not None:
                    lines.append(f"  {'to mend' if label == 'mend' else label}: {value}")
            if failure.trace:
                lines += ["  this is a bug in the converter; please report it with:", failure.trace.rstrip()]
        hidden = len(self.failed) - _SHOWN_FAILURES
        if hidden > 0:
            lines.append(f"\nand {hidden} more in {REPORT_NAME}")
        return lines

    def _notes(self) -> list[str]:
        lines = []
        if self.removed:
            lines.append(f"removed, for the native tree does not have them: {', '.join(self.removed)}")
        kept = [name for name in self.plan.left_over if name not in self.removed]
        if kept:
            shown = ", ".join(kept[:5]) + (", ..." if len(kept) > 5 else "")
            lines.append(
                f"{len(kept)} file(s) here are not in the native tree: {shown} (--prune removes them)"
            )
        if self.is_interrupted:
            lines.append("interrupted; the same command goes on where it stopped")
        elif self.failed and self.not_started:
            broken = any(failure.kind == "WorkerDied" for failure in self.failed)
            why = "a worker died" if broken else "more failures than --max-failures"
            lines.append(f"stopped early ({why}); the same command goes on where it stopped")
        return lines


def _plain_failure(failure: Failure) -> dict[str, Any]:
    plain = {key: value for key, value in asdict(failure).items() if key != "scene"}
    plain["trace"] = failure.trace.splitlines()
    return plain
