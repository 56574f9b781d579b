"""Finding models below a root, and the folder of images of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from converters.native.files import check_root, identifier, inside
from datakit.convert.api import SceneRef
from datakit.errors import LayoutError

from .model import model_suffix
from .params import Params

#: Folders below the root that are searched: enough for <root>/scene/dense/0/sparse with room to spare.
MAX_DEPTH = 6
IMAGES = "images"


def find(root: Path) -> Iterator[tuple[Path, str]]:
    """Walk the tree in sorted order.

    Yields:
        (folder of a sparse model, ".bin" or ".txt").

    Raises:
        LayoutError: The root is no folder, or a linked folder leaves it.
    """
    check_root(root)
    yield from _walk(root, Path(), 0)


def _walk(root: Path, relative: Path, depth: int) -> Iterator[tuple[Path, str]]:
    with os.scandir(root / relative) as entries:
        listing = sorted(entries, key=lambda entry: entry.name)
    suffix = model_suffix({entry.name for entry in listing})
    if suffix is not None:
        yield relative, suffix
    if depth == MAX_DEPTH:
        return
    for entry in listing:
        if entry.name.startswith(".") or entry.name in (IMAGES, "stereo") or not entry.is_dir():
            continue
        inside(root, relative / entry.name)
        # A link to a folder inside the root is found where it really is.
        if not entry.is_symlink():
            yield from _walk(root, relative / entry.name, depth + 1)


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List all models; see `Converter.scenes`.

    Raises:
        LayoutError: No model below the root, or two would get one id.
    """
    seen: dict[str, Path] = {}
    for relative, suffix in find(root):
        ref = scene_ref(root, relative, suffix, params)
        if ref.id in seen:
            raise LayoutError(
                "Two models have the same id.",
                where=root / relative,
                expected="unique ids",
                found=f"{ref.id}, also in {root / seen[ref.id]}",
                mend="Convert the two folders separately.",
            )
        seen[ref.id] = relative
        yield ref
    if not seen:
        raise LayoutError(
            "No COLMAP models here.",
            where=root,
            expected="folders with cameras, images and points3D (.bin or .txt)",
            found="none",
        )


def scene_ref(root: Path, relative: Path, suffix: str, params: Params) -> SceneRef:
    """Describe a model by the names and sizes of its own files, its images and its depth maps.

    Raises:
        LayoutError: A path leaves the root.
    """
    workspace = find_workspace(root, relative)
    images = Path(params.images) if params.images else None
    if images is None and (root / workspace / IMAGES).is_dir():
        images = workspace / IMAGES
    files = [path for path in _list(root, relative, 1) if path.suffix == suffix]
    if images is not None:
        files += _list(root, images, MAX_DEPTH)
    files += _list(root, workspace / "stereo" / "depth_maps", MAX_DEPTH)
    sizes = sorted((path.as_posix(), inside(root, path).stat().st_size) for path in files)
    digest = hashlib.sha256("".join(f"{path}\0{size}\n" for path, size in sizes).encode("utf-8", "replace"))
    return SceneRef(
        id=scene_id(root, relative, workspace),
        split="none",
        location={
            "path": relative.as_posix(),
            "suffix": suffix,
            "workspace": workspace.as_posix(),
            "images": None if images is None else images.as_posix(),
        },
        fingerprint=digest.hexdigest(),
        num_bytes=sum(size for _, size in sizes),
    )


def find_workspace(root: Path, relative: Path) -> Path:
    """Return the nearest folder at or above a model, below the root, that holds `images`; else the model's own."""
    for folder in (relative, *relative.parents):
        if (root / folder / IMAGES).is_dir():
            return folder
    return relative


def scene_id(root: Path, relative: Path, workspace: Path) -> str:
    """Name a model after its workspace, and after its own folder where that is not the usual sparse or sparse/0."""
    own = relative.relative_to(workspace).parts
    if own and own[0] == "sparse":
        own = own[1:]
        if own == ("0",):
            own = ()
    base = workspace.parts or (root.resolve().name,)
    return identifier("-".join((*base, *own)))


def _list(root: Path, relative: Path, depth: int) -> list[Path]:
    folder = inside(root, relative)
    if not folder.is_dir():
        return []
    out = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_file():
            out.append(relative / entry.name)
        elif entry.is_dir() and not entry.is_symlink() and depth > 1:
            out += _list(root, relative / entry.name, depth - 1)
    return out
