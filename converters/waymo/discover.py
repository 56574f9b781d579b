"""Finding segments below a root."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from converters.native.files import check_root, identifier, inside
from datakit.convert.api import SceneRef
from datakit.errors import LayoutError

from . import v2

_FILE = re.compile(r"(?:segment-)?(?P<context>.+?)(?:_with_camera_labels)?\.tfrecord")
SPLITS = ("training", "validation", "testing", "domain_adaptation")
#: <root>/domain_adaptation/training/labeled/<file> and one folder to spare.
_MAX_DEPTH = 5


def scenes(root: Path) -> Iterator[SceneRef]:
    """List the segments below a root, sorted by path, from names and sizes only.

    Raises:
        LayoutError: The root is no folder, holds no segment, or two segments have one id.
    """
    check_root(root)
    seen: dict[str, Path] = {}
    for relative in sorted(_files(root, Path(), 0)):
        ref = _ref(root, relative)
        if ref.id in seen:
            raise LayoutError(
                "Two segments have the same id.",
                where=root / relative,
                expected="unique contexts",
                found=f"{ref.id}, also in {seen[ref.id]}",
                mend="Convert the two folders separately.",
            )
        seen[ref.id] = root / relative
        yield ref
    if not seen:
        raise LayoutError(
            "No Waymo segments here.",
            where=root,
            expected="segment-*_with_camera_labels.tfrecord",
            found="none",
        )


def _files(root: Path, relative: Path, depth: int) -> Iterator[Path]:
    with os.scandir(root / relative) as entries:
        for entry in entries:
            below = relative / entry.name
            if entry.name.startswith(".") or entry.is_symlink() and not inside(root, below).exists():
                continue
            if entry.is_dir(follow_symlinks=False) and depth < _MAX_DEPTH:
                yield from _files(root, below, depth + 1)
            elif _is_segment(below) and entry.is_file():
                yield below


def _is_segment(relative: Path) -> bool:
    if relative.suffix == ".parquet":
        return relative.parent.name == "camera_image"
    return _FILE.fullmatch(relative.name) is not None


def _ref(root: Path, relative: Path) -> SceneRef:
    """Describe a segment by its v1 file, or by its v2 table of pictures."""
    split = next((part for part in relative.parts[:-1] if part in SPLITS), "none")
    if relative.suffix == ".parquet":
        split_folder, context = relative.parent.parent, relative.stem
        files = [
            split_folder / name / relative.name
            for name in sorted((*v2.REQUIRED, *v2.OPTIONAL))
            if (root / split_folder / name / relative.name).is_file()
        ]
        location = {"form": "v2", "path": split_folder.as_posix(), "context": context}
    else:
        match = _FILE.fullmatch(relative.name)
        assert match is not None  # listed by the same pattern
        files, context = [relative], match["context"]
        location = {"form": "v1", "path": relative.as_posix()}
    sizes = [inside(root, file).stat().st_size for file in files]
    listing = "".join(f"{file.as_posix()}\0{size}\n" for file, size in zip(files, sizes, strict=True))
    return SceneRef(
        id=identifier(context),
        split=split,
        location=location,
        fingerprint=hashlib.sha256(listing.encode()).hexdigest(),
        num_bytes=sum(sizes),
    )
