"""Files that are there whole or not at all, and the same input always gives the same bytes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError

PARTIAL_SUFFIX = ".partial"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, SyntaxError)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name when it is whole and on disk; an error leaves nothing behind."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    try:
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_npz(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one uncompressed .npz that names no time; see `write_npz_parts` for arrays that are streamed."""
    write_npz_parts(path, {name: (array.shape, array.dtype, [array]) for name, array in arrays.items()})


def write_npz_parts(path: str | Path, arrays: Mapping[str, tuple[tuple[int, ...], Any, Any]]) -> None:
    """Write arrays that come in parts along their first axes.

    Args:
        path: File to write; it appears when it is whole.
        arrays: Name -> (shape, dtype, iterable of arrays that follow each other in memory).

    Raises:
        ValueError: The parts do not add up to the shape, or an array holds objects.
    """
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, (shape, dtype, parts) in arrays.items():
            # A ZipInfo made by hand has the year 1980, whatever the clock says.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                kind = np.dtype(dtype)
                if kind.hasobject:
                    raise ValueError(f"{name} holds objects")
                header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                count = 0
                for part in parts:
                    rows = np.ascontiguousarray(part, kind)
                    member.write(rows.tobytes())
                    count += rows.size
                if count != int(np.prod(shape)):
                    raise ValueError(f"{name} has {count} values, not those of {shape}")


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz; nothing is unpickled, and every member's checksum is looked at.

    Raises:
        FormatError: The file is damaged or is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGE as error:
        raise FormatError(
            "Arrays cannot be read", where=path, expected="a whole .npz", found=error
        ) from error


def remove_partials(folder: Path) -> None:
    """Delete what a killed run left unfinished in a folder that this process holds."""
    for path in folder.glob(f"*{PARTIAL_SUFFIX}"):
        if path.is_file():
            path.unlink(missing_ok=True)
