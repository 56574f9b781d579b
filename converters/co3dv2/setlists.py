"""Which frames of which sequence the set lists name, and for what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from datakit.errors import FormatError

from .params import SUBSETS

#: subset -> "train", "val" or "test" -> frame numbers, sorted, each once.
Membership = Mapping[str, Mapping[str, tuple[int, ...]]]

FILE = re.compile(r"set_lists_([a-z0-9_]+)\.json")
#: The list of a large category has some 10 MB.
MAX_BYTES = 64 << 20


def read_lists(category: Path) -> dict[str, Membership]:
    """Read all set lists of a category's folder.

    A frame that a list names twice, or under two names, is in both but counted once in each.

    Returns:
        Sequence name -> its membership.

    Raises:
        FormatError: A list is not {"train", "val", "test"} -> [sequence, frame number, path].
    """
    folder = category / "set_lists"
    out: dict[str, dict[str, Mapping[str, tuple[int, ...]]]] = {}
    if not folder.is_dir():
        return {}
    for path in sorted(folder.iterdir()):
        match = FILE.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        stat = path.stat()
        for sequence, parts in _read(path, stat.st_size, stat.st_mtime_ns).items():
            out.setdefault(sequence, {})[match[1]] = parts
    return dict(out)


@lru_cache(maxsize=8)
def _read(path: Path, size: int, mtime_ns: int) -> dict[str, Mapping[str, tuple[int, ...]]]:
    if size > MAX_BYTES:
        raise FormatError(
            "A set list is absurdly large.", where=path, expected=f"below {MAX_BYTES}", found=size
        )
    return parse_list(path.read_bytes(), str(path))


def parse_list(data: bytes, where: str) -> dict[str, Mapping[str, tuple[int, ...]]]:
    """Parse one set list: sequence -> part -> frame numbers.

    Raises:
        FormatError: See `read_lists`.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise FormatError("A set list is not JSON.", where=where, found=err) from err
    if not isinstance(value, dict):
        raise FormatError("A set list is not an object.", where=where, found=type(value).__name__)
    found: dict[str, dict[str, set[int]]] = {}
    for part, entries in value.items():
        if not isinstance(entries, list):
            raise FormatError("A part of a set list is not a list.", where=f"{where}: {part[:40]}")
        for k, entry in enumerate(entries):
            sequence, number = _entry(entry, f"{where}: {part[:40]}[{k}]")
            found.setdefault(sequence, {}).setdefault(part, set()).add(number)
    return {
        sequence: {part: tuple(sorted(numbers)) for part, numbers in sorted(parts.items())}
        for sequence, parts in found.items()
    }


def _entry(entry: Any, where: str) -> tuple[str, int]:
    if (
        isinstance(entry, list)
        and len(entry) >= 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], int)
        and not isinstance(entry[1], bool)
    ):
        return entry[0], entry[1]
    raise FormatError(
        "Not an entry of a set list.",
        where=where,
        expected="[sequence, frame number, path]",
        found=repr(entry)[:80],
    )


def split_of(membership: Membership) -> str:
    """Return the split of a sequence: that of the strictest subset that names it, or "none"."""
    return next((split for subset, split in SUBSETS.items() if subset in membership), "none")


def frames_of(membership: Membership, subset: str) -> frozenset[int]:
    """Return all frame numbers that a subset names."""
    return frozenset(number for numbers in membership.get(subset, {}).values() for number in numbers)
