"""Find converters through the entry-point group `datakit.converters`, and check their parameters."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from datakit.errors import UsageError

from .api import Converter

GROUP = "datakit.converters"

_REQUIRED_NAMES = ("CARD", "VERSION", "Params", "NATIVE_FORMS", "probe", "scenes", "read", "write_native")


def installed() -> dict[str, EntryPoint]:
    """Return the entry point of every installed converter by name, sorted; nothing is imported."""
    return dict(_installed(tuple(sys.path)))


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Look once a process and path: it reads the metadata of every installed package, and each scene asks."""
    # An editable install leaves a second copy of its metadata in the source tree; the first one found wins.
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def load_converter(name: str) -> Converter:
    """Import a converter by its name.

    Args:
        name: Name of an entry point, e.g. "kubric".

    Raises:
        UsageError: No such converter is installed, or its package is broken (which is then named).
    """
    available = installed()
    if name not in available:
        raise _unknown(name, list(available))
    entry = available[name]
    try:
        converter = entry.load()
    except Exception as error:  # a third party's import can fail in any way
        raise UsageError(
            f"The converter {name!r} cannot be imported",
            where=_origin(entry),
            expected="a module that imports",
            found=f"{type(error).__name__}: {error}",
            mend="repair or uninstall that package",
        ) from error
    missing = [attribute for attribute in _REQUIRED_NAMES if not hasattr(converter, attribute)]
    if missing:
        raise UsageError(
            f"The converter {name!r} is not a converter",
            where=_origin(entry),
            expected=", ".join(_REQUIRED_NAMES),
            found=f"no {', '.join(missing)}",
            mend="see datakit.convert.api.Converter",
        )
    return converter


def _unknown(name: str, available: list[str]) -> UsageError:
    near = get_close_matches(name, available, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "`datakit converters` lists them"
    )
    return UsageError(
        f"No converter is called {name!r}",
        expected=f"one of: {', '.join(available)}" if available else "an installed converter (there is none)",
        found=repr(name),
        mend=hint,
    )


def _origin(entry: EntryPoint) -> str:
    package = f" of package {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    return f"entry point {entry.name} = {entry.value}{package}"


def make_params(name: str, converter: Converter, values: Mapping[str, Any] | None = None) -> Any:
    """Build a converter's `Params` from plain values or texts.

    Args:
        name: Converter's name, for messages.
        converter: Its module.
        values: Parameter -> value; texts are converted to the declared type.

    Raises:
        UsageError: An unknown parameter, or a value of the wrong type.
    """
    plain = {key: _structured(value) for key, value in (values or {}).items()}
    try:
        return TypeAdapter(converter.Params).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        # `Literal | int` and the like add a branch name to the location; the field comes first.
        field = str(first["loc"][0]) if first["loc"] else "parameters"
        raise _bad_param(name, converter, field, plain, str(first["msg"])) from error


def _structured(value: Any) -> Any:
    """Turn the text of a list or mapping into one; other texts stay for pydantic to convert."""
    if isinstance(value, str) and value[:1] in "[{" and value:
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return value


def _bad_param(
    name: str, converter: Converter, field: str, values: Mapping[str, Any], message: str
) -> UsageError:
    known = param_defaults(converter)
    if field not in known:
        near = get_close_matches(field, known, n=1)
        return UsageError(
            f"The converter {name!r} has no parameter {field!r}",
            where=f"--param {field}",
            expected=f"one of: {', '.join(known)}" if known else "no parameters",
            found=field,
            mend=f"did you mean {near[0]!r}?" if near else None,
        )
    return UsageError(
        f"Parameter {field!r} of converter {name!r} has a wrong value",
        where=f"--param {field}",
        expected=message,
        found=repr(values.get(field)),
    )


def param_defaults(converter: Converter) -> dict[str, Any]:
    """Return the parameters of a converter with their defaults (None where one is required)."""
    schema = TypeAdapter(converter.Params).json_schema()
    return {key: item.get("default") for key, item in schema.get("properties", {}).items()}


def plain_params(params: Any) -> dict[str, Any]:
    """Return parameters as JSON values, as they are stored in a scene's provenance."""
    dumped = TypeAdapter(type(params)).dump_python(params, mode="json")
    return dict(json.loads(json.dumps(dumped, sort_keys=True)))
