"""Arrays out of pickles without unpickling: opcodes are walked as data, and no name in them is ever looked up.

TAP-Vid ships `.pkl` files, and numpy stores object arrays (TAPVid-3D's `images_jpeg_bytes`) as a pickle inside an
`.npy`. A pickle is a program; this file runs none of it. `pickletools.genops` splits it into opcodes, a stack of plain
Python values is kept, and the few calls that numpy arrays and byte strings are written with are recognised by name and
carried out here. Anything else is an error.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datakit.errors import FormatError

#: Boolean, integer and float dtypes; nothing with fields, objects or Python code behind it.
_PLAIN_DTYPE = re.compile(r"^[<>|=]?[biuf]\d+$")
_OBJECT_DTYPE = re.compile(r"^\|?O8?$")
_MARK = object()
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
#: Python 2's byte strings; pickletools hands them out as latin-1 text.
_OLD_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}


@dataclass
class _Dtype:
    text: str


@dataclass
class _Array:
    state: tuple[Any, ...] = field(default=())


@dataclass(frozen=True)
class _Name:
    path: str


def read_pickle(data: bytes, where: str) -> Any:
    """Return the value of a pickle of containers, numbers, text, bytes and numpy arrays.

    Args:
        data: The pickle, from its first byte to the one after its STOP.
        where: File and field, for errors.

    Returns:
        dicts, lists, tuples, numbers, text, bytes and arrays of plain dtypes. An array of objects comes as a list.

    Raises:
        FormatError: Truncated, damaged, or anything else is in it: a class, a function, an array with fields.
    """
    try:
        return _finish(_walk(data), {})
    except FormatError as error:
        raise FormatError(error.what, where=where, expected=error.expected, found=error.found) from error
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        AttributeError,
        RecursionError,
    ) as error:
        raise FormatError(
            "A pickle cannot be read", where=where, expected="a pickle of numpy arrays", found=error
        ) from error


def _walk(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            return stack[-1]
        if name in ("PROTO", "FRAME"):
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _OLD_STRINGS:
            stack.append(argument.encode("latin-1"))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(str(argument).replace(" ", ".")))
        else:
            _ACTIONS.get(name, _refuse(name))(stack)
    raise ValueError("no STOP")


def _refuse(name: str) -> Callable[[list[Any]], None]:
    def refuse(stack: list[Any]) -> None:
        raise FormatError(
            "A pickle does what reading arrays never needs", expected="numpy arrays in containers", found=name
        )

    return refuse


def _since_mark(stack: list[Any]) -> list[Any]:
    at = next(i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK)
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _tuple(size: int | None) -> Callable[[list[Any]], None]:
    def act(stack: list[Any]) -> None:
        if size is None:
            stack.append(tuple(_since_mark(stack)))
            return
        items = tuple(stack[len(stack) - size :])
        if len(items) != size:
            raise ValueError("the stack is too short")
        del stack[len(stack) - size :]
        stack.append(items)

    return act


def _list(stack: list[Any]) -> None:
    stack.append(_since_mark(stack))


def _dict(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack.append(dict(zip(items[::2], items[1::2], strict=True)))


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    stack[-1].append(value)


def _appends(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack[-1].extend(items)


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][key] = value


def _set_items(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _stack_global(stack: list[Any]) -> None:
    name, module = stack.pop(), stack.pop()
    stack.append(_Name(f"{module}.{name}"))


def _reduce(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    path = function.path if isinstance(function, _Name) else "?"
    call = _CALLS.get(path.replace("numpy._core.", "numpy.core."))
    if call is None or not isinstance(arguments, tuple):
        raise FormatError(
            "A pickle calls something", expected="only what numpy arrays are made with", found=path
        )
    stack.append(call(*arguments))


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    made = stack[-1]
    if isinstance(made, _Array) and isinstance(state, tuple):
        made.state = state
    elif isinstance(made, _Dtype) and isinstance(state, tuple):
        # (version, byte order, subarray, names, fields, ...); numpy's dtype.__reduce__.
        if any(part is not None for part in state[2:5]):
            raise FormatError("An array has fields", expected="a plain dtype", found=made.text)
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        if order in "<>" and made.text[:1] not in "<>|=O":
            made.text = order + made.text
    else:
        raise FormatError(
            "A pickle sets the state of something", expected="arrays", found=type(made).__name__
        )


def _make_dtype(text: Any, align: Any = False, copy: Any = True) -> _Dtype:
    return _Dtype(text.decode("ascii") if isinstance(text, bytes) else str(text))


def _make_scalar(dtype: _Dtype, raw: Any = b"") -> Any:
    return np.frombuffer(_raw(raw), _numpy_dtype(dtype), count=1)[0].item()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    return _to_array(tuple(shape), dtype, order == "F", raw)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {encoding}")
    return str(text).encode("latin-1")


def _make_bytes(*nothing: Any) -> bytes:
    if nothing:
        raise ValueError("bytes made of something")
    return b""


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": lambda kind, shape, code: _Array(),
    "numpy.core.multiarray.scalar": _make_scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _make_dtype,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _make_bytes,
    "builtins.bytes": _make_bytes,
}
_ACTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "POP": lambda stack: stack.pop(),
    "POP_MARK": _since_mark,
    "TUPLE": _tuple(None),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": _list,
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}


#: Stands in the table of finished values for one that is being finished.
_UNFINISHED = object()


def _finish(value: Any, done: dict[int, Any]) -> Any:
    """Turn what was recorded into arrays; each value once, however often it is referred to."""
    if not isinstance(value, dict | list | tuple | _Array):
        if value is None or isinstance(value, bool | int | float | str | bytes | bytearray | np.ndarray):
            return value
        raise FormatError("A pickle holds what is no data", expected="arrays", found=type(value).__name__)
    known = done.get(id(value))
    if known is _UNFINISHED:
        raise FormatError("A pickle holds itself")
    if known is not None:
        return known
    done[id(value)] = _UNFINISHED
    made: Any
    if isinstance(value, _Array):
        shape, dtype, is_fortran, raw = value.state[-4:]
        made = _to_array(shape, dtype, bool(is_fortran), raw)
        made = [_finish(item, done) for item in made] if isinstance(made, list) else made
    elif isinstance(value, dict):
        made = {_key(key): _finish(item, done) for key, item in value.items()}
    else:
        made = type(value)([_finish(item, done) for item in value])
    done[id(value)] = made
    return made


def _key(key: Any) -> Any:
    # Python 2's text keys come as byte strings.
    return key.decode("utf-8") if isinstance(key, bytes) else key


def _to_array(shape: Any, dtype: Any, is_fortran: bool, raw: Any) -> Any:
    if not (isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)):
        raise ValueError(f"shape {shape}")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if isinstance(dtype, _Dtype) and _OBJECT_DTYPE.match(dtype.text):
        if not isinstance(raw, list) or len(shape) != 1 or len(raw) != count:
            raise FormatError("An array of objects is no list", expected=shape, found=type(raw).__name__)
        return raw
    kind = _numpy_dtype(dtype)
    data = _raw(raw)
    if len(data) != count * kind.itemsize:
        raise FormatError(
            "An array's bytes do not fit its shape", expected=f"{shape} of {kind}", found=f"{len(data)} bytes"
        )
    flat = np.frombuffer(data, kind)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype) or not _PLAIN_DTYPE.match(dtype.text):
        raise FormatError(
            "An array has no plain dtype", expected="numbers", found=getattr(dtype, "text", dtype)
        )
    return np.dtype(dtype.text)


def _raw(value: Any) -> bytes:
    if isinstance(value, str):  # protocols below 3 write bytes as latin-1 text
        return value.encode("latin-1")
    if not isinstance(value, bytes | bytearray):
        raise ValueError("an array's data is no bytes")
    return bytes(value)
