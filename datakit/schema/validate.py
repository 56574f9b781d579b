"""Check records against their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from datakit.errors import ConventionError

from .contract import Field, table
from .rules import RULES

Dims = dict[str, int]


def check_record(record: str, values: Mapping[str, Any], where: str, dims: Dims) -> list[ConventionError]:
    """Compare the fields of one record with its table. Nested records are not entered.

    Args:
        record: Name of the table.
        values: Field name -> value; None counts as absent.
        where: Name of the record in messages.
        dims: Lengths of named axes known so far; axes seen first here are added.

    Returns:
        Every problem found, in the table's order; empty for a good record.
    """
    fields = table(record).fields
    problems = [
        ConventionError("Unknown field", where=f"{where}.{name}", expected=sorted(fields), found=name)
        for name in values
        if name not in fields
    ]
    for name, spec in fields.items():
        value = values.get(name)
        at = f"{where}.{name}"
        if value is None:
            if spec.required:
                problems.append(
                    ConventionError(
                        "A required field is missing", where=at, expected=spec.doc, found="nothing"
                    )
                )
            continue
        wrong = _check_kind(spec, value, dims)
        if wrong is None:
            wrong = _check_rules(spec, value) or _check_known(spec, value, values)
        if wrong is not None:
            problems.append(
                ConventionError("A field breaks the contract", where=at, expected=describe(spec), found=wrong)
            )
    return problems


def require_record(record: str, values: Mapping[str, Any], where: str, dims: Dims | None = None) -> None:
    """Raise the first problem of a record.

    Raises:
        ConventionError: Naming field, expected and found, and how many more problems there are.
    """
    raise_first(check_record(record, values, where, {} if dims is None else dims))


def raise_first(problems: list[ConventionError]) -> None:
    """Raise the first of some problems, saying how many more there are; do nothing for none."""
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConventionError(
            first.what + more, where=first.where, expected=first.expected, found=first.found
        )


def describe(spec: Field) -> str:
    """Say in one line what a field must be."""
    if spec.kind == "enum":
        return "one of " + ", ".join(spec.values)
    if spec.kind == "const":
        return repr(spec.value)
    if spec.kind in ("array", "arrays", "strings"):
        axes = ", ".join(map(str, spec.axes))
        parts = [f"({axes}{',' if len(spec.axes) == 1 else ''})", spec.dtype, spec.unit]
        return " ".join(p for p in parts if p)
    if spec.length is not None:
        return f"{spec.length} {'integers' if spec.kind == 'ints' else 'numbers'}"
    return spec.kind


def _check_kind(spec: Field, value: Any, dims: Dims) -> str | None:
    match spec.kind:
        case "string":
            return None if isinstance(value, str) else type(value).__name__
        case "int":
            ok = isinstance(value, int | np.integer) and not isinstance(value, bool)
            return None if ok else repr(value)
        case "bool":
            return None if isinstance(value, bool | np.bool_) else repr(value)
        case "enum":
            return None if value in spec.values else repr(value)
        case "const":
            return None if value == spec.value else repr(value)
        case "ints" | "floats":
            return _check_numbers(spec, value)
        case "strings":
            if not all(isinstance(v, str) for v in value):
                return "not all are texts"
            return _bind_axes(spec, (len(value),), dims)
        case "array":
            return _check_array(spec, value, dims)
        case "arrays":
            wrong = ((name, _check_array(spec, arr, dims | {"T": -1})) for name, arr in value.items())
            return next((f"{name}: {message}" for name, message in wrong if message), None)
        case "records":
            unknown = [name for name in value if spec.keys and name not in spec.keys]
            return f"unknown names {unknown}, known are {list(spec.keys)}" if unknown else None
        case _:
            return None  # json and record: any value, entered by the caller


def _check_numbers(spec: Field, value: Any) -> str | None:
    allowed = (int, np.integer) if spec.kind == "ints" else (int, float, np.integer, np.floating)
    if isinstance(value, str) or not all(isinstance(v, allowed) for v in value):
        return repr(value)
    if spec.length is not None and len(value) != spec.length:
        return f"{len(value)} values"
    return None


def _check_array(spec: Field, value: Any, dims: Dims) -> str | None:
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    allowed = ("float32", "float64") if spec.dtype == "float" else (spec.dtype,)
    if value.dtype.name not in allowed:
        return f"dtype {value.dtype.name}"
    wrong = _bind_axes(spec, value.shape, dims)
    if wrong is None and spec.codes and value.size:
        codes = set(np.unique(value).tolist())
        if codes - set(spec.codes):
            return f"codes {sorted(codes - set(spec.codes))}, known are {sorted(spec.codes)}"
    return wrong


def _bind_axes(spec: Field, shape: tuple[int, ...], dims: Dims) -> str | None:
    if len(shape) != len(spec.axes):
        return f"shape {shape}"
    for axis, length in zip(spec.axes, shape, strict=True):
        want = axis if isinstance(axis, int) else dims.setdefault(axis, length)
        if want not in (length, -1):  # -1: bound elsewhere, any length here
            return f"shape {shape}, but {axis} is {want}"
    return None


def _check_rules(spec: Field, value: Any) -> str | None:
    for name in spec.rules:
        message = RULES[name](value)
        if message is not None:
            return message
    return None


def _check_known(spec: Field, value: Any, values: Mapping[str, Any]) -> str | None:
    if spec.invalid != "nan" or not spec.known_by:
        return None
    mask = values.get(spec.known_by)
    if not isinstance(mask, np.ndarray) or mask.shape != value.shape[: mask.ndim]:
        return None  # the mask's own row reports it
    finite = np.isfinite(value).reshape(*mask.shape, -1)
    half_known = np.flatnonzero(finite.all(axis=-1) != mask)
    if half_known.size:
        return f"values disagree with {spec.known_by} first at index {int(half_known[0])}"
    return None
