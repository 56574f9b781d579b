"""Lists of evaluation scenes: those that come with the package, and those a user names."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from datakit.errors import FormatError, LayoutError, UsageError

_FILE = Path(__file__).with_name("lists.yaml")


@cache
def evaluation_lists() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return benchmark -> list name -> clip names, as `lists.yaml` holds them with their sources."""
    raw = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {
        benchmark: {name: tuple(names.split()) for name, names in lists.items()}
        for benchmark, lists in raw.items()
    }


def choose(
    asked: Iterable[str] | None, there: Iterable[str], source: str
) -> tuple[list[str], tuple[str, ...]]:
    """Split names into those that are there and those that are missing.

    Args:
        asked: Names, with or without `source/` before them and a suffix; None for all that are there.
        there: Names in the folder.
        source: The part of the benchmark; names of other parts are passed over.

    Returns:
        Names to use in the order asked (or sorted), and the missing ones as `source/name`.
    """
    present = set(there)
    if asked is None:
        return sorted(present), ()
    plain = []
    for name in asked:
        part, _, rest = name.rpartition("/")
        if not part or part == source:
            plain.append(rest.removesuffix(".npz").removesuffix(".h5"))
    plain = list(dict.fromkeys(plain))
    missing = tuple(f"{source}/{name}" for name in plain if name not in present)
    return [name for name in plain if name in present], missing


def read_list(path: Path, split: str | None = None) -> tuple[str, ...]:
    """Read a list of clips.

    Args:
        path: Text of one name a line ("#" begins a comment); or a `.py` file such as TAPVid-3D's
            `tapvid3d_splits.py`, of whose literals `<SPLIT>_FILES` is read; nothing is run.
        split: For a `.py` file: "minival" or "full_eval".

    Returns:
        Names; `source/name` where the file groups them by source.

    Raises:
        LayoutError: No such file.
        FormatError: Not a list.
        UsageError: The file has no such split.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LayoutError("No such list", where=path, found=error.strerror) from error
    except UnicodeDecodeError as error:
        raise FormatError("Not a text file", where=path, found=error) from error
    if path.suffix == ".py":
        return _python_list(path, text, split)
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    names = tuple(line for line in lines if line)
    if not names:
        raise FormatError("A list is empty", where=path, expected="one name a line")
    return names


def _python_list(path: Path, text: str, split: str | None) -> tuple[str, ...]:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormatError("Not a Python file", where=path, found=error) from error
    tables = {
        target.id: node.value
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.endswith("_FILES")
    }
    wanted = f"{(split or '').upper()}_FILES"
    if wanted not in tables:
        known = ", ".join(name.removesuffix("_FILES").lower() for name in tables)
        raise UsageError("The list has no such split", where=path, expected=known, found=split)
    try:
        value = ast.literal_eval(tables[wanted])
        return tuple(f"{source}/{name}" for source, names in value.items() for name in names)
    except (ValueError, AttributeError, TypeError) as error:
        raise FormatError("A split is no table of names", where=path, found=error) from error
