"""Decide what a run has to do, from the native tree and what already lies in the output folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from datakit.errors import ConventionError, DatakitError, LayoutError, UsageError
from datakit.scene import PARTIAL_SUFFIX, open_scene
from datakit.schema import SCHEMA_VERSION

from .api import Converter, SceneRef

SCENE_SUFFIX = ".h5"

_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Selection:
    """Which scenes of a native tree a run is about.

    Attributes:
        scenes: Shell pattern over scene ids.
        split: One official split, or None for all.
        limit: At most so many scenes, the first in the converter's order; None for all.
    """

    scenes: str = "*"
    split: str | None = None
    limit: int | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no scene of the tree is left out."""
        return self.scenes == "*" and self.split is None and self.limit is None


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        dataset: Converter's name.
        version: Converter's version.
        params: Its parameters, as JSON values.
        raw: Native root, absolute.
        out: Output folder, absolute.
        selection: What was asked for.
        refs: Selected scenes, in the converter's order.
        todo: Ids of those that have to be converted.
        left_over: Scene files in `out` that the native tree does not account for; empty unless the selection
            is everything.
    """

    dataset: str
    version: str
    params: dict[str, Any]
    raw: Path
    out: Path
    selection: Selection
    refs: tuple[SceneRef, ...]
    todo: frozenset[str]
    left_over: tuple[str, ...]


def make_plan(
    dataset: str,
    converter: Converter,
    params: Any,
    plain: dict[str, Any],
    raw: Path,
    out: Path,
    selection: Selection,
    force: bool = False,
) -> Plan:
    """List the selected scenes and find out which ones are already there.

    Args:
        dataset: Converter's name.
        converter: Its module.
        params: Its `Params`.
        plain: The same as JSON values.
        raw: Native root, absolute.
        out: Output folder, absolute; need not exist.
        selection: Which scenes.
        force: Convert also what is already there.

    Raises:
        LayoutError: The root is not this dataset, or is empty.
        ConventionError: The converter gives an id twice or one that cannot be a file name.
        UsageError: Nothing matches the selection.
    """
    everything = _checked(converter.scenes(raw, params), dataset, raw)
    refs = select(everything, selection, raw)
    todo = frozenset(
        ref.id
        for ref in refs
        if force or not is_there(out / f"{ref.id}{SCENE_SUFFIX}", dataset, converter.VERSION, plain, ref)
    )
    left_over = _left_over(out, {ref.id for ref in everything}) if selection.is_everything else ()
    return Plan(dataset, converter.VERSION, plain, raw, out, selection, refs, todo, left_over)


def check_folders(raw: Path, out: Path) -> None:
    """Check two resolved paths before anything is read or made.

    Raises:
        LayoutError: There is nothing at `raw`.
        UsageError: `out` lies inside `raw`, or is a file.
    """
    if not raw.exists():
        raise LayoutError("The native root does not exist", where=raw, expected="a folder")
    if out == raw or raw in out.parents:
        raise UsageError(
            "The output folder lies inside the native tree",
            where=out,
            expected=f"a folder outside {raw}",
            mend="choose another output folder; native files are never written beside",
        )
    if out.exists() and not out.is_dir():
        raise UsageError("The output is not a folder", where=out, expected="a folder, or nothing yet")


def _checked(refs: Iterable[SceneRef], dataset: str, raw: Path) -> tuple[SceneRef, ...]:
    seen: set[str] = set()
    out = []
    for ref in refs:
        if not _SAFE_ID.fullmatch(ref.id):
            raise ConventionError(
                "A scene id cannot be a file name",
                where=f"converter {dataset}, {raw}",
                expected="letters, digits, '.', '_' and '-', not starting with '.'",
                found=repr(ref.id),
            )
        if ref.id in seen:
            raise ConventionError(
                "Two scenes of the native tree have the same id",
                where=f"converter {dataset}, {raw}",
                expected="unique ids",
                found=ref.id,
                mend="convert the parts of the tree one by one into folders of their own",
            )
        seen.add(ref.id)
        out.append(ref)
    if not out:
        raise LayoutError(
            f"No scene of {dataset} was found",
            where=raw,
            expected="at least one scene",
            mend=f"datakit probe {dataset} {raw}",
        )
    return tuple(out)


def select(refs: tuple[SceneRef, ...], selection: Selection, raw: Path) -> tuple[SceneRef, ...]:
    """Return the scenes that a selection asks for.

    Raises:
        UsageError: There are none; the message shows what there is.
    """
    if selection.limit is not None and selection.limit < 1:
        raise UsageError("The limit must be at least one scene", where="--limit", found=selection.limit)
    splits = sorted({ref.split for ref in refs})
    if selection.split is not None and selection.split not in splits:
        raise UsageError(
            "The native tree has no such split",
            where=f"--split, {raw}",
            expected=f"one of: {', '.join(splits)}",
            found=selection.split,
        )
    chosen = [
        ref for ref in refs if selection.split in (None, ref.split) and fnmatchcase(ref.id, selection.scenes)
    ]
    if not chosen:
        examples = ", ".join(ref.id for ref in refs[:3]) + (", ..." if len(refs) > 3 else "")
        raise UsageError(
            "No scene matches the pattern",
            where=f"--scenes, {raw}",
            expected=f"a pattern for ids such as {examples}",
            found=selection.scenes,
        )
    return tuple(chosen[: selection.limit])


def is_there(path: Path, dataset: str, version: str, params: dict[str, Any], ref: SceneRef) -> bool:
    """Whether a scene file opens and was made from the same input in the same way."""
    if not path.is_file():
        return False
    try:
        with open_scene(path) as scene:
            made = scene.provenance
            return (
                scene.id == ref.id
                and scene.schema_version == SCHEMA_VERSION
                and made["converter"] == dataset
                and made["converter_version"] == version
                and made["params"] == params
                and made["fingerprint"] == ref.fingerprint
            )
    except DatakitError:
        return False  # damaged or of another contract version: converted again


def _left_over(out: Path, ids: set[str]) -> tuple[str, ...]:
    found = sorted(path.name for path in out.glob(f"*{SCENE_SUFFIX}"))
    return tuple(name for name in found if name.removesuffix(SCENE_SUFFIX) not in ids)


def remove_partials(out: Path) -> list[str]:
    """Delete what a killed run left half-written. Call it only while holding the folder's lock.

    Returns:
        Names of the deleted files.
    """
    found = sorted(out.glob(f"*{PARTIAL_SUFFIX}"))
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]
