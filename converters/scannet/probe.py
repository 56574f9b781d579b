"""The doctor: which form each scan is in, and whether its files are whole, from headers and file sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from datakit.convert.api import Probe, Problem
from datakit.errors import DatakitError

from . import exported, sens
from .card import NAME, SUPERVISION
from .discover import find, scene_ref
from .params import Params
from .texts import scan_metadata

VARIANTS = {
    "sens": ".sens",
    "export": "Python export",
    "export-cpp": "C++ export",
    "frames-25k": "scannet_frames_25k",
}


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: a .sens file's head, all its frame headers and its length; of an export that every frame has its three
    files, its matrices, its poses and the first images.
    """
    forms: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    problems: list[Problem] = []
    num_bytes = 0
    try:
        for form, relative in find(root):
            forms[VARIANTS[form]] += 1
            try:
                ref = scene_ref(root, form, relative)
                splits[ref.split] += 1
                num_bytes += ref.num_bytes
                problems += _problems(root, form, relative)
            except (DatakitError, OSError) as error:
                problems.append(Problem("error", str(root / relative), str(error), _MEND[form == "sens"]))
    except (DatakitError, OSError) as error:
        problems.append(Problem("error", str(root), str(error)))
    if not forms and not problems:
        problems.append(
            Problem("error", str(root), "no ScanNet scans found", "Point to a folder that holds some.")
        )
    return Probe(
        dataset=NAME,
        variant=", ".join(f"{form} ({num})" for form, num in sorted(forms.items())) or "none",
        num_scenes=dict(splits),
        num_bytes=num_bytes,
        supervision=SUPERVISION if forms else (),
        problems=tuple(problems),
    )


_MEND = ("Export the scan again.", "Download the scan again.")


def _problems(root: Path, form: str, relative: Path) -> list[Problem]:
    ref = scene_ref(root, form, relative)
    if form != "sens":
        # Everything but the frames themselves is read before the first of them.
        exported.read(root, ref, Params())
        return []
    path = root / relative
    with open(path, "rb") as file:
        index = sens.read_index(file, str(path))
    sens.calibration(index.header, str(path))
    found = []
    text = relative.with_suffix(".txt")
    if not (root / text).is_file():
        found.append(Problem("warning", str(root / text), "missing: no axisAlignment, no scene type"))
    stated = scan_metadata(root, text, []).get("num_color_frames", index.header.num_frames)
    if stated != index.header.num_frames:
        what = f"numColorFrames is {stated}, the .sens has {index.header.num_frames}; the .sens is right"
        found.append(Problem("warning", str(root / text), what))
    return found
