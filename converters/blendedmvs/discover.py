"""Finding scenes below a root, their files, and their split."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.native.files import check_root, identifier, inside
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, LayoutError

from .params import Params
from .projects import SCENE_ID, official_split
from .texts import MAX_LIST_BYTES, parse_list

IMAGES, CAMS, DEPTHS = "blended_images", "cams", "rendered_depth_maps"
FOLDERS = (IMAGES, CAMS, DEPTHS)
PAIRS = "pair.txt"
#: List files by split; the first that names a scene decides, so that no validation scene is ever trained on.
LISTS = (
    ("val", "validation_list.txt"),
    ("train", "BlendedMVG_training.txt"),
    ("train", "BlendedMVS_training.txt"),
    ("train", "training_list.txt"),
)
#: Parts of the split archives, and whole archives that were not unpacked.
ARCHIVE = re.compile(r"(BlendedMVS[12]?)\.(z\d\d|zip)")
#: Folders below the root that are searched: enough for <root>/BlendedMVG/dataset_low_res/<id>.
MAX_DEPTH = 4


@dataclass(frozen=True)
class FrameFiles:
    """One photo: its id, and its image, camera and depth below the root."""

    name: str
    image: Path
    cam: Path
    depth: Path


def find(root: Path) -> Iterator[Path]:
    """Walk the tree in sorted order and yield scene folders relative to the root; nothing below one is searched.

    Raises:
        LayoutError: The root is no folder, or a linked folder leaves it.
    """
    check_root(root)
    yield from _walk(root, Path(), 0)


def _walk(root: Path, relative: Path, depth: int) -> Iterator[Path]:
    with os.scandir(root / relative) as entries:
        listing = sorted(entries, key=lambda entry: entry.name)
    folders = {entry.name for entry in listing if entry.is_dir()}
    name = root.resolve().name if relative == Path() else relative.name
    if folders.issuperset(FOLDERS) or (SCENE_ID.fullmatch(name) and folders.intersection(FOLDERS)):
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


def archives(root: Path) -> dict[str, list[str]]:
    """List archives that lie in the root itself: name without ending -> its parts, sorted."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(root)):
        if match := ARCHIVE.fullmatch(name):
            found.setdefault(match[1], []).append(match[2])
    return found


def frame_files(root: Path, relative: Path, params: Params) -> list[FrameFiles]:
    """List a scene's photos in order of their ids, which may have gaps.

    Raises:
        LayoutError: A folder is missing, or a photo lacks its image, camera or depth.
    """
    ending = "_masked.jpg" if params.images == "masked" else ".jpg"
    names = {
        folder: _numbered(root, relative / folder, suffix)
        for folder, suffix in ((IMAGES, ending), (CAMS, "_cam.txt"), (DEPTHS, ".pfm"))
    }
    every = sorted(set().union(*names.values()))
    for folder, there in names.items():
        missing = [name for name in every if name not in there]
        if missing or not every:
            raise LayoutError(
                "A scene's files are incomplete.",
                where=root / relative / folder,
                expected=f"one file for each of {len(every)} photos" if every else "at least one photo",
                found=f"missing: {missing[:8]}" if every else "none",
                mend="Download or unpack the scene again.",
            )
    return [
        FrameFiles(
            name,
            relative / IMAGES / f"{name}{ending}",
            relative / CAMS / f"{name}_cam.txt",
            relative / DEPTHS / f"{name}.pfm",
        )
        for name in every
    ]


def _numbered(root: Path, folder: Path, ending: str) -> set[str]:
    path = inside(root, folder)
    if not path.is_dir():
        raise LayoutError("A scene's folder is missing.", where=path, expected="a folder", found="none")
    pattern = re.compile(r"(\d{8})" + re.escape(ending), re.ASCII)
    return {match[1] for match in map(pattern.fullmatch, os.listdir(path)) if match}


def split_of(root: Path, relative: Path, scene_id: str) -> str:
    """Find a scene's split: from list files beside it or above it within the root, else from the official lists.

    Raises:
        FormatError: A list file is not one.
    """
    for folder in list((root / relative).parents)[: len(relative.parts)]:
        for split, name in LISTS:
            path = folder / name
            if path.is_file() and scene_id in _ids(path):
                return split
    return official_split(scene_id)


def _ids(path: Path) -> frozenset[str]:
    if path.stat().st_size > MAX_LIST_BYTES:
        raise FormatError("A list of scenes is absurdly large.", where=path, found=path.stat().st_size)
    return parse_list(path.read_bytes(), str(path))


def scene_ref(root: Path, relative: Path, params: Params) -> SceneRef:
    """Describe a scene by the names and sizes of its files.

    Raises:
        LayoutError: See `frame_files`.
    """
    frames = frame_files(root, relative, params)
    files = [path for item in frames for path in (item.image, item.cam, item.depth)]
    pairs = relative / CAMS / PAIRS
    if (root / pairs).is_file():
        files.append(pairs)
    sizes = [(path.as_posix(), _size_of(root, path)) for path in files]
    digest = hashlib.sha256("".join(f"{path}\0{size}\n" for path, size in sizes).encode())
    name = root.resolve().name if relative == Path() else relative.name
    return SceneRef(
        id=identifier(name),
        split=split_of(root, relative, name),
        location={"path": relative.as_posix()},
        fingerprint=digest.hexdigest(),
        num_frames=len(frames),
        num_bytes=sum(size for _, size in sizes),
    )


def _size_of(root: Path, relative: Path) -> int:
    path = inside(root, relative)
    try:
        return path.stat().st_size
    except OSError as err:
        raise LayoutError("A file cannot be read.", where=path, found=err.strerror or err) from err


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List all scenes; see `Converter.scenes`.

    Raises:
        LayoutError: No scene is below the root, one is incomplete, or one is there twice.
    """
    seen: dict[str, Path] = {}
    for relative in find(root):
        ref = scene_ref(root, relative, params)
        if ref.id in seen:
            raise LayoutError(
                "A scene is there twice.",
                where=root / relative,
                expected="unique ids",
                found=f"{ref.id}, also in {root / seen[ref.id]}",
                mend="Convert low-res and high-res trees separately.",
            )
        seen[ref.id] = relative
        yield ref
    if not seen:
        parts = archives(root)
        raise LayoutError(
            "No BlendedMVS scenes here.",
            where=root,
            expected=f"folders with {', '.join(FOLDERS)}",
            found=f"archives that are not unpacked: {sorted(parts)}" if parts else "none",
            mend=f"{MEND_SPLIT}" if parts else None,
        )


MEND_SPLIT = "Join the parts (zip -s 0 NAME.zip --out whole.zip), then unpack whole.zip."
