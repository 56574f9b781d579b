"""The doctor: which layout a tree has, and which files of its sequences are missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from datakit.convert.api import Probe, Problem, SceneRef
from datakit.errors import DatakitError

from .annotations import EYES
from .card import NAME, SUPERVISION
from .discover import annotation_files, scenes

_FOLDERS = ("images", "depths", "instance_id_maps", "flow_forward", "flow_backward")


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: annotation files, and that each sequence's folders hold as many files as it has pictures.
    """
    problems: list[Problem] = []
    splits: Counter[str] = Counter()
    layouts: set[str] = set()
    num_bytes = 0
    try:
        layouts = {"flat" if file.parent == Path() else "split folders" for file in annotation_files(root)}
        for ref in scenes(root):
            splits[ref.split] += 1
            num_bytes += ref.num_bytes
            problems += _look(root, ref)
    except (DatakitError, OSError) as err:
        problems.append(Problem("error", str(root), str(err)))
    return Probe(
        dataset=NAME,
        variant=" and ".join(sorted(layouts)) or "none",
        num_scenes=dict(splits),
        num_bytes=num_bytes,
        supervision=SUPERVISION,
        problems=tuple(problems),
    )


def _look(root: Path, ref: SceneRef) -> list[Problem]:
    problems = []
    above = root / Path(ref.location["annotations"]).parent
    for eye in EYES:
        folder = above / f"{ref.location['sequence']}_source_{eye}"
        if not folder.is_dir():
            problems.append(Problem("warning", str(folder), "this eye is missing"))
            continue
        counts = {name: _count(folder / name, ".png") for name in _FOLDERS}
        if not counts["images"]:
            problems.append(
                Problem("error", str(folder / "images"), "no pictures", "Download the zips again.")
            )
        for name, short in (
            ("depths", 0),
            ("instance_id_maps", 1),
            ("flow_forward", 1),
            ("flow_backward", 1),
        ):
            if counts[name] < counts["images"] - short:
                problems.append(
                    Problem(
                        "warning",
                        str(folder / name),
                        f"{counts[name]} files for {counts['images']} pictures; the rest will be unknown",
                    )
                )
        tracks = _count(folder / "trajectories", ".pth")
        if eye == "left" and tracks < counts["images"]:
            problems.append(
                Problem(
                    "warning", str(folder / "trajectories"), f"{tracks} files: motion will be unknown in part"
                )
            )
    return problems


def _count(folder: Path, suffix: str) -> int:
    return sum(path.suffix == suffix for path in folder.iterdir()) if folder.is_dir() else 0
