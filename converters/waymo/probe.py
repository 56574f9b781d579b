"""The doctor: which release a tree holds, and what is missing or cut off."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from converters.native.tfrecord import walk_records
from datakit.convert.api import Probe, Problem, SceneRef
from datakit.errors import DatakitError

from . import v1, v2
from .card import NAME, SUPERVISION
from .discover import scenes

_MEND = "Download the segment again."


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: every record's header and length, the first record of each segment (v1); every component's presence
        and its table's footer (v2).
    """
    problems: list[Problem] = []
    forms: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    num_bytes = 0
    try:
        for ref in scenes(root):
            forms[ref.location["form"]] += 1
            splits[ref.split] += 1
            num_bytes += ref.num_bytes
            try:
                problems += _look_v1(root, ref) if ref.location["form"] == "v1" else _look_v2(root, ref)
            except (DatakitError, OSError) as err:
                problems.append(Problem("error", ref.id, str(err), _MEND))
    except (DatakitError, OSError) as err:
        problems.append(Problem("error", str(root), str(err)))
    return Probe(
        dataset=NAME,
        variant=", ".join(f"{form} ({num} segments)" for form, num in sorted(forms.items())) or "none",
        num_scenes=dict(splits),
        num_bytes=num_bytes,
        supervision=SUPERVISION,
        problems=tuple(problems),
    )


def _look_v1(root: Path, ref: SceneRef) -> list[Problem]:
    path = root / ref.location["path"]
    num_records = sum(1 for _ in walk_records(path))
    if not num_records:
        return [Problem("error", str(path), "the file has no records", _MEND)]
    frame, where, _ = next(v1.frames(path, check_crc=True))
    head, constant = v1.head(frame, where), v1.calibration(frame, where)
    found = []
    for what, there in (("pictures", head.images), ("lidars", constant.lasers), ("labels", head.objects)):
        if not there:
            found.append(Problem("warning", where, f"the first frame has no {what}"))
    if head.objects and all(label.synced_box is None for label in head.objects):
        found.append(
            Problem("warning", where, "no camera-synced boxes (files before v1.3.1); boxes are interpolated")
        )
    return found


def _look_v2(root: Path, ref: SceneRef) -> list[Problem]:
    tables = v2.open_tables(root, Path(ref.location["path"]), ref.location["context"])
    missing = [name for name in v2.OPTIONAL if name not in tables.paths]
    for component in tables.paths:
        v2.count_rows(tables, component)
    return [
        Problem("warning", tables.where, f"component {name} is missing", "Download it for depth and motion.")
        for name in missing
    ]
