"""Finding sequences below a root, in the split layout or the flat one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from converters.native.files import check_root, identifier, inside
from datakit.convert.api import SceneRef
from datakit.errors import LayoutError

from .annotations import EYES, objects

_ANNOTATIONS = re.compile(r"frame_annotations_(?P<split>\w+)\.jgz")
#: <root>/real/<name>/test/frame_annotations_test.jgz.
_MAX_DEPTH = 3


def annotation_files(root: Path) -> Iterator[Path]:
    """List annotation files below a root, sorted, relative to it.

    Raises:
        LayoutError: The root is no folder, or a link leaves it.
    """
    check_root(root)
    yield from sorted(_walk(root, Path(), 0))


def _walk(root: Path, relative: Path, depth: int) -> Iterator[Path]:
    with os.scandir(root / relative) as entries:
        for entry in entries:
            below = relative / entry.name
            if _ANNOTATIONS.fullmatch(entry.name):
                yield below
            elif depth < _MAX_DEPTH and entry.is_dir() and not _is_sequence(entry.name):
                inside(root, below)
                yield from _walk(root, below, depth + 1)


def _is_sequence(name: str) -> bool:
    return name.endswith(tuple(f"_source_{eye}" for eye in EYES))


def scenes(root: Path) -> Iterator[SceneRef]:
    """List the sequences of all annotation files whose folders are there.

    Raises:
        LayoutError: No annotation file, or two sequences of one name.
    """
    seen: dict[str, Path] = {}
    found = False
    for annotation in annotation_files(root):
        found = True
        for sequence in _sequences(root, annotation):
            ref = _ref(root, annotation, sequence)
            if ref.id in seen:
                raise LayoutError(
                    "Two sequences have the same name.",
                    where=root / annotation,
                    expected="unique names",
                    found=f"{ref.id}, also in {seen[ref.id]}",
                    mend="Convert the two folders separately.",
                )
            seen[ref.id] = root / annotation
            yield ref
    if not found:
        raise LayoutError(
            "No Dynamic Replica here.", where=root, expected="frame_annotations_<split>.jgz", found="none"
        )


def _sequences(root: Path, annotation: Path) -> list[str]:
    """Tell which sequences of an annotation file are on disk.

    In the split layout the folders tell it; where several annotation files share a folder, they are read.
    """
    folder = root / annotation.parent
    on_disk = {name.rsplit("_source_", 1)[0] for name in os.listdir(folder) if _is_sequence(name)}
    if sum(1 for name in os.listdir(folder) if _ANNOTATIONS.fullmatch(name)) > 1:
        stat = (root / annotation).stat()
        on_disk &= _annotated(inside(root, annotation), stat.st_size, stat.st_mtime_ns)
    return sorted(on_disk)


@lru_cache(maxsize=4)
def _annotated(path: Path, size: int, mtime_ns: int) -> frozenset[str]:
    """List the sequences of an annotation file; size and time of change make the cache notice another file."""
    return frozenset(str(item.get("sequence_name")) for item in objects(path))


def _ref(root: Path, annotation: Path, sequence: str) -> SceneRef:
    match = _ANNOTATIONS.fullmatch(annotation.name)
    assert match is not None  # listed by the same pattern
    files = sorted(
        (path.relative_to(root).as_posix(), path.stat().st_size)
        for eye in EYES
        for path in (root / annotation.parent / f"{sequence}_source_{eye}").glob("*/*")
        if path.suffix in (".png", ".pth")
    )
    listing = "".join(f"{name}\0{size}\n" for name, size in files)
    return SceneRef(
        id=identifier(sequence),
        split=match["split"],
        location={"annotations": annotation.as_posix(), "sequence": sequence},
        fingerprint=hashlib.sha256(listing.encode()).hexdigest(),
        num_frames=sum("/images/" in name for name, _ in files),
        num_bytes=sum(size for _, size in files),
    )
