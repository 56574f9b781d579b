"""Pack scenes into a shard set."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from datakit.convert.lock import locked_folder
from datakit.errors import UsageError

from .index import Entry, build_index, index_bytes
from .layout import INDEX, MANIFEST, SCENES, canonical_json
from .manifest import manifest_bytes, parse_manifest
from .params import PackParams
from .plan import ChosenWindows, Plan, list_clips, make_plan
from .scenes import SceneFacts, look_at_scene
from .work import (
    OPEN_SCENE,
    WORK,
    Assembler,
    ClipTask,
    SetTask,
    prepare_work,
    read_note,
    read_set_note,
    run_set_task,
    run_task,
    write_whole,
)

In = TypeVar("In")
Out = TypeVar("Out")
#: Clips that may be made ahead of the one that is joined next, per worker.
_AHEAD = 4


@dataclass(frozen=True)
class PackReport:
    """What became of a call of `pack`.

    Attributes:
        out: Folder of the set.
        manifest_sha256: Stands for the whole set.
        num_scenes: Scenes in it.
        num_clips: Clips.
        num_frames: Frames.
        num_shards: Shards.
        num_bytes: Bytes of the shards.
        refused: (dataset/id, certificate level) of the scenes left out.
        views_left_out: dataset/id/view of the views without colour.
        num_made: Clips that this call encoded; the others lay there already.
        set_windows: (dataset/id/view, what told which photos to put together: "file", "pairs", "measured" or, where
            nothing did, "order") of the sets of photos that are longer than a window.
    """

    out: Path
    manifest_sha256: str
    num_scenes: int
    num_clips: int
    num_frames: int
    num_shards: int
    num_bytes: int
    refused: tuple[tuple[str, str], ...]
    views_left_out: tuple[str, ...]
    num_made: int
    set_windows: tuple[tuple[str, str], ...]


def pack(
    scenes: Iterable[str | Path],
    out: str | Path,
    *,
    certificates: str | Path | None = None,
    covisibility: str | Path | None = None,
    params: PackParams | None = None,
    workers: int = 1,
    max_refused: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> PackReport:
    """Cut scenes into clips and write them as a shard set.

    The bytes depend on the scenes, their certificates and covisibility files, and `params` only: not on the order of
    `scenes`, nor on `workers`, nor on being stopped in between. Shards and finished clips survive a kill, and the
    same call goes on from them; the set is complete once `manifest.json` is there, which is written last.

    Args:
        scenes: Scene files.
        out: Folder of the set; made if missing.
        certificates: Folder of `<scene>.certificate.json`; None for beside each scene.
        covisibility: Folder of `<scene>.covisibility.safetensors`, which are read for sets of photos; None for beside
            each scene. Where there is none it is measured, clip by clip (`PackParams.covisibility_points`), and once
            more on few points over the whole set where its windows have to be chosen and no list of pairs came
            with the photos.
        params: What to store and how.
        workers: Clips at a time; more than 1 start fresh processes, for which a script needs the usual
            `if __name__ == "__main__"`.
        max_refused: Scenes that may be left out because their certificate is missing or worse than
            `params.min_level`.
        overwrite: Replace another set that lies in `out`.
        progress: Show progress on the error stream if that is a terminal.

    Returns:
        What is in the set.

    Raises:
        UsageError: `out` holds another set or another run, a scene comes twice, or there is nothing to pack.
        QualityError: Too many scenes are refused, or a certificate belongs to another scene file.
        ConventionError: Covisibility was measured on another scene file.
        FormatError: A scene, certificate or covisibility file is damaged.
    """
    params = PackParams() if params is None else params
    if workers < 1:
        raise UsageError("There must be at least one worker", where="workers", found=workers)
    target = Path(out)
    certificate_folder = None if certificates is None else Path(certificates)
    covisibility_folder = None if covisibility is None else Path(covisibility)
    paths = [Path(path) for path in scenes]
    show = progress and sys.stderr.isatty()
    with _pool(workers) as run:
        looked = run(_look, [(path, certificate_folder, covisibility_folder) for path in paths])
        facts = list(tqdm(looked, total=len(paths), desc="hash", unit="scene", disable=not show))
        plan = make_plan(facts, params, max_refused)
        target.mkdir(parents=True, exist_ok=True)
        with locked_folder(target):
            if _is_done(target, plan, overwrite):
                shutil.rmtree(target / WORK, ignore_errors=True)  # a kill may have left it after the manifest
                return _report(target, plan, 0)
            num_made = _fill(target, plan, params, run, show)
    return _report(target, plan, num_made)


def _look(args: tuple[Path, Path | None, Path | None]) -> SceneFacts:
    return look_at_scene(*args)


def _is_done(out: Path, plan: Plan, overwrite: bool) -> bool:
    path = out / MANIFEST
    if not path.exists():
        return False
    if overwrite:
        path.unlink()  # first of all, so that no half-replaced set looks complete
        return False
    manifest = parse_manifest(path.read_bytes(), str(path))
    if manifest["plan_sha256"] != plan.sha256:
        raise UsageError(
            "The folder holds another shard set",
            where=out,
            expected=f"plan {plan.sha256}",
            found=manifest["plan_sha256"],
            mend="pack into another folder, or ask to overwrite (--overwrite)",
        )
    return True


def _fill(out: Path, plan: Plan, params: PackParams, run: _Run, show: bool) -> int:
    work = prepare_work(out, plan.sha256)
    chosen = _choose_windows(work, plan, params, run, show)
    clips = list_clips(plan, params, chosen)
    assembler = Assembler(out, work, params.shard_bytes)
    num_finished = assembler.num_finished()
    notes: list[Entry | None] = [read_note(work, i, i >= num_finished) for i in range(len(clips))]
    if None in notes[:num_finished]:  # someone removed notes: the shards they describe are made again
        assembler.shards.clear()
        num_finished, notes = 0, [read_note(work, i, True) for i in range(len(clips))]
    done = [note for note in notes[:num_finished] if note is not None]
    assembler.skip(done)
    tasks = [
        ClipTask(
            work,
            number,
            plan.scenes[i].path,
            window,
            plan.scenes[i].origin,
            params,
            plan.scenes[i].covisibility,
        )
        for number, (i, window) in enumerate(clips)
        if notes[number] is None
    ]
    made = run(run_task, tasks)
    with tqdm(total=len(notes), initial=num_finished, desc="pack", unit="clip", disable=not show) as bar:
        for number in range(num_finished, len(notes)):
            note = notes[number] or next(made)
            assembler.add(number, note)
            done.append(note)
            bar.update()
    assembler.finish()
    _write_tables(out, plan, params, chosen, assembler, done)
    shutil.rmtree(work)
    return len(tasks)


def _choose_windows(
    work: Path, plan: Plan, params: PackParams, run: _Run, show: bool
) -> dict[int, ChosenWindows]:
    """Choose the photos of each window, for sets longer than one; what an earlier run chose is taken over."""
    chosen = {i: read_set_note(work, i) for i, _ in plan.sets}
    tasks = [
        SetTask(
            work,
            i,
            plan.scenes[i].path,
            views,
            params,
            plan.scenes[i].covisibility,
            plan.scenes[i].origin.scene_sha256,
        )
        for i, views in plan.sets
        if chosen[i] is None
    ]
    made = tqdm(
        run(run_set_task, tasks), total=len(tasks), desc="sets", unit="scene", disable=not (show and tasks)
    )
    for task, note in zip(tasks, made, strict=True):
        chosen[task.number] = note
    return {i: note for i, note in chosen.items() if note is not None}


def _write_tables(
    out: Path,
    plan: Plan,
    params: PackParams,
    chosen: Mapping[int, ChosenWindows],
    assembler: Assembler,
    entries: Sequence[Entry],
) -> None:
    columns, names = build_index(entries, assembler.shard_of, assembler.offset_of)
    index = index_bytes(columns)
    scenes = b"".join(canonical_json(facts.summary) + b"\n" for facts in plan.scenes)
    write_whole(out / INDEX, index)
    write_whole(out / SCENES, scenes)
    content: dict[str, Any] = {
        "plan_sha256": plan.sha256,
        "params": params.to_dict(),
        "shards": assembler.shards,
        "index": _file_entry(INDEX, index),
        "scenes": _file_entry(SCENES, scenes),
        "names": names,
        "datasets": [_dataset_entry(name, entries) for name in names["dataset"]],
        "refused": [
            {"dataset": f.dataset, "id": f.id, "level": f.origin.certificate_level} for f in plan.refused
        ],
        "totals": {
            "scenes": len(plan.scenes),
            "clips": len(entries),
            "frames": sum(e["num_frames"] for e in entries),
            "bytes": sum(shard["size"] for shard in assembler.shards),
        },
    }
    if plan.sets:
        content["set_windows"] = [
            {
                "dataset": plan.scenes[i].dataset,
                "id": plan.scenes[i].id,
                "view": view,
                "by": chosen[i][view][0],
                "clips": len(chosen[i][view][1]),
            }
            for i, views in plan.sets
            for view in views
        ]
    write_whole(out / MANIFEST, manifest_bytes(content))


def _file_entry(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _dataset_entry(name: str, entries: Sequence[Entry]) -> dict[str, Any]:
    mine = [e for e in entries if e["dataset"] == name]
    return {
        "name": name,
        "clips": len(mine),
        "frames": sum(e["num_frames"] for e in mine),
        "licence": sorted({e["licence"] for e in mine}),
        "scale": sorted({e["scale"] for e in mine}),
    }


def _report(out: Path, plan: Plan, num_made: int) -> PackReport:
    manifest = parse_manifest((out / MANIFEST).read_bytes(), str(out / MANIFEST))
    totals = manifest["totals"]
    return PackReport(
        out=out,
        manifest_sha256=manifest["manifest_sha256"],
        num_scenes=totals["scenes"],
        num_clips=totals["clips"],
        num_frames=totals["frames"],
        num_shards=len(manifest["shards"]),
        num_bytes=totals["bytes"],
        refused=tuple((f"{f.dataset}/{f.id}", f.origin.certificate_level) for f in plan.refused),
        views_left_out=tuple(f"{f.dataset}/{f.id}/{view}" for f in plan.scenes for view in f.views_left_out),
        num_made=num_made,
        set_windows=tuple(
            (f"{entry['dataset']}/{entry['id']}/{entry['view']}", entry["by"])
            for entry in manifest.get("set_windows", ())
        ),
    )


_Run = Callable[[Callable[[In], Out], Sequence[In]], Iterator[Out]]


@contextmanager
def _pool(workers: int) -> Iterator[_Run[Any, Any]]:
    """Give a `map` that keeps the order and never runs far ahead of what is taken from it."""
    if workers == 1:
        try:
            yield lambda function, items: map(function, items)
        finally:
            OPEN_SCENE.close()
        return
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare_worker)

    def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        ahead: deque[Future[Any]] = deque()
        for item in items:
            ahead.append(executor.submit(function, item))
            if len(ahead) >= _AHEAD * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    try:
        yield run
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    import cv2

    cv2.setNumThreads(1)  # the pool is the parallelism


def _die_with(sentinel: Any) -> None:
    """End this worker when the process that started it is gone, even by kill -9."""
    connection.wait([sentinel])
    os._exit(1)
