"""The one unit of work: convert one scene. The same function runs here, in a process pool and on Ray."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datakit.errors import DatakitError
from datakit.scene import Provenance, write_scene

from .api import SceneRef
from .registry import load_converter, make_params


@dataclass(frozen=True)
class Task:
    """What a worker needs to convert one scene; plain data, so that it travels anywhere."""

    dataset: str
    raw: Path
    target: Path
    ref: SceneRef
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """Why a scene could not be converted.

    Attributes:
        scene: Scene id.
        kind: Name of the error's class.
        is_bug: True where it is not one of datakit's own errors: something nobody foresaw.
        what: Its first sentence.
        where: File, field or frame.
        expected: What a good input has there.
        found: What is there.
        mend: What the user can do.
        trace: Python traceback of a bug; "" for foreseen errors.
    """

    scene: str
    kind: str
    is_bug: bool
    what: str
    where: str | None = None
    expected: str | None = None
    found: str | None = None
    mend: str | None = None
    trace: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a task ended; `failure` is None when the scene is on disk."""

    scene: str
    num_bytes: int
    failure: Failure | None = None


def convert_scene(task: Task) -> Outcome:
    """Convert one scene and say how it went. Errors are returned as data, never raised.

    Args:
        task: The scene and where it goes.
    """
    ref = task.ref
    try:
        converter = load_converter(task.dataset)
        stream = converter.read(task.raw, ref, make_params(task.dataset, converter, task.params))
        # Stamped here, so that what `plan.is_there` compares cannot differ by a converter's slip.
        stamp = Provenance(task.dataset, converter.VERSION, dict(task.params), ref.fingerprint)
        stream.record = replace(stream.record, id=ref.id, split=ref.split, provenance=stamp)
        write_scene(task.target, stream)
    except DatakitError as error:
        return Outcome(ref.id, ref.num_bytes, typed_failure(ref.id, error))
    except Exception as error:  # a bug, a full disk, lack of memory: reported, never swallowed
        return Outcome(ref.id, ref.num_bytes, _unforeseen(ref.id, error))
    return Outcome(ref.id, ref.num_bytes)


def typed_failure(scene: str, error: DatakitError) -> Failure:
    """Return one of datakit's own errors as data."""
    return Failure(
        scene, type(error).__name__, False, error.what, error.where, error.expected, error.found, error.mend
    )


def _unforeseen(scene: str, error: Exception) -> Failure:
    trace = "".join(traceback.format_exception(error))
    return Failure(scene, type(error).__name__, True, str(error) or type(error).__name__, trace=trace)


def lost_worker(scene: str) -> Failure:
    """Return the failure of a scene whose worker process died without a word."""
    return Failure(
        scene,
        "WorkerDied",
        True,
        "The worker process that had this scene died",
        expected="a result",
        found="a dead process (killed, out of memory, or crashed in a library)",
        mend="run the same command with fewer --workers; finished scenes are kept",
    )
