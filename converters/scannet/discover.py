"""Finding scans below a root."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from converters.native.files import check_root, identifier, inside
from datakit.convert.api import SceneRef
from datakit.errors import DatakitError, LayoutError

from . import exported, sens
from .splits import SCENE_ID, official_split

#: Folders below the root that are searched: enough for <root>/ScanNet/scans/<id>/exported with room to spare.
MAX_DEPTH = 6
_TEST_FOLDER = "scans_test"


def find(root: Path) -> Iterator[tuple[str, Path]]:
    """Walk the tree in sorted order.

    Yields:
        (form, path): a .sens file ("sens"), or the folder of an exported scan. A folder with a .sens file is not
        searched further, so that an export beside it, which is less exact, is passed over.

    Raises:
        LayoutError: The root is no folder, or a linked folder leaves it.
    """
    check_root(root)
    yield from _walk(root, Path(), 0)


def _walk(root: Path, relative: Path, depth: int) -> Iterator[tuple[str, Path]]:
    with os.scandir(root / relative) as entries:
        listing = sorted(entries, key=lambda entry: entry.name)
    found = [entry.name for entry in listing if entry.name.endswith(".sens") and entry.is_file()]
    yield from (("sens", relative / name) for name in found)
    form = exported.form_of({entry.name for entry in listing})
    if form and not found:
        yield form, relative
    if form or found or depth == MAX_DEPTH:
        return
    for entry in listing:
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        inside(root, relative / entry.name)
        # A link to a folder inside the root is found where it really is.
        if not entry.is_symlink():
            yield from _walk(root, relative / entry.name, depth + 1)


def scene_ref(root: Path, form: str, relative: Path) -> SceneRef:
    """Describe a scan by the names and sizes of its files, and a .sens file's head.

    Raises:
        LayoutError: See `exported.frame_files`.
    """
    named = relative.with_suffix("") if form == "sens" else relative
    parts = [*root.resolve().parts, *named.parts]
    name = next((part for part in reversed(parts[-3:]) if SCENE_ID.fullmatch(part)), parts[-1])
    split = official_split(name)
    if split == "none" and _TEST_FOLDER in parts:
        split = "test"
    files, num_frames = _files(root, form, relative)
    sizes = [(path.as_posix(), inside(root, path).stat().st_size) for path in files]
    digest = hashlib.sha256("".join(f"{path}\0{size}\n" for path, size in sizes).encode())
    return SceneRef(
        id=identifier(name),
        split=split,
        location={"form": form, "path": relative.as_posix()},
        fingerprint=digest.hexdigest(),
        num_frames=num_frames,
        num_bytes=sum(size for _, size in sizes),
    )


def _files(root: Path, form: str, relative: Path) -> tuple[list[Path], int | None]:
    if form != "sens":
        frames = exported.frame_files(root, relative, form)
        images = [path for item in frames for path in (item.color, item.depth, item.pose)]
        return sorted([*images, *_small_texts(root, relative)]), len(frames)
    text = relative.with_suffix(".txt")
    files = [relative, *([text] if (root / text).is_file() else [])]
    try:
        with open(inside(root, relative), "rb") as file:
            return files, sens.read_header(file, str(root / relative)).num_frames
    except (DatakitError, OSError):
        return files, None  # `read` says what is wrong with it; the other scans can be converted


def _small_texts(root: Path, relative: Path) -> Iterable[Path]:
    for folder in (relative, relative / "intrinsic"):
        if (root / folder).is_dir():
            for name in os.listdir(root / folder):
                if name.endswith(".txt") and not name.startswith("frame-"):
                    yield folder / name


def scenes(root: Path) -> Iterator[SceneRef]:
    """List all scans; see `Converter.scenes`.

    Raises:
        LayoutError: Nothing of ScanNet is below the root, or a scan is there twice.
    """
    seen: dict[str, Path] = {}
    for form, relative in find(root):
        ref = scene_ref(root, form, relative)
        if ref.id in seen:
            raise LayoutError(
                "A scan is there twice.",
                where=root / relative,
                expected="unique ids",
                found=f"{ref.id}, also in {root / seen[ref.id]}",
                mend="Convert the two folders separately.",
            )
        seen[ref.id] = relative
        yield ref
    if not seen:
        raise LayoutError(
            "No ScanNet scans here.",
            where=root,
            expected=".sens files, or folders with color, depth and pose",
            found="neither",
        )
