"""Bring scene files of older contract versions to the current one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the filters that scene files use

from datakit.errors import ConventionError, FormatError
from datakit.schema import SCHEMA_VERSION

from .write import PARTIAL_SUFFIX, _sync

#: version -> (next version, in-place edit of an open file). Add a row with every change of the contract.
Migrations = Mapping[str, tuple[str, Callable[[h5py.File], None]]]
MIGRATIONS: Migrations = {
    # 2.0 added a layer's code_values, which no older file has.
    "1.0": ("2.0", lambda file: None),
}


def migrate_scene(
    path: str | Path, migrations: Migrations = MIGRATIONS, target: str = SCHEMA_VERSION
) -> bool:
    """Rewrite a scene file in the current version of the contract, atomically.

    Args:
        path: Scene file; replaced only when every step succeeded.
        migrations: Steps to choose from.
        target: Version to arrive at.

    Returns:
        True if the file was rewritten, False if it already was current.

    Raises:
        FormatError: Not a scene file.
        ConventionError: No step leads from the file's version to the target.
    """
    source = Path(path)
    partial = source.with_name(source.name + PARTIAL_SUFFIX)
    try:
        with h5py.File(source, "r") as file:
            version = str(file.attrs.get("schema_version"))
            if file.attrs.get("format") != "datakit-scene":
                raise FormatError("Not a scene file", where=source, expected="format = datakit-scene")
    except OSError as error:
        raise FormatError("Scene file cannot be opened", where=source, found=error) from error
    if version == target:
        return False
    steps = _route(source, version, target, migrations)
    try:
        shutil.copyfile(source, partial)
        with h5py.File(partial, "r+") as file:
            for following, step in steps:
                step(file)
                file.attrs["schema_version"] = following
        _sync(partial)
        os.replace(partial, source)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise
    return True


def _route(
    source: Path, version: str, target: str, migrations: Migrations
) -> list[tuple[str, Callable[[h5py.File], None]]]:
    steps: list[tuple[str, Callable[[h5py.File], None]]] = []
    at = version
    while at != target:
        if at not in migrations or len(steps) > len(migrations):
            raise ConventionError(
                "No migration leads to this version of the contract",
                where=source,
                expected=target,
                found=version,
                mend="convert the scene again",
            )
        steps.append(migrations[at])
        at = migrations[at][0]
    return steps
