"""Read the field tables in `schemas/`: the single source of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

#: Version of the contract. The part before the dot changes when old readers cannot read new scenes.
SCHEMA_VERSION = "2.0"

RECORD_NAMES = ("scene", "view", "layer", "motion", "provenance", "clip", "query", "certificate")

#: Kinds of fields and what a value of each is.
KINDS = {
    "string": "text",
    "int": "integer",
    "bool": "true or false",
    "enum": "one of the listed values",
    "const": "exactly the given value",
    "ints": "list of integers",
    "floats": "list of numbers",
    "strings": "list of texts",
    "json": "any JSON value",
    "array": "numeric array",
    "arrays": "numeric arrays by name",
    "record": "a record of the named kind",
    "records": "records of the named kind by name",
}


@dataclass(frozen=True)
class Field:
    """One row of a table.

    Attributes:
        name: Field name.
        kind: Key of `KINDS`.
        doc: What it means.
        axes: For arrays and strings: axis names (bound on first sight) or fixed lengths.
        dtype: Numpy dtype name; "float" admits float32 and float64.
        unit: Physical unit.
        frame: Coordinate frame.
        invalid: "nan" where NaN stands for unknown; else every value is valid.
        known_by: Name of the bool field that says which entries are known.
        required: False where the field may be absent.
        values: For enums: value -> meaning.
        codes: For integer arrays: code -> meaning.
        value: For const fields.
        length: For ints and floats: exact length.
        record: For record and records: which table.
        keys: For records: allowed names -> meaning; empty for any.
        rules: Names in `datakit.schema.rules.RULES`.
    """

    name: str
    kind: str
    doc: str
    axes: tuple[str | int, ...] = ()
    dtype: str = ""
    unit: str = ""
    frame: str = ""
    invalid: str = ""
    known_by: str = ""
    required: bool = True
    values: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[int, str] = field(default_factory=dict)
    value: str = ""
    length: int | None = None
    record: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One record of the contract."""

    name: str
    doc: str
    fields: Mapping[str, Field]


def _parse(text: str) -> Table:
    raw: dict[str, Any] = yaml.safe_load(text)
    fields = {}
    for name, row in raw["fields"].items():
        row = dict(row)
        for key in ("axes", "rules"):
            row[key] = tuple(row.get(key, ()))
        row["doc"] = " ".join(row["doc"].split())
        fields[name] = Field(name=name, **row)
    return Table(raw["record"], " ".join(raw["doc"].split()), fields)


@cache
def table(record: str) -> Table:
    """Return the field table of a record.

    Args:
        record: One of `RECORD_NAMES`.

    Raises:
        KeyError: No such record.

    >>> table("view").fields["world_from_cam"].axes
    ('T', 4, 4)
    """
    if record not in RECORD_NAMES:
        raise KeyError(record)
    return _parse((_tables_folder() / f"{record}.yaml").read_text(encoding="utf-8"))


def _tables_folder() -> Traversable:
    try:
        return files("datakit.schema.tables")  # installed: `schemas/` travels under this name
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "schemas"  # a source checkout that is not installed
