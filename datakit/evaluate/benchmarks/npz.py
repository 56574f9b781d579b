"""Members of `.npz` files: sizes are checked against the file before anything is allocated, nothing is unpickled."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from datakit.errors import FormatError, LayoutError
from datakit.scene.deflate import MAX_EXPANSION

from .pickles import read_pickle

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Npz:
    """An open `.npz`; made by `open_npz`."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self.path = archive, path
        self.names = tuple(n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy"))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def array(self, name: str) -> NDArray[Any]:
        """Read an array of numbers.

        Args:
            name: Of the array.

        Raises:
            FormatError: It is missing, damaged, or holds anything but numbers, truth values or byte strings.
        """
        value = self._read(name)
        if not isinstance(value, np.ndarray):
            raise FormatError(
                "An array of numbers holds objects", where=self._where(name), found=type(value).__name__
            )
        return value

    def byte_strings(self, name: str) -> list[bytes]:
        """Read a list of byte strings, stored as an array of objects or of fixed-size strings.

        Args:
            name: Of the array, one-dimensional.

        Raises:
            FormatError: As `array`, or an item is no byte string.
        """
        value = self._read(name)
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list) or not all(isinstance(item, bytes | bytearray) for item in items):
            raise FormatError(
                "Expected byte strings", where=self._where(name), expected="bytes for each frame"
            )
        return [bytes(item) for item in items]

    def _where(self, name: str) -> str:
        return f"{self.path}, {name}"

    def _read(self, name: str) -> Any:
        if name not in self.names:
            raise FormatError(
                "An array is missing", where=self.path, expected=name, found=", ".join(self.names)
            )
        info = self._archive.getinfo(f"{name}.npy")
        if info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
            raise FormatError(
                "A member claims more bytes than it can hold",
                where=self._where(name),
                expected=f"at most {MAX_EXPANSION} x {info.compress_size}",
                found=info.file_size,
            )
        try:
            data = self._archive.read(info)
            return _parse_npy(data, self._where(name))
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError) as error:
            raise FormatError("An array cannot be read", where=self._where(name), found=error) from error


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open an `.npz`.

    Args:
        path: The file.

    Raises:
        LayoutError: There is no such file.
        FormatError: It is no zip archive, or a truncated one.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise LayoutError("A file cannot be read", where=path, found=error.strerror or error) from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise FormatError(
            "Not an .npz file, or a truncated one", where=path, expected="a zip archive of .npy", found=error
        ) from error
    with archive:
        yield Npz(archive, path)


def _parse_npy(data: bytes, where: str) -> Any:
    stream = io.BytesIO(data)
    read_header = _HEADERS.get(npy.read_magic(stream))
    if read_header is None:
        raise ValueError("an .npy of another version")
    shape, is_fortran, dtype = read_header(stream)
    rest = data[stream.tell() :]
    if dtype.hasobject:
        if dtype.names is not None:
            raise ValueError("an array with fields")
        return read_pickle(rest, where)
    if dtype.kind not in "biufSU" or dtype.names is not None:
        raise ValueError(f"dtype {dtype}")
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(rest) != expected or min(shape, default=0) < 0:
        raise ValueError(f"{len(rest)} bytes for {shape} of {dtype}, which are {expected}")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if is_fortran else "C")
