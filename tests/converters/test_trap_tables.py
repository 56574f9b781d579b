"""The tables of traps in docs/datasets name tests that are there, and leave none out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("dataset", ["blendedmvs", "co3dv2", "scannet", "colmap"])
def test_every_trap_has_its_named_test(dataset: str) -> None:
    text = (ROOT / "docs" / "datasets" / f"{dataset}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (`.+`) \|$", text.split("## Traps")[1], re.MULTILINE)
    named = {name for _, names in rows for name in re.findall(r"`([^`]+)`", names)}
    named = {name if name.startswith("test_") else f"test_trap_{name}" for name in named}
    there = set()
    for path in (ROOT / "tests" / "converters" / dataset).glob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        there |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert len(rows) >= 10 and named <= there, sorted(named - there)
    left_out = {name for name in there if name.startswith("test_trap_")} - named
    assert not left_out, sorted(left_out)
