from dataclasses import fields
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from datakit.errors import ConventionError
from datakit.scene import LayerRecord, MotionRecord, Provenance, SceneRecord, ViewRecord
from datakit.schema import (
    RECORD_NAMES,
    check_record,
    docs_page,
    json_schema,
    require_record,
    table,
    write_docs,
)
from datakit.schema.rules import RULES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", RECORD_NAMES)
def test_every_table_is_whole(name: str) -> None:
    tab = table(name)
    assert tab.name == name and tab.doc
    for spec in tab.fields.values():
        assert spec.doc, spec.name
        assert set(spec.rules) <= set(RULES), spec.name
        if spec.kind in ("array", "arrays"):
            assert spec.axes and spec.dtype, spec.name
        if spec.kind == "enum":
            assert spec.values, spec.name
        if spec.record:
            assert spec.record in RECORD_NAMES
        if spec.known_by:
            assert spec.known_by in tab.fields


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("scene", SceneRecord),
        ("view", ViewRecord),
        ("layer", LayerRecord),
        ("motion", MotionRecord),
        ("provenance", Provenance),
    ],
)
def test_dataclasses_have_the_tables_fields(name: str, record: type) -> None:
    in_table = {spec.name for spec in table(name).fields.values() if spec.kind != "const"}
    streamed = {"sources"} if name == "provenance" else set()  # known only once the frames are read
    assert {f.name for f in fields(record)} == in_table - streamed


def test_generated_files_are_fresh(tmp_path: Path) -> None:
    for made in write_docs(tmp_path):
        committed = ROOT / made.relative_to(tmp_path)
        assert committed.read_text() == made.read_text(), f"run `datakit schema`: {committed.name} is stale"


@pytest.mark.parametrize("name", RECORD_NAMES)
def test_json_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(name))


def test_docs_name_every_field() -> None:
    page = docs_page()
    for name in RECORD_NAMES:
        for field in table(name).fields:
            assert f"`{field}`" in page


def query(count: int = 5) -> dict[str, np.ndarray]:
    times = np.zeros(count, np.int64)
    mask = np.ones(count, bool)
    values = {
        "uv": np.full((count, 2), 0.5, np.float32),
        "t_src": times,
        "t_tgt": times,
        "t_cam": times,
        "patch": np.zeros((count, 3, 9, 9), np.uint8),
        "xyz": np.ones((count, 3), np.float32),
        "target_uv": np.ones((count, 2), np.float32),
        "visible": mask,
        "displacement": np.zeros((count, 3), np.float32),
        "normal": np.ones((count, 3), np.float32),
    }
    return values | {f"has_{name}": mask for name in ("xyz", "uv", "visible", "displacement", "normal")}


def test_a_good_record_passes() -> None:
    assert check_record("query", query(), "query", {}) == []


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        ({"uv": np.full((5, 2), 0.5)}, "query.uv", "dtype float64"),
        ({"uv": np.full((4, 2), 0.5, np.float32)}, "query.t_src", "shape (5,), but N is 4"),
        ({"uv": np.full((5, 2), 1.5, np.float32)}, "query.uv", "range is [1.5, 1.5]"),
        ({"xyz": np.full((5, 3), np.nan, np.float32)}, "query.xyz", "disagree with has_xyz"),
        ({"t_tgt": None}, "query.t_tgt", "nothing"),
        ({"patch": [1, 2]}, "query.patch", "list"),
        ({"depth": np.zeros(5)}, "query.depth", "depth"),
    ],
)
def test_each_break_of_the_contract_is_named(change: dict, field: str, found: str) -> None:
    with pytest.raises(ConventionError) as error:
        require_record("query", query() | change, "query")
    assert error.value.where == field
    assert found in error.value.found
    assert error.value.expected
