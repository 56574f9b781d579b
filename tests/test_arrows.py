"""Imports point one way; see docs/decisions.md for the picture. Read from the source, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: From the ground up. A room may import rooms of lower floors; of its own floor only as `NEIGHBOURS` says.
FLOORS = (
    ("errors",),
    ("schema",),
    ("geometry",),
    ("scene", "motion"),
    ("worlds", "converters", "convert", "certify", "shards", "covisibility", "export"),
    ("stream", "queries"),
    ("adapters",),
    ("d4rt",),
    ("infer", "evaluate", "label", "critic", "show"),
    ("train",),
    ("cli",),
)
NEIGHBOURS = {
    ("scene", "motion"),
    ("motion", "scene"),
    ("converters", "convert"),
    ("converters", "export"),
    ("converters", "worlds"),
    ("convert", "worlds"),
    ("evaluate", "infer"),
    ("certify", "covisibility"),
    ("export", "covisibility"),
    ("infer", "show"),
    ("shards", "covisibility"),
    ("shards", "convert"),
    ("stream", "queries"),
    ("stream", "shards"),
}
#: Rooms that work without torch: everything below `stream`, and what only looks at scenes or starts verbs.
WITHOUT_TORCH = {room for floor in FLOORS[:5] for room in floor} | {"show", "cli"}
#: Opens `.pth` files, inside its functions.
TORCH_INSIDE_FUNCTIONS = {"converters/dynamic_replica"}

FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def sources() -> list[Path]:
    return [path for top in ("datakit", "converters") for path in sorted((ROOT / top).rglob("*.py"))]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "converters":
        return "converters"
    return Path(parts[1]).stem  # `__init__` for datakit itself


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Yield the absolute dotted names that a file imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk everything that runs at import: not the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from top_level(node)


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "converters":
            rooms.add("converters")
        elif parts[0] == "datakit" and len(parts) > 1 and parts[1] in FLOOR_OF:
            rooms.add(parts[1])
    return rooms


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in sources()} - {"__init__", "__main__"}
    assert rooms and rooms <= set(FLOOR_OF)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    room = room_of(path)
    found = imported_rooms(path)
    if room == "__init__":  # the front door shows what users start with, and no more than that
        assert not found & {"cli", "converters"}
        return
    if room == "__main__":
        return
    for other in found - {room}:
        is_lower = FLOOR_OF[other] < FLOOR_OF[room]
        assert is_lower or (room, other) in NEIGHBOURS, f"{room} must not import {other}"
    if room != "converters":
        assert "converters" not in found, "converters are found through entry points"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_torch_below_stream(path: Path):
    if room_of(path) not in WITHOUT_TORCH | {"__init__"}:
        return
    inside_functions_only = str(path.relative_to(ROOT)).startswith(tuple(TORCH_INSIDE_FUNCTIONS))
    heavy = {name.split(".")[0] for name in imports(path, top_level_only=inside_functions_only)}
    assert not heavy & {"torch", "torchvision", "tensorflow"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_where_they_are_used(path: Path):
    heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    assert not heavy & {
        "ray",
        "pycolmap",
        "dvc",
        "matplotlib",
        "torch",
        "evo",
        "imagehash",
        "rerun",
    } or room_of(path) in (
        "d4rt",
        "infer",
        "stream",
        "train",
    )


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "datakit" / "schema"
    folder.mkdir(parents=True)
    file = folder / "x.py"
    file.write_text(
        "import datakit.cli.show\nfrom .. import certify\nfrom ..worlds import a\n"
        "from .validate import b\ndef f():\n    import torch\n    from converters.kubric import c\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert imported_rooms(file) == {"cli", "certify", "worlds", "schema", "converters"}
    assert "torch" in set(imports(file)) and "torch" not in set(imports(file, top_level_only=True))
