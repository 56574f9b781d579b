"""Convert the scenes of a native tree: plan, run, resume, report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .lock import locked_folder
from .plan import SCENE_SUFFIX, Plan, Selection, check_folders, make_plan, remove_partials
from .pools import Pool, make_pool
from .registry import load_converter, make_params, plain_params
from .report import Report
from .task import Failure, Outcome, Task


def run(
    dataset: str,
    raw: str | Path,
    out: str | Path,
    *,
    scenes: str = "*",
    split: str | None = None,
    workers: int = 1,
    isolated: bool = False,
    limit: int | None = None,
    params: Mapping[str, Any] | None = None,
    ray: str | None = None,
    max_failures: int = 0,
    force: bool = False,
    prune: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> Report:
    """Convert native files into scene files, one per scene, and say what became of each.

    A scene that lies in `out` already, made from the same files (names and sizes) by the same converter
    version with the same parameters, is not touched. Everything else is converted and appears under its name
    only when it is whole; so a run that was stopped in any way goes on when it is called again.

    Args:
        dataset: Name of an installed converter.
        raw: Root of the native tree.
        out: Folder of `<scene id>.h5` and `report.json`; made if missing.
        scenes: Shell pattern over scene ids.
        split: Only this official split.
        workers: Scenes at a time; with 1 everything runs in this process. More start fresh processes, for
            which a script needs the usual `if __name__ == "__main__"`.
        isolated: Start a fresh process for 1 too. Then Ctrl-C always works at once, while in this process
            a library may swallow it.
        limit: At most so many scenes, the first in the converter's order.
        params: Parameters of the converter.
        ray: Address of a Ray cluster to run on instead, or "local".
        max_failures: Scenes that may fail before the run stops; those at work are still finished.
        force: Convert also what is already there.
        prune: Delete scene files that the native tree does not account for; only when no scene is left out
            by `scenes`, `split` or `limit`.
        dry_run: Only plan: nothing is written.
        progress: Show a progress bar on the error stream if that is a terminal.

    Returns:
        What was converted, already there, failed and why. Failures do not raise; see `Report.exit_code`.

    Raises:
        UsageError: Unknown dataset, split or parameter, overlapping folders, or another run holds `out`.
        LayoutError: `raw` is not this dataset.
    """
    converter = load_converter(dataset)
    parsed = make_params(dataset, converter, params)
    selection = Selection(scenes, split, limit)
    source, target = Path(raw).resolve(), Path(out).resolve()
    check_folders(source, target)

    def plan() -> Plan:
        return make_plan(
            dataset, converter, parsed, plain_params(parsed), source, target, selection, force=force
        )

    if dry_run:
        planned = plan()
        return _report(planned, [], ())
    # Planned once before anything is made, so that a mistyped command leaves no folder behind ...
    first = plan() if not target.exists() else None
    target.mkdir(parents=True, exist_ok=True)
    with locked_folder(target):
        remove_partials(target)
        planned = first or plan()  # ... and under the lock otherwise: another run may just have finished
        removed = _prune(planned) if prune else ()
        report = _run(planned, _Place(workers, isolated, ray), max_failures, progress, removed)
        report.write()
    return report


def _prune(plan: Plan) -> tuple[str, ...]:
    for name in plan.left_over:
        (plan.out / name).unlink(missing_ok=True)
    return plan.left_over


@dataclass(frozen=True)
class _Place:
    """Where the work is done; see `run`."""

    workers: int
    isolated: bool
    ray: str | None


def _run(plan: Plan, place: _Place, max_failures: int, progress: bool, removed: tuple[str, ...]) -> Report:
    todo = [ref for ref in plan.refs if ref.id in plan.todo]
    tasks = [
        Task(plan.dataset, plan.raw, plan.out / f"{ref.id}{SCENE_SUFFIX}", ref, plan.params) for ref in todo
    ]
    outcomes: list[Outcome] = []
    if not tasks:
        return _report(plan, outcomes, removed)
    with _progress(tasks, enabled=progress) as advance:
        pool = make_pool(len(tasks), place.workers, place.ray, place.isolated)
        finished = False
        try:
            for outcome in _drive(pool, tasks, max_failures):
                outcomes.append(outcome)
                advance(outcome)
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            pool.close(kill=not finished)
            remove_partials(plan.out)  # of workers that were killed here, or that died
    return _report(plan, outcomes, removed, is_interrupted=not finished)


def _drive(pool: Pool, tasks: list[Task], max_failures: int) -> Iterator[Outcome]:
    """Keep the pool full until the tasks or the failure budget run out, then let it run empty."""
    waiting = list(reversed(tasks))
    failures = 0
    while True:
        while waiting and failures <= max_failures and not pool.is_broken and pool.in_flight < pool.width:
            pool.submit(waiting.pop())
        if not pool.in_flight:
            return
        outcome = pool.next_outcome()
        failures += outcome.failure is not None
        yield outcome


def _report(
    plan: Plan, outcomes: list[Outcome], removed: tuple[str, ...], is_interrupted: bool = False
) -> Report:
    failures: dict[str, Failure] = {o.scene: o.failure for o in outcomes if o.failure is not None}
    converted = {o.scene for o in outcomes if o.failure is None}
    ids = [ref.id for ref in plan.refs]
    return Report(
        plan,
        tuple(i for i in ids if i in converted),
        tuple(i for i in ids if i not in plan.todo),
        tuple(failures[i] for i in ids if i in failures),
        tuple(i for i in ids if i in plan.todo and i not in converted and i not in failures),
        removed,
        is_interrupted,
    )


class _Advance:
    """Moves the bar by native bytes where the converter knows them, else by scenes."""

    def __init__(self, bar: Any, by_bytes: bool) -> None:
        self._bar, self._by_bytes, self._failures = bar, by_bytes, 0

    def __call__(self, outcome: Outcome) -> None:
        if outcome.failure is not None:
            self._failures += 1
            self._bar.set_postfix_str(f"{self._failures} failed", refresh=False)
        self._bar.update(outcome.num_bytes if self._by_bytes else 1)


@contextmanager
def _progress(tasks: list[Task], enabled: bool) -> Iterator[_Advance]:
    by_bytes = all(task.ref.num_bytes > 0 for task in tasks)
    bar = tqdm(
        total=sum(task.ref.num_bytes for task in tasks) if by_bytes else len(tasks),
        unit="B" if by_bytes else "scene",
        unit_scale=by_bytes,
        desc=tasks[0].dataset,
        file=sys.stderr,
        disable=not (enabled and sys.stderr.isatty()),
        dynamic_ncols=True,
    )
    with bar:
        yield _Advance(bar, by_bytes)
