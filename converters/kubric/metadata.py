"""JSON files of a clip, whose trajectories become arrays while they are parsed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datakit.errors import FormatError


def parse_json(data: bytes, where: Path | str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        FormatError: Not JSON (truncated, wrong encoding) or not an object.
    """
    try:
        value = json.loads(data, object_hook=_with_arrays)
    except UnicodeDecodeError as err:
        raise FormatError(
            "Not UTF-8 JSON.", where=f"{where}: byte {err.start}", expected="UTF-8", found=err
        ) from err
    except json.JSONDecodeError as err:
        raise FormatError(
            "Not valid JSON; the file may be truncated.",
            where=f"{where}: character {err.pos} of {len(data)}",
            expected="JSON",
            found=err.msg,
        ) from err
    except (RecursionError, ValueError) as err:  # nested too deep, or a number of thousands of digits
        raise FormatError("JSON that cannot be parsed.", where=where, found=err) from err
    if not isinstance(value, dict):
        raise FormatError("Not a JSON object.", where=where, expected="an object", found=type(value).__name__)
    return value


def _with_arrays(item: dict[str, Any]) -> dict[str, Any]:
    """Turn the trajectories of a camera or an instance into arrays as soon as it is parsed.

    As lists of lists they take ten times the memory, and a clip's metadata holds those of all its frames.
    What is no regular array of numbers stays a list, for `numbers` to report.
    """
    if "quaternions" not in item:
        return item
    out = dict(item)
    for name, value in item.items():
        if isinstance(value, list) and value and isinstance(value[0], list):
            with suppress(TypeError, ValueError):
                out[name] = np.asarray(value, dtype=np.float64)
    return out
