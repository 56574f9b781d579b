"""Finding categories and sequences below a root."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.native.files import check_root, identifier, inside
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, LayoutError, UsageError

from .annotations import SequenceNote, parse_sequence, sequence_name
from .jgz import file_items
from .params import Params
from .setlists import Membership, frames_of, read_lists, split_of

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
FOLDERS = ("images", "depths", "masks", "depth_masks")
#: Folders below the root that are searched: enough for <root>/data/co3dv2/<category>.
MAX_DEPTH = 3


def find(root: Path) -> Iterator[Path]:
    """Walk the tree in sorted order and yield category folders relative to the root.

    Raises:
        LayoutError: The root is no folder or a category itself, a linked folder leaves it, or this is version 1.
    """
    check_root(root)
    if (root / FRAMES).is_file():
        raise LayoutError(
            "This is one category; its annotations name files from the folder above.",
            where=root,
            expected=f"<category>/{FRAMES}",
            found=FRAMES,
            mend=f"""Give {root.resolve().parent} and --param 'categories=["{root.resolve().name}"]'""",
        )
    yield from _walk(root, Path(), 0)


def _walk(root: Path, relative: Path, depth: int) -> Iterator[Path]:
    with os.scandir(root / relative) as entries:
        listing = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name for entry in listing}
    if FRAMES in names:
        if "set_lists.json" in names:
            raise LayoutError(
                "This is CO3D version 1.",
                where=root / relative / "set_lists.json",
                expected="version 2: set_lists/set_lists_<subset>.json",
                found="set_lists.json",
                mend="Download version 2; version 1 has other intrinsics and image sizes that change.",
            )
        yield relative
        return
    if depth == MAX_DEPTH:
        return
    for entry in listing:
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        inside(root, relative / entry.name)
        # A link to a folder inside the root is found where it really is.
        if not entry.is_symlink():
            yield from _walk(root, relative / entry.name, depth + 1)


@dataclass
class Annotated:
    """What a category's annotations hold of one sequence.

    Attributes:
        note: Its own annotation; without scores where there is none.
        spans: Where its frames are in the unpacked frame annotations.
        num_frames: How many.
        digest: Of their texts.
    """

    note: SequenceNote
    spans: list[tuple[int, int]] = field(default_factory=list)
    num_frames: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


def index(root: Path, category: Path) -> dict[str, Annotated]:
    """Pass once over a category's annotations; what is kept grows with its sequences, not with its frames.

    Returns:
        Sequence name -> where its frames are, sorted by name.

    Raises:
        FormatError: The annotations are damaged, or a sequence is annotated twice.
    """
    found: dict[str, Annotated] = {}
    path = inside(root, category / SEQUENCES)
    if path.is_file():
        for item in file_items(path):
            note = parse_sequence(item.value, str(path))
            if note.sequence in found:
                raise FormatError("A sequence is annotated twice.", where=path, found=note.sequence)
            found[note.sequence] = Annotated(note)
    path, last = inside(root, category / FRAMES), ""
    for item in file_items(path):
        name = sequence_name(item.value.get("sequence_name"), f"{path}, unpacked byte {item.start}")
        entry = found.setdefault(name, Annotated(SequenceNote(name)))
        if name == last:
            entry.spans[-1] = (entry.spans[-1][0], item.end)
        else:
            entry.spans.append((item.start, item.end))
        entry.num_frames += 1
        entry.digest.update(item.raw)
        last = name
    return dict(sorted(found.items()))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List all sequences; see `Converter.scenes`.

    Raises:
        LayoutError: No category here, a category twice, or none of its sequences' folders.
        FormatError: Damaged annotations or set lists.
        UsageError: A category was asked for that is not here.
    """
    seen: dict[str, Path] = {}
    for category in find(root):
        if category.name in seen:
            raise LayoutError(
                "A category is there twice.",
                where=root / category,
                expected="each once",
                found=f"also {root / seen[category.name]}",
                mend="Convert the two folders separately.",
            )
        seen[category.name] = category
    if not seen:
        raise LayoutError(
            "No CO3Dv2 categories here.", where=root, expected=f"<category>/{FRAMES}", found="none"
        )
    missing = sorted(set(params.categories) - set(seen))
    if missing:
        raise UsageError("No such category.", where="categories", expected=sorted(seen), found=missing)
    num_present = 0
    for name, category in seen.items():
        if params.categories and name not in params.categories:
            continue
        lists = read_lists(root / category)
        for sequence, entry in index(root, category).items():
            if not entry.num_frames or not (root / category / sequence).is_dir():
                continue
            num_present += 1
            membership = lists.get(sequence, {})
            if is_wanted(entry.note, membership, params):
                yield scene_ref(root, category, entry, membership)
    if not num_present:
        raise LayoutError(
            "No sequence of the annotations is here.",
            where=root,
            expected="<category>/<sequence>/images",
            found="annotations only",
            mend="Download the categories' image archives, not only CO3D_METADATA.",
        )


def is_wanted(note: SequenceNote, membership: Membership, params: Params) -> bool:
    """Tell whether the parameters keep a sequence: by its scores, and by the subset that is asked for."""
    for score, least in (
        (note.viewpoint_quality, params.min_viewpoint_quality),
        (note.point_cloud_quality, params.min_point_cloud_quality),
    ):
        if least is not None and (score is None or not score > least):
            return False
    return params.subset == "all" or bool(frames_of(membership, params.subset))


def scene_ref(root: Path, category: Path, entry: Annotated, membership: Membership) -> SceneRef:
    """Describe a sequence by its annotations, and the names and sizes of its files."""
    folder = category / entry.note.sequence
    sizes = [item for name in FOLDERS for item in _listing(root, folder / name)]
    said = json.dumps([vars(entry.note), {k: dict(v) for k, v in membership.items()}], sort_keys=True)
    text = "".join(f"{path}\0{size}\n" for path, size in sizes) + entry.digest.hexdigest() + said
    return SceneRef(
        id=f"{identifier(category.name)}-{entry.note.sequence}",
        split=split_of(membership),
        location={
            "category": category.as_posix(),
            "sequence": entry.note.sequence,
            "spans": [list(span) for span in entry.spans],
            "note": vars(entry.note),
        },
        fingerprint=hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
        num_frames=entry.num_frames,
        num_bytes=sum(size for _, size in sizes),
    )


def _listing(root: Path, folder: Path) -> list[tuple[str, int]]:
    path = inside(root, folder)
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        # The size of a link itself: reading through it is refused or not when it is read.
        return sorted(
            ((folder / entry.name).as_posix(), entry.stat(follow_symlinks=False).st_size) for entry in entries
        )
