"""The doctor: which releases and resolutions are here, and whether their files are whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from converters.native.files import inside
from datakit.convert.api import Probe, Problem
from datakit.errors import DatakitError

from .card import NAME, SUPERVISION
from .discover import CAMS, MEND_SPLIT, PAIRS, archives, find, frame_files, scene_ref
from .params import Params
from .photos import Size, check_photo
from .projects import release_of
from .scene import read

RESOLUTIONS: dict[Size, str] = {(768, 576): "low-res", (2048, 1536): "high-res"}
#: Archives and what they unpack to; BlendedMVS+ and ++ come in 42 numbered parts and a last one.
_ARCHIVED = {"BlendedMVS": "BlendedMVS", "BlendedMVS1": "BlendedMVS+", "BlendedMVS2": "BlendedMVS++"}
_NUM_PARTS = 42


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: that every photo has its three files and depth maps are of the size that their image needs; all
    cameras and pair.txt; the list files; parts of archives that were not joined.
    """
    kinds: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    problems: list[Problem] = []
    num_bytes = 0
    try:
        archived = archives(root) if root.is_dir() else {}
        for relative in find(root):
            try:
                ref = scene_ref(root, relative, Params())
                size = _size(root, relative)
                kinds[f"{release_of(ref.id)} {RESOLUTIONS.get(size, f'{size[0]}x{size[1]}')}"] += 1
                splits[ref.split] += 1
                num_bytes += ref.num_bytes
                problems += _scene_problems(root, relative, size)
            except (DatakitError, OSError) as error:
                kinds[f"{release_of(relative.name)} damaged"] += 1
                problems.append(Problem("error", str(root / relative), str(error), "Unpack the scene again."))
        problems += _archive_problems(root, archived, bool(kinds))
    except (DatakitError, OSError) as error:
        problems.append(Problem("error", str(root), str(error)))
        archived = {}
    if not kinds and not problems:
        problems.append(
            Problem("error", str(root), "no BlendedMVS scenes found", "Point to a folder of scenes.")
        )
    names = [f"{kind} ({num})" for kind, num in sorted(kinds.items())]
    if not kinds:
        names = [f"{_ARCHIVED[name]}, archive not unpacked" for name in archived]
    return Probe(
        dataset=NAME,
        variant=", ".join(names) or "none",
        num_scenes=dict(splits),
        num_bytes=num_bytes,
        supervision=SUPERVISION if kinds else (),
        problems=tuple(problems),
    )


def _size(root: Path, relative: Path) -> Size:
    first = frame_files(root, relative, Params())[0].image
    return check_photo(inside(root, first).read_bytes(), None, str(root / first))


def _scene_problems(root: Path, relative: Path, size: Size) -> list[Problem]:
    stream = read(root, scene_ref(root, relative, Params()), Params())  # cameras and pairs, no frames
    folder, found = root / relative, []
    view = stream.record.views["camera"]
    lost = int((~view.pose_is_known).sum())
    if lost:
        found.append(Problem("warning", str(folder), f"{lost} poses are not finite; stored as unknown"))
    pairs = stream.record.metadata["covisibility"]
    if pairs is None:
        found.append(Problem("warning", str(folder / CAMS / PAIRS), "missing: no covisibility"))
    elif pairs["rows_missing"] or pairs["ids_without_photo"]:
        what = f"{pairs['rows_missing']} photos have no row, {pairs['ids_without_photo']} ids have no photo"
        found.append(Problem("warning", str(folder / CAMS / PAIRS), what))
    least = 4 * size[0] * size[1]
    for item in frame_files(root, relative, Params()):
        held = (root / item.depth).stat().st_size
        if not least < held <= least + 128:
            what = f"{held} bytes are no depth map of {size[0]}x{size[1]}"
            found.append(Problem("error", str(root / item.depth), what, "Unpack the scene again."))
            break
    return found


def _archive_problems(root: Path, archived: dict[str, list[str]], has_scenes: bool) -> list[Problem]:
    problems = []
    for name, parts in archived.items():
        release = _ARCHIVED[name]
        severity = "warning" if has_scenes else "error"
        if name == "BlendedMVS":
            what = "the archive of BlendedMVS" + (" lies here too" if has_scenes else " is not unpacked")
            problems.append(Problem(severity, str(root / "BlendedMVS.zip"), what, "Unpack it."))
            continue
        wanted = [*(f"z{n:02d}" for n in range(1, _NUM_PARTS + 1)), "zip"]
        missing = [part for part in wanted if part not in parts]
        what = f"{release} is split into {len(wanted)} parts that are not joined; {len(wanted) - len(missing)} are here"
        if missing:
            what += f", missing: {', '.join(missing[:6])}{', ...' if len(missing) > 6 else ''}"
        problems.append(Problem(severity, str(root / f"{name}.zip"), what, MEND_SPLIT))
    return problems
