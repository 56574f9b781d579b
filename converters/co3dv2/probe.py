"""The doctor: which part of the release this is, and what of it is missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from datakit.convert.api import Probe, Problem
from datakit.errors import DatakitError

from .annotations import FrameNote, parse_frame
from .card import NAME, SUPERVISION
from .discover import FOLDERS, SEQUENCES, Annotated, find, index, scene_ref
from .jgz import span_items
from .scene import FRAMES, Source, is_redacted
from .setlists import read_lists

#: Categories of the whole release; of the single-sequence subset there are 48.
NUM_CATEGORIES = 51
#: Sequences of each category whose first frames are looked at, and challenge frames.
_LOOK_AT, _CHALLENGE_FRAMES = 3, 4


@dataclass
class _Findings:
    """What is gathered over the categories."""

    categories: list[str] = field(default_factory=list)
    sequences: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    subsets: set[str] = field(default_factory=set)
    has_redacted: bool = False
    num_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: all annotations' structure, the set lists, which sequences have their folders, and the first frame of
    some sequences; challenge frames for whether they are blanked.
    """
    found = _Findings()
    try:
        for category in find(root):
            found.categories.append(category.name)
            try:
                _look(root, category, found)
            except (DatakitError, OSError) as error:
                found.problems.append(
                    Problem("error", str(root / category), str(error), "Download the category again.")
                )
    except (DatakitError, OSError) as error:
        found.problems.append(Problem("error", str(root), str(error)))
    if not found.categories and not found.problems:
        found.problems.append(
            Problem(
                "error", str(root), "no CO3Dv2 categories found", "Give the folder that holds the categories."
            )
        )
    return Probe(
        dataset=NAME,
        variant=_variant(found),
        num_scenes=dict(found.splits),
        num_bytes=found.num_bytes,
        supervision=SUPERVISION if found.sequences else (),
        problems=tuple(found.problems),
    )


def _variant(found: _Findings) -> str:
    if not found.categories:
        return "none"
    num, most = len(found.categories), max(found.sequences.values(), default=0)
    if not most:
        kind = "annotations without images"
    elif num > 1 and most == 1:
        kind = "single-sequence subset"
    elif num == 1:
        kind = f"one category, {found.categories[0]}"
    else:
        kind = "full release" if num >= NUM_CATEGORIES else "part of the release"
    words = [f"{kind}: {num} of {NUM_CATEGORIES} categories, {sum(found.sequences.values())} sequences"]
    if found.subsets:
        words.append(f"set lists {', '.join(sorted(found.subsets))}")
    if found.has_redacted:
        words.append("challenge frames are redacted")
    return "; ".join(words)


def _look(root: Path, category: Path, found: _Findings) -> None:
    lists = read_lists(root / category)
    entries = index(root, category)
    present = {name: e for name, e in entries.items() if e.num_frames and (root / category / name).is_dir()}
    if not (root / category / SEQUENCES).is_file():
        found.problems.append(
            Problem("warning", str(root / category / SEQUENCES), "missing: no quality scores")
        )
    if len(present) < len(entries):
        what = f"{len(entries) - len(present)} of {len(entries)} annotated sequences are not here"
        mend = "Fine if only some archives were downloaded; these sequences are passed over."
        found.problems.append(Problem("warning", str(root / category), what, mend))
    for number, (name, entry) in enumerate(present.items()):
        membership = lists.get(name, {})
        ref = scene_ref(root, category, entry, membership)
        found.sequences[category.name] += 1
        found.splits[ref.split] += 1
        found.num_bytes += ref.num_bytes
        found.subsets.update(membership)
        challenge = {
            n for key in membership if key.endswith("_test") for n in membership[key].get("test", ())
        }
        if number < _LOOK_AT or (challenge and not found.has_redacted):
            _look_at_frames(root, category, entry, challenge, found)
    if not any(lists.values()):
        found.problems.append(
            Problem("warning", str(root / category / "set_lists"), "no set lists: no splits")
        )


def _look_at_frames(
    root: Path, category: Path, entry: Annotated, challenge: set[int], found: _Findings
) -> None:
    path, source = root / category / FRAMES, Source(root, category.parent, category, entry.note.sequence)
    notes = [parse_frame(item.value, str(path)) for item in span_items(path, entry.spans)]
    missing = _missing(source, notes)
    if missing:
        what = f"{len(missing)} files named by the annotations are missing, e.g. {missing[0]}"
        found.problems.append(
            Problem("error", str(path.parent / source.sequence), what, "Download it again.")
        )
        return
    targets = (note for note in notes if note.number in challenge)
    if any(is_redacted(source, note) for note in islice(targets, _CHALLENGE_FRAMES)):
        found.has_redacted = True


def _missing(source: Source, notes: list[FrameNote]) -> list[str]:
    """List photos and depth maps that are not there; masks are known to be missing for some (co3d issue 54)."""
    folder = source.root / source.category / source.sequence
    if not (folder / FOLDERS[0]).is_dir():
        return [str(folder / FOLDERS[0])]
    return [path for note in notes for path in (note.image, note.depth) if path and not source.has(path)]
