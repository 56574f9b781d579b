"""Make the JSON Schema files and the docs page from the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .contract import KINDS, RECORD_NAMES, SCHEMA_VERSION, Field, Table, table
from .validate import describe

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "ints": {"type": "array", "items": {"type": "integer"}},
    "floats": {"type": "array", "items": {"type": "number"}},
    "strings": {"type": "array", "items": {"type": "string"}},
    "json": {},
}


def json_schema(record: str) -> dict[str, Any]:
    """Return the JSON Schema of a record as `datakit info --json` prints it.

    Arrays appear as {"dtype", "shape"}: their values stay in the scene file.

    >>> json_schema("scene")["properties"]["scale"]["enum"]
    ['metric', 'sfm', 'unknown']
    """
    fields = table(record).fields
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"datakit-{record}-{SCHEMA_VERSION}",
        "title": record,
        "description": table(record).doc,
        "type": "object",
        "properties": {name: _field_schema(spec) for name, spec in fields.items()},
        "required": [name for name, spec in fields.items() if spec.required],
        "additionalProperties": False,
    }


def _field_schema(spec: Field) -> dict[str, Any]:
    out = dict(_JSON_TYPES.get(spec.kind, {}))
    out["description"] = spec.doc
    if spec.kind == "enum":
        out["enum"] = list(spec.values)
    elif spec.kind == "const":
        out["const"] = spec.value
    elif spec.kind == "array":
        out |= _array_schema(spec)
    elif spec.kind == "arrays":
        out |= {"type": "object", "additionalProperties": _array_schema(spec)}
    elif spec.kind == "record":
        out["$ref"] = f"{spec.record}.schema.json"
    elif spec.kind == "records":
        out |= {"type": "object", "additionalProperties": {"$ref": f"{spec.record}.schema.json"}}
        if spec.keys:
            out["propertyNames"] = {"enum": list(spec.keys)}
    if spec.length is not None:
        out |= {"minItems": spec.length, "maxItems": spec.length}
    return out


def _array_schema(spec: Field) -> dict[str, Any]:
    dtypes = ["float32", "float64"] if spec.dtype == "float" else [spec.dtype]
    shape = [{"const": axis} if isinstance(axis, int) else {"type": "integer"} for axis in spec.axes]
    return {
        "type": "object",
        "properties": {
            "dtype": {"enum": dtypes},
            "shape": {"type": "array", "prefixItems": shape, "minItems": len(shape), "maxItems": len(shape)},
        },
        "required": ["dtype", "shape"],
        "additionalProperties": False,
    }


def docs_page() -> str:
    """Return the contract as one Markdown page."""
    parts = [
        "# The contract\n",
        f"Version {SCHEMA_VERSION}. Made from the tables in `schemas/` by `datakit schema`; do not edit by hand.\n",
        "Axes: T frames of a view, M samples of the motion clock, I instances, N points, S rows or columns.\n",
    ]
    return "\n".join(parts + [_record_page(table(name)) for name in RECORD_NAMES])


def _record_page(tab: Table) -> str:
    lines = [
        f"## {tab.name}\n",
        f"{tab.doc}\n",
        "| field | is | frame | unknown | meaning |",
        "|---|---|---|---|---|",
    ]
    for spec in tab.fields.values():
        invalid = "NaN" if spec.invalid else ""
        if spec.known_by:
            invalid = f"{invalid or 'any value'} where `{spec.known_by}` is false"
        name = f"`{spec.name}`" + ("" if spec.required else " (optional)")
        meaning = spec.doc + _choices(spec)
        what = describe(spec) if spec.kind not in KINDS or describe(spec) != spec.kind else KINDS[spec.kind]
        if spec.record:
            what += f" `{spec.record}`"
        lines.append(f"| {name} | {what} | {spec.frame} | {invalid} | {meaning} |")
    return "\n".join(lines) + "\n"


def _choices(spec: Field) -> str:
    rows = spec.values or spec.keys or {str(code): text for code, text in spec.codes.items()}
    return "".join(f"<br>`{key}`: {text}" for key, text in rows.items())


def write_docs(root: Path) -> list[Path]:
    """Write the JSON Schema files under `root/schemas/json` and the page `root/docs/contract.md`.

    Returns:
        The files written.
    """
    outputs = {
        root / "schemas" / "json" / f"{name}.schema.json": json.dumps(json_schema(name), indent=2) + "\n"
        for name in RECORD_NAMES
    }
    outputs[root / "docs" / "contract.md"] = docs_page()
    for path, text in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(outputs)
