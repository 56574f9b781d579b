"""Results on disk: dataclasses of arrays as .npz files, tied to the job that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError

from .files import read_npz, write_npz

_NONE = "__none__"
_IDENTITY = "__identity__"
T = TypeVar("T")


def save_result(path: Path, result: Any, identity: str) -> None:
    """Write a dataclass of arrays, numbers, texts, tuples of numbers, None, and further such dataclasses.

    Args:
        path: File to write; it appears when it is whole.
        result: The dataclass.
        identity: Hash of the job that made it.
    """
    arrays = {name: np.asarray(value) for name, value in _pack(result, "").items()}
    write_npz(path, arrays | {_IDENTITY: np.array(identity)})


def load_result(path: Path, kind: type[T], identity: str) -> T | None:
    """Read what `save_result` wrote.

    Returns:
        The result; None where it was made by another job.

    Raises:
        FormatError: The file is damaged, or holds other fields.
    """
    arrays = read_npz(path)
    if str(arrays.pop(_IDENTITY, "")) != identity:
        return None
    try:
        return _unpack(kind, arrays, "")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError("A result lacks fields", where=path, expected=kind.__name__, found=error) from error


def _pack(value: Any, name: str) -> dict[str, Any]:
    if is_dataclass(value):
        packed: dict[str, Any] = {}
        for field in fields(value):
            packed |= _pack(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
        return packed
    return {f"{name}.{_NONE}": 0} if value is None else {name: value}


def _unpack(kind: type[T], arrays: Mapping[str, NDArray[Any]], prefix: str) -> T:
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name = f"{prefix}{field.name}"
        values[field.name] = _value(hints[field.name], arrays, name)
    return kind(**values)


def _value(hint: Any, arrays: Mapping[str, NDArray[Any]], name: str) -> Any:
    if f"{name}.{_NONE}" in arrays:
        return None
    # `X | None` is X here: absence was said above.
    options = [option for option in (get_args(hint) or (hint,)) if option is not NoneType]
    nested = next((option for option in options if isinstance(option, type) and is_dataclass(option)), None)
    if nested is not None:
        return _unpack(nested, arrays, f"{name}.")
    array = arrays[name]
    if getattr(hint, "__origin__", hint) is tuple:
        return tuple(array.tolist())
    return array.item() if array.ndim == 0 else array
