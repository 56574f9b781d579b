"""The folder of an inference job: whose it is, and its finished windows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from datakit.convert.lock import LOCK_NAME
from datakit.errors import FormatError, UsageError

from .files import PARTIAL_SUFFIX, atomic_file, remove_partials
from .outputs import DENSE_FOLDER, OUTPUTS
from .store import load_result, save_result
from .window import WindowResult

JOB_VERSION = 1
JOB_FILE, REPORT_FILE, WINDOWS = "job.json", "report.json", "windows"


class WindowFolder(Sequence[WindowResult]):
    """The windows of a job on disk; each is read when it is asked for."""

    def __init__(self, folder: Path, spans: Sequence[tuple[int, int]], identity: str) -> None:
        self.folder, self.spans, self.identity = folder, spans, identity
        folder.mkdir(exist_ok=True)

    def path(self, number: int) -> Path:
        """Return where a window lies."""
        first, stop = self.spans[number]
        return self.folder / f"{number:05d}_{first:06d}-{stop - 1:06d}.npz"

    def find(self, number: int) -> WindowResult | None:
        """Return a finished window; None where it is missing, damaged, or of another job."""
        path = self.path(number)
        if not path.is_file():
            return None
        try:
            return load_result(path, WindowResult, self.identity)
        except FormatError:
            return None  # it is made again

    def save(self, number: int, result: WindowResult) -> None:
        """Keep a finished window."""
        save_result(self.path(number), result, self.identity)

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, number: int) -> WindowResult: ...

    @overload
    def __getitem__(self, number: slice) -> list[WindowResult]: ...

    def __getitem__(self, number: int | slice) -> WindowResult | list[WindowResult]:
        if isinstance(number, slice):
            return [self[k] for k in range(len(self))[number]]
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(number)
        found = self.find(number)
        if found is None:
            raise FormatError(
                "A window is missing or damaged", where=self.path(number), mend="run the same command again"
            )
        return found


def claim_folder(folder: Path, job: Mapping[str, Any], overwrite: bool) -> str:
    """Make the folder this job's, or find that it is already; return the job's hash.

    Args:
        folder: It exists and is held by this process.
        job: What the windows' bytes follow from, as plain data.
        overwrite: Delete another job's files.

    Raises:
        UsageError: Another job's files lie there, or other things.
        FormatError: The job file is damaged.
    """
    path = folder / JOB_FILE
    path.with_name(path.name + PARTIAL_SUFFIX).unlink(
        missing_ok=True
    )  # of a run that was killed at its start
    identity = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
    if path.is_file():
        found = _read_job(path)
        if found == job:
            remove_partials(folder)
            remove_partials(folder / WINDOWS)
            return identity
        if not overwrite:
            raise UsageError(
                "Another inference lies in this folder",
                where=folder,
                expected="the same source, model and parameters",
                found=f"{_difference(found, job)}",
                mend="choose another folder, or --overwrite",
            )
        _delete(folder)
    elif any(entry.name != LOCK_NAME for entry in folder.iterdir()):
        raise UsageError(
            "The folder holds other things", where=folder, expected="an empty folder, or one of an inference"
        )
    with atomic_file(path) as file:
        file.write((json.dumps(job, indent=2, sort_keys=True) + "\n").encode())
    return identity


def _read_job(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(
            "The job file is damaged", where=path, found=error, mend="choose another folder"
        ) from error
    if not isinstance(found, dict) or found.get("format") != "datakit-infer":
        raise FormatError("Not a job of datakit infer", where=path, mend="choose another folder")
    return found


def _difference(found: Mapping[str, Any], job: Mapping[str, Any], prefix: str = "") -> str:
    """Name the first field that differs."""
    for name in sorted({*found, *job}):
        old, new = found.get(name), job.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = _difference(old, new, f"{prefix}{name}.")
            if inner:
                return inner
        elif old != new:
            return f"{prefix}{name} was {old}, now {new}"
    return ""


def _delete(folder: Path) -> None:
    """Delete what a job writes, and nothing else."""
    for name in (*OUTPUTS.values(), DENSE_FOLDER, WINDOWS, REPORT_FILE, JOB_FILE):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_report(folder: Path, written: Mapping[str, Path], seams: Sequence[Mapping[str, Any]]) -> None:
    """Write what was made; without times, so that a job that went on has the same bytes as one in one go."""
    report = {
        "format": "datakit-infer-report",
        "version": JOB_VERSION,
        "outputs": {name: path.relative_to(folder).as_posix() for name, path in written.items()},
        "seams": list(seams),
    }
    with atomic_file(folder / REPORT_FILE) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())
