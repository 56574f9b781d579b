"""The doctor: which models are there, and whether they and their images fit together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from datakit.convert.api import Probe, Problem
from datakit.errors import DatakitError

from .card import NAME, SUPERVISION
from .discover import find, scene_ref
from .params import Params
from .reader import read

_KINDS = {".bin": "binary model", ".txt": "text model"}


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: the model's files as a whole, that it has its images and that the heads of these fit their cameras.
    """
    forms: Counter[str] = Counter()
    depths: Counter[str] = Counter()
    problems: list[Problem] = []
    num_bytes = 0
    try:
        for relative, suffix in find(root):
            forms[_KINDS[suffix]] += 1
            try:
                ref = scene_ref(root, relative, suffix, Params())
                num_bytes += ref.num_bytes
                record = read(root, ref, Params()).record
            except (DatakitError, OSError) as error:
                mend = getattr(error, "mend", None) or ""
                problems.append(Problem("error", str(root / relative), str(error), mend))
                continue
            depths[record.metadata["depth"]] += 1
            if record.metadata["depth"] == "none":
                what = "neither depth maps nor points: the scene has no depth"
                problems.append(Problem("warning", str(root / relative), what))
    except (DatakitError, OSError) as error:
        problems.append(Problem("error", str(root), str(error)))
    if not forms and not problems:
        problems.append(
            Problem("error", str(root), "no COLMAP models found", "Point to a folder that holds some.")
        )
    parts = [f"{form} ({num})" for form, num in sorted(forms.items())]
    parts += [f"depth: {kind} ({num})" for kind, num in sorted(depths.items())]
    return Probe(
        dataset=NAME,
        variant=", ".join(parts) or "none",
        num_scenes={"none": sum(forms.values())} if forms else {},
        num_bytes=num_bytes,
        supervision=SUPERVISION if forms else (),
        problems=tuple(problems),
    )
