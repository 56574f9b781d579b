"""Finding clips and TFDS configs below a root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from converters.native.files import check_root, inside
from datakit.convert.api import SceneRef
from datakit.errors import LayoutError

from . import tfds, worker
from .params import Params

#: Folders below the root that are searched: enough for <root>/tfds/movi_e/256x256/1.0.0 with room to spare.
MAX_DEPTH = 6


def find_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Walk the tree in sorted order.

    Args:
        root: A clip, a folder of clips, a TFDS version folder, or any folder above these.

    Yields:
        ("worker" or "tfds", folder below the root); nothing below such a folder is searched.

    Raises:
        LayoutError: The root is no folder, or a linked folder leaves it.
    """
    check_root(root)
    yield from _walk(root, Path(), 0)


def _walk(root: Path, relative: Path, depth: int) -> Iterator[tuple[str, Path]]:
    with os.scandir(root / relative) as entries:
        listing = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name for entry in listing}
    if tfds.is_config(names):
        yield "tfds", relative
        return
    if worker.is_clip(names):
        yield "worker", relative
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


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List all clips; see `Converter.scenes`.

    Raises:
        LayoutError: Nothing of Kubric is below the root, or two clips would get one id.
    """
    seen: dict[str, str] = {}
    for form, relative in find_folders(root):
        refs = (
            [worker.clip_ref(root, relative)]
            if form == "worker"
            else tfds.config_refs(root, relative, params)
        )
        for ref in refs:
            if ref.id in seen:
                raise LayoutError(
                    "Two clips have the same id.",
                    where=root / relative,
                    expected="unique ids",
                    found=f"{ref.id}, also in {seen[ref.id]}",
                    mend="Convert the two folders separately.",
                )
            seen[ref.id] = str(root / relative)
            yield ref
    if not seen:
        raise LayoutError(
            "No Kubric clips here.",
            where=root,
            expected="folders with metadata.json and rgba_00000.png, or TFDS folders with dataset_info.json",
            found="neither",
        )
