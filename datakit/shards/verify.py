"""Find everything in a set that is not as it was packed, and name it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datakit.errors import ShardError

from .access import Reader
from .index import columns_of
from .layout import INDEX, KINDS
from .reader import ShardSet, check_file, read_manifest
from .tar import end_of_archive, member_header, padding

_CHUNK = 1 << 23


def verify(
    root: str | Path,
    quick: bool = False,
    *,
    storage_options: dict[str, Any] | None = None,
    progress: bool = False,
) -> list[ShardError]:
    """Check a set.

    Args:
        root: Folder or URL.
        quick: Check the manifest, the index, the list of scenes, and that every shard is there with its size; the
            bytes of the shards are not read.
        storage_options: For the fsspec file system.
        progress: Show a progress bar on the error stream.

    Returns:
        Every problem found; empty for a sound set. A flipped bit anywhere in any file of the set is a problem.
    """
    reader = Reader(str(root), storage_options=storage_options)
    try:
        manifest = read_manifest(reader)
    except ShardError as error:
        return [error]
    problems: list[ShardError] = []
    shard_set = None
    for entry in (manifest["index"], manifest["scenes"]):
        try:
            data = reader.read(entry["name"])
            check_file(reader.place(entry["name"]), data, entry)
        except ShardError as error:
            problems.append(error)
        else:
            if entry["name"] == INDEX:
                shard_set = ShardSet(reader, manifest, columns_of(data, reader.place(INDEX)))
    problems += _strangers(reader, manifest)
    total = sum(shard["size"] for shard in manifest["shards"])
    with tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=not progress or quick) as bar:
        for number, shard in enumerate(manifest["shards"]):
            problem = _wrong_size(reader, shard)
            if problem is not None:
                problems.append(problem)
            if not quick and (problem is None or problem.found != "nothing"):
                problems += _check_shard(reader, shard, number, shard_set)
            bar.update(shard["size"])
    return problems


def _strangers(reader: Reader, manifest: dict[str, Any]) -> list[ShardError]:
    """Find local tars that are not of the set: plain webdataset users would read them by a wildcard."""
    if not reader.is_local:
        return []
    known = {shard["name"] for shard in manifest["shards"]}
    return [
        ShardError(
            "File does not belong to the set", where=path, expected=f"{len(known)} shards", found=path.name
        )
        for path in sorted(Path(reader.root).glob("*.tar"))
        if path.name not in known
    ]


def _wrong_size(reader: Reader, shard: dict[str, Any]) -> ShardError | None:
    try:
        size = reader.size(shard["name"])
    except ShardError as error:
        return error
    if size == shard["size"]:
        return None
    return ShardError(
        "Shard is truncated" if size < shard["size"] else "Shard is too long",
        where=reader.place(shard["name"]),
        expected=f"{shard['size']} bytes",
        found=f"{size} bytes",
    )


class _Cursor:
    """Reads a shard from front to back, hashing it on the way."""

    def __init__(self, reader: Reader, name: str, size: int) -> None:
        self._reader, self._name, self._size = reader, name, size
        self.at = 0
        self.sha256 = hashlib.sha256()

    def chunks(self, length: int) -> Iterator[bytes]:
        """Read on by `length` bytes."""
        end = self.at + length
        while self.at < end:
            data = self._reader.read(self._name, self.at, min(_CHUNK, end - self.at))
            self.at += len(data)
            self.sha256.update(data)
            yield data

    def take(self, length: int) -> bytes:
        """Read on by `length` bytes at once."""
        return b"".join(self.chunks(length))


def _check_shard(
    reader: Reader, shard: dict[str, Any], number: int, shard_set: ShardSet | None
) -> list[ShardError]:
    """Compare every byte of a shard with what the index says must be there."""
    cursor = _Cursor(reader, shard["name"], shard["size"])
    where = reader.place(shard["name"])
    problems: list[ShardError] = []
    try:
        if shard_set is not None:
            for name, length, sha256 in _members_of(shard_set, number):
                problems += _check_member(cursor, where, name, length, sha256)
            end = end_of_archive(cursor.at)
            if cursor.take(len(end)) != end:
                problems.append(_differs("End of the archive", where, "zeros", "other bytes"))
        for _ in cursor.chunks(shard["size"] - cursor.at):
            pass  # without an index only the hash of the whole shard can be checked
    except ShardError as error:
        return [*problems, error]
    found = cursor.sha256.hexdigest()
    if found != shard["sha256"] and not problems:
        problems.append(_differs("Shard", where, f"sha256 {shard['sha256']}", f"sha256 {found}"))
    return problems


def _members_of(shard_set: ShardSet, number: int) -> Iterator[tuple[str, int, bytes]]:
    columns = shard_set.columns
    for i in (columns["shard"] == number).nonzero()[0].tolist():
        key = shard_set.key(i)
        for k, kind in enumerate(KINDS):
            if columns["member_offset"][i, k] >= 0:
                yield (
                    f"{key}.{kind}",
                    int(columns["member_length"][i, k]),
                    columns["member_sha256"][i, k].tobytes(),
                )


def _check_member(cursor: _Cursor, where: str, name: str, length: int, sha256: bytes) -> list[ShardError]:
    problems = []
    start = cursor.at
    header = member_header(name, length)
    at = partial("{}, member {}, {} bytes {}..{}".format, where, name)
    try:
        if cursor.take(len(header)) != header:
            problems.append(
                _differs(
                    "Tar header", at("header", start, cursor.at), "the header that pack writes", "another"
                )
            )
        first, digest = cursor.at, hashlib.sha256()
        for chunk in cursor.chunks(length):
            digest.update(chunk)
        if digest.digest() != sha256:
            expected, found = f"sha256 {sha256.hex()}", f"sha256 {digest.hexdigest()}"
            problems.append(_differs("Member", at("data", first, cursor.at), expected, found))
        first, fill = cursor.at, padding(length)
        if cursor.take(len(fill)) != fill:
            problems.append(_differs("Padding", at("padding", first, cursor.at), "zeros", "other bytes"))
    except ShardError as error:
        raise ShardError(
            error.what, where=at("", start, cursor.at), expected=error.expected, found=error.found
        ) from error
    return problems


def _differs(what: str, where: str, expected: str, found: str) -> ShardError:
    return ShardError(
        f"{what} is corrupt",
        where=where,
        expected=expected,
        found=found,
        mend="fetch it again, or pack again",
    )
